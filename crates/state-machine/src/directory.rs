//! Applying the commands of the directory: applications and their credentials, users, groups, sign-ins of devices.

use crate::apply::{put, refuse, Apply, ApplyError, Step};
use crate::keys;
use crate::kv::{Kv, Table};
use crate::read;
use crate::records::{Application, DeviceApproval, Group, SignIn, User, FORMAT};
use claviger_types::codec;
use claviger_types::command::{
    AddClientSecret, ApproveDevice, CreateUser, DeleteApplication, DeleteFederatedCredential, FederatedCredential,
    PrincipalRef, PutApplication, PutFederatedCredential, PutGroup, PutUser, RemoveClientSecret, SetCertificates,
    SetMember, TakeDevice, UpdateUser,
};
use claviger_types::name::Id128;
use claviger_types::outcome::{Outcome, Refusal};

/// Client secrets of one application, and certificates: more are a mistake of some script.
const SECRETS_MAX: usize = 100;

/// Federated credentials of one application, as the public directory has it.
const FEDERATED_MAX: usize = 20;

/// Approvals forgotten per new one: more than one, so that the queue shrinks after a burst.
const FORGET_DEVICES: usize = 4;

/// Memberships looked at in one step while a group is removed.
const SCAN_ROWS: usize = 1024;

impl<K: Kv> Apply<'_, K> {
    pub(crate) fn put_application(&mut self, c: PutApplication) -> Step {
        let old = read::application(self.kv, c.app)?;
        if old.as_ref().is_some_and(|old| old.tenant != c.tenant) {
            return refuse(Refusal::PrincipalNotFound);
        }
        let application = match old {
            Some(old) => Application { display_name: c.display_name, has_principal: c.has_principal, ..old },
            None => Application {
                tenant: c.tenant,
                app: c.app,
                object: c.object,
                oid: c.oid,
                has_principal: c.has_principal,
                display_name: c.display_name,
                secrets: Vec::new(),
                certificates: Vec::new(),
                created: self.now,
            },
        };
        put(self.kv, Table::Identity, keys::application(c.app), &application)?;
        Ok(Outcome::Done)
    }

    fn application(&self, tenant: Id128, app: Id128) -> Result<Option<Application>, ApplyError> {
        Ok(read::application(self.kv, app)?.filter(|found| found.tenant == tenant))
    }

    pub(crate) fn add_client_secret(&mut self, c: AddClientSecret) -> Step {
        let Some(mut application) = self.application(c.tenant, c.app)? else {
            return refuse(Refusal::PrincipalNotFound);
        };
        if application.secrets.len() >= SECRETS_MAX {
            return refuse(Refusal::TooMany);
        }
        application.secrets.push(c.secret);
        put(self.kv, Table::Identity, keys::application(c.app), &application)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn remove_client_secret(&mut self, c: RemoveClientSecret) -> Step {
        let Some(mut application) = self.application(c.tenant, c.app)? else {
            return refuse(Refusal::PrincipalNotFound);
        };
        application.secrets.retain(|secret| secret.id != c.id);
        put(self.kv, Table::Identity, keys::application(c.app), &application)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn set_certificates(&mut self, c: SetCertificates) -> Step {
        let Some(mut application) = self.application(c.tenant, c.app)? else {
            return refuse(Refusal::PrincipalNotFound);
        };
        if c.certificates.len() > SECRETS_MAX {
            return refuse(Refusal::TooMany);
        }
        application.certificates = c.certificates;
        put(self.kv, Table::Identity, keys::application(c.app), &application)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn delete_application(&mut self, c: DeleteApplication) -> Step {
        if self.application(c.tenant, c.app)?.is_none() {
            return refuse(Refusal::PrincipalNotFound);
        }
        self.kv.delete(Table::Identity, keys::application(c.app));
        for credential in read::federated_credentials(self.kv, c.app)? {
            self.kv.delete(Table::Identity, keys::federated_credential(c.app, credential.id));
        }
        Ok(Outcome::Done)
    }

    pub(crate) fn put_federated_credential(&mut self, c: PutFederatedCredential) -> Step {
        if self.application(c.tenant, c.app)?.is_none() {
            return refuse(Refusal::PrincipalNotFound);
        }
        let new = c.credential;
        let mut others = read::federated_credentials(self.kv, c.app)?;
        others.retain(|old| old.id != new.id);
        // Two that let in the same token would be one whose removal does not shut anybody out.
        let clash = |old: &FederatedCredential| {
            old.name.eq_ignore_ascii_case(&new.name) || (&old.issuer, &old.subject) == (&new.issuer, &new.subject)
        };
        if others.iter().any(clash) {
            return refuse(Refusal::PrincipalExists);
        }
        if others.len() >= FEDERATED_MAX {
            return refuse(Refusal::TooMany);
        }
        put(self.kv, Table::Identity, keys::federated_credential(c.app, new.id), &new)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn delete_federated_credential(&mut self, c: DeleteFederatedCredential) -> Step {
        let known = read::federated_credentials(self.kv, c.app)?.iter().any(|old| old.id == c.id);
        if self.application(c.tenant, c.app)?.is_none() || !known {
            return refuse(Refusal::PrincipalNotFound);
        }
        self.kv.delete(Table::Identity, keys::federated_credential(c.app, c.id));
        Ok(Outcome::Done)
    }

    pub(crate) fn put_user(&mut self, c: PutUser) -> Step {
        if read::user(self.kv, c.oid)?.is_some_and(|old| old.tenant != c.tenant) {
            return refuse(Refusal::PrincipalNotFound);
        }
        let user = User { tenant: c.tenant, oid: c.oid, upn: c.upn, display_name: c.display_name };
        put(self.kv, Table::Identity, keys::user(c.oid), &user)?;
        Ok(Outcome::Done)
    }

    fn user(&self, tenant: Id128, oid: Id128) -> Result<Option<User>, ApplyError> {
        Ok(read::user(self.kv, oid)?.filter(|found| found.tenant == tenant))
    }

    pub(crate) fn create_user(&mut self, c: CreateUser) -> Step {
        let taken = read::user_by_name(self.kv, &c.upn)?.is_some();
        if taken || read::user(self.kv, c.oid)?.is_some() {
            return refuse(Refusal::PrincipalExists);
        }
        let user = User { tenant: c.tenant, oid: c.oid, upn: c.upn, display_name: c.display_name };
        let sign_in = SignIn { password: c.password, enabled: c.enabled, stamp: self.index, created: self.now };
        put(self.kv, Table::Identity, keys::user_name(&user.upn), &c.oid)?;
        put(self.kv, Table::Identity, keys::sign_in(c.oid), &sign_in)?;
        put(self.kv, Table::Identity, keys::user(c.oid), &user)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn update_user(&mut self, c: UpdateUser) -> Step {
        let (Some(mut user), Some(mut sign_in)) = (self.user(c.tenant, c.oid)?, read::sign_in(self.kv, c.oid)?) else {
            return refuse(Refusal::PrincipalNotFound);
        };
        user.display_name = c.display_name.unwrap_or(user.display_name);
        sign_in.enabled = c.enabled.unwrap_or(sign_in.enabled);
        if c.password.is_some() {
            sign_in.password = c.password;
            sign_in.stamp = self.index;
        }
        put(self.kv, Table::Identity, keys::sign_in(c.oid), &sign_in)?;
        put(self.kv, Table::Identity, keys::user(c.oid), &user)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn delete_user(&mut self, c: PrincipalRef) -> Step {
        let Some(user) = self.user(c.tenant, c.oid)? else { return refuse(Refusal::PrincipalNotFound) };
        self.kv.delete(Table::Identity, keys::user(c.oid));
        self.kv.delete(Table::Identity, keys::sign_in(c.oid));
        self.kv.delete(Table::Identity, keys::user_name(&user.upn));
        self.remove_all(Table::Identity, &keys::memberships(c.oid))?;
        Ok(Outcome::Done)
    }

    /// Memberships are kept by member, for that is what an access check asks: all are looked through.
    pub(crate) fn delete_group(&mut self, c: PrincipalRef) -> Step {
        if read::group(self.kv, c.oid)?.is_none_or(|group| group.tenant != c.tenant) {
            return refuse(Refusal::PrincipalNotFound);
        }
        self.kv.delete(Table::Identity, keys::directory_group(c.oid));
        self.remove_all(Table::Identity, &keys::memberships(c.oid))?;
        let mut from = keys::MEMBERSHIPS.to_vec();
        loop {
            let rows = self.kv.scan(Table::Identity, &from, &keys::after(keys::MEMBERSHIPS), SCAN_ROWS)?;
            let Some((last, _)) = rows.last() else { return Ok(Outcome::Done) };
            from = [last.as_slice(), &[0]].concat();
            for (key, value) in rows {
                if codec::from_versioned::<Id128>(FORMAT, &value)? == c.oid {
                    self.kv.delete(Table::Identity, key);
                }
            }
        }
    }

    pub(crate) fn approve_device(&mut self, c: ApproveDevice) -> Step {
        if self.user(c.user.tenant, c.user.oid)?.is_none() {
            return refuse(Refusal::PrincipalNotFound);
        }
        // The first sign-in counts: whoever knows the code could otherwise put itself in another's place.
        if let Some(old) = read::device(self.kv, &c.code)? {
            if old.expires > self.now {
                return refuse(Refusal::PrincipalExists);
            }
            self.kv.delete(Table::Identity, keys::device_queue(old.expires, &c.code));
        }
        let until = keys::device_queue(self.now + 1, &[0; 32]);
        for (key, value) in self.kv.scan(Table::Identity, keys::DEVICE_QUEUE, &until, FORGET_DEVICES)? {
            let code: [u8; 32] = codec::from_versioned(FORMAT, &value)?;
            self.kv.delete(Table::Identity, keys::device(&code));
            self.kv.delete(Table::Identity, key);
        }
        put(self.kv, Table::Identity, keys::device_queue(c.expires, &c.code), &c.code)?;
        let approval = DeviceApproval { user: c.user, expires: c.expires };
        put(self.kv, Table::Identity, keys::device(&c.code), &approval)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn take_device(&mut self, c: TakeDevice) -> Step {
        let Some(approval) = read::device(self.kv, &c.code)?.filter(|found| found.expires > self.now) else {
            return refuse(Refusal::NotApproved);
        };
        self.kv.delete(Table::Identity, keys::device(&c.code));
        self.kv.delete(Table::Identity, keys::device_queue(approval.expires, &c.code));
        Ok(Outcome::Done)
    }

    pub(crate) fn put_group(&mut self, c: PutGroup) -> Step {
        if read::group(self.kv, c.oid)?.is_some_and(|old| old.tenant != c.tenant) {
            return refuse(Refusal::PrincipalNotFound);
        }
        let group = Group { tenant: c.tenant, oid: c.oid, display_name: c.display_name };
        put(self.kv, Table::Identity, keys::directory_group(c.oid), &group)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn set_member(&mut self, c: SetMember) -> Step {
        if read::group(self.kv, c.group)?.is_none_or(|group| group.tenant != c.tenant) {
            return refuse(Refusal::PrincipalNotFound);
        }
        let key = keys::membership(c.member, c.group);
        if c.present {
            put(self.kv, Table::Identity, key, &c.group)?;
        } else {
            self.kv.delete(Table::Identity, key);
        }
        Ok(Outcome::Done)
    }
}
