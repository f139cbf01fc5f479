//! Operators' requests of the directory: `claviger identity`, from the command line to a node.
//!
//! They go the way of `claviger cluster init`: over the peer port, with a node's own certificate, in the name of the service
//! itself. Answers are JSON, in the directory's own words.

use crate::directory;
use crate::error::ServiceError;
use crate::graph::{
    render_application, render_certificate, render_federated, render_group, render_secret, render_user,
};
use crate::identity::certificate_key;
use crate::management::ArmError;
use crate::service::{fresh_id, fresh_secret, Service};
use claviger_state_machine::records::{Application, Group, User};
use claviger_state_machine::{read, ApplyError};
use claviger_types::command::{
    Actor, AddClientSecret, ClientCertificate, Command, DeleteApplication, DeleteFederatedCredential,
    FederatedCredential, PrincipalRef, PutFederatedCredential, PutGroup, RemoveClientSecret, SetCertificates,
    SetMember, UpdateUser,
};
use claviger_types::name::Id128;
use claviger_types::outcome::Outcome;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use zeroize::Zeroizing;

/// What an operator asks of the directory. An application is named by client id, object id or display name, a user by
/// object id or name, a group by object id or display name. `Debug` is not derived: passwords are in it.
#[derive(Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the members are what their names say, and the command line documents each")]
pub enum DirectoryCommand {
    ListApplications,
    ShowApplication {
        application: String,
    },
    DeleteApplication {
        application: String,
    },
    AddSecret {
        application: String,
        display_name: String,
        days: u64,
    },
    RemoveSecret {
        application: String,
        key_id: String,
    },
    AddCertificate {
        application: String,
        display_name: String,
        pem: String,
    },
    RemoveCertificate {
        application: String,
        key_id: String,
    },
    AddFederatedCredential {
        application: String,
        name: String,
        issuer: String,
        subject: String,
        audiences: Vec<String>,
        description: String,
    },
    RemoveFederatedCredential {
        application: String,
        credential: String,
    },
    CreateUser {
        user: String,
        display_name: String,
        password: Option<Zeroizing<String>>,
    },
    ListUsers,
    ShowUser {
        user: String,
    },
    SetPassword {
        user: String,
        password: Option<Zeroizing<String>>,
    },
    EnableUser {
        user: String,
        enabled: bool,
    },
    DeleteUser {
        user: String,
    },
    CreateGroup {
        display_name: String,
    },
    ListGroups,
    ShowGroup {
        group: String,
    },
    DeleteGroup {
        group: String,
    },
    SetMember {
        group: String,
        member: String,
        present: bool,
    },
}

/// Why not, as the operator is told.
struct Refused(String);

impl From<String> for Refused {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<ServiceError> for Refused {
    fn from(error: ServiceError) -> Self {
        Self(error.to_wire().1.error.message)
    }
}

impl From<ApplyError> for Refused {
    fn from(error: ApplyError) -> Self {
        ServiceError::from(error).into()
    }
}

impl From<claviger_crypto::CryptoError> for Refused {
    fn from(error: claviger_crypto::CryptoError) -> Self {
        ServiceError::from(error).into()
    }
}

type Result<T> = std::result::Result<T, Refused>;

fn no_such(what: &str, name: &str) -> Refused {
    Refused(format!("there is no {what} `{name}`"))
}

fn guid(text: &str) -> Option<Id128> {
    Id128::parse_guid(text).ok()
}

/// The one that fits; names are not unique, so more than one is none.
fn only<T>(what: &str, name: &str, found: Vec<T>) -> Result<T> {
    let many = found.len() > 1;
    match found.into_iter().next() {
        Some(_) if many => Err(Refused(format!("there is more than one {what} `{name}`: name it by its id"))),
        Some(one) => Ok(one),
        None => Err(no_such(what, name)),
    }
}

impl Service {
    /// Carries out an operator's request; the caller has passed the read gate.
    pub(crate) async fn directory(&self, command: DirectoryCommand) -> std::result::Result<Value, String> {
        let tenants = self.node.view(|view| read::tenants(view)).map_err(|error| error.to_string())?;
        let tenant = tenants.first().ok_or("the world is not set up yet")?.tenant;
        Directory { service: self, tenant }.run(command).await.map_err(|Refused(text)| text)
    }
}

/// The directory of one tenant.
struct Directory<'a> {
    service: &'a Service,
    tenant: Id128,
}

impl Directory<'_> {
    async fn run(&self, command: DirectoryCommand) -> Result<Value> {
        use DirectoryCommand as D;
        let tenant = self.tenant;
        match command {
            D::ListApplications => {
                let all = self.applications()?;
                Ok(all.iter().map(|found| self.shown(found)).collect::<Result<Vec<_>>>()?.into())
            }
            D::ShowApplication { application } => self.shown(&self.application(&application)?),
            D::DeleteApplication { application } => {
                let app = self.application(&application)?.app;
                self.propose(Command::DeleteApplication(DeleteApplication { tenant, app })).await
            }
            D::AddSecret { application, display_name, days } => {
                let app = self.application(&application)?.app;
                let now = self.service.now_ms() / 1000;
                let end = now.saturating_add(days.saturating_mul(86_400));
                let (secret, text) = directory::new_secret(display_name, now, Some(end)).await?;
                let shown = render_secret(&secret, Some(&text));
                self.propose(Command::AddClientSecret(AddClientSecret { tenant, app, secret })).await?;
                Ok(shown)
            }
            D::RemoveSecret { application, key_id } => {
                let found = self.application(&application)?;
                let id = guid(&key_id).filter(|id| found.secrets.iter().any(|secret| secret.id == *id));
                let id = id.ok_or_else(|| no_such("secret", &key_id))?;
                self.propose(Command::RemoveClientSecret(RemoveClientSecret { tenant, app: found.app, id })).await
            }
            D::AddCertificate { application, display_name, pem } => {
                let found = self.application(&application)?;
                let wrong = || Refused("not an X.509 certificate with an RSA key of 2048 to 4096 bits, in PEM".into());
                let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| wrong())?.to_vec();
                let (public, start, end) = certificate_key(&der).ok_or_else(wrong)?;
                let certificate = ClientCertificate { id: fresh_id()?, der, public, display_name, start, end };
                let shown = render_certificate(&certificate);
                let mut certificates = found.certificates;
                certificates.push(certificate);
                self.propose(Command::SetCertificates(SetCertificates { tenant, app: found.app, certificates }))
                    .await?;
                Ok(shown)
            }
            D::RemoveCertificate { application, key_id } => {
                let found = self.application(&application)?;
                let id = guid(&key_id).filter(|id| found.certificates.iter().any(|known| known.id == *id));
                let id = id.ok_or_else(|| no_such("certificate", &key_id))?;
                let certificates = found.certificates.into_iter().filter(|known| known.id != id).collect();
                self.propose(Command::SetCertificates(SetCertificates { tenant, app: found.app, certificates })).await
            }
            D::AddFederatedCredential { application, name, issuer, subject, audiences, description } => {
                let app = self.application(&application)?.app;
                let credential = FederatedCredential { id: fresh_id()?, name, issuer, subject, audiences, description };
                let credential = directory::federated(credential)?;
                let shown = render_federated(&credential);
                self.propose(Command::PutFederatedCredential(PutFederatedCredential { tenant, app, credential }))
                    .await?;
                Ok(shown)
            }
            D::RemoveFederatedCredential { application, credential } => {
                let app = self.application(&application)?.app;
                let all = self.service.node.view(|view| read::federated_credentials(view, app))?;
                let fits = |known: &&FederatedCredential| {
                    Some(known.id) == guid(&credential) || known.name.eq_ignore_ascii_case(&credential)
                };
                let id = all.iter().find(fits).ok_or_else(|| no_such("federated credential", &credential))?.id;
                let delete = DeleteFederatedCredential { tenant, app, id };
                self.propose(Command::DeleteFederatedCredential(delete)).await
            }
            D::CreateUser { user, display_name, password } => {
                let upn = directory::upn(&user)?;
                let display_name = directory::display_name(&display_name)?;
                let (password, made) = given_or_made(password)?;
                let new = directory::new_user(tenant, upn, display_name, Some(&password), true).await?;
                let oid = new.oid;
                self.propose(Command::CreateUser(new)).await?;
                let mut shown = self.shown_user(&self.user(&oid.guid())?)?;
                if made {
                    shown["password"] = json!(*password);
                }
                Ok(shown)
            }
            D::ListUsers => {
                let all = self.service.node.view(|view| read::users(view))?;
                let own = all.iter().filter(|user| user.tenant == tenant);
                Ok(own.map(|user| self.shown_user(user)).collect::<Result<Vec<_>>>()?.into())
            }
            D::ShowUser { user } => self.shown_user(&self.user(&user)?),
            D::SetPassword { user, password } => {
                let oid = self.user(&user)?.oid;
                let (password, made) = given_or_made(password)?;
                let hash = Some(directory::hash(&password).await?);
                let update = UpdateUser { tenant, oid, display_name: None, password: hash, enabled: None };
                self.propose(Command::UpdateUser(update)).await?;
                Ok(if made { json!({"password": *password}) } else { json!({}) })
            }
            D::EnableUser { user, enabled } => {
                let oid = self.user(&user)?.oid;
                let enabled = Some(enabled);
                let update = UpdateUser { tenant, oid, display_name: None, password: None, enabled };
                self.propose(Command::UpdateUser(update)).await
            }
            D::DeleteUser { user } => {
                let oid = self.user(&user)?.oid;
                self.propose(Command::DeleteUser(PrincipalRef { tenant, oid })).await
            }
            D::CreateGroup { display_name } => {
                let display_name = directory::display_name(&display_name)?;
                let group = Group { tenant, oid: fresh_id()?, display_name: display_name.clone() };
                self.propose(Command::PutGroup(PutGroup { tenant, oid: group.oid, display_name })).await?;
                Ok(render_group(&group))
            }
            D::ListGroups => Ok(self.groups()?.iter().map(render_group).collect::<Vec<_>>().into()),
            D::ShowGroup { group } => {
                let group = self.group(&group)?;
                let mut shown = render_group(&group);
                shown["members"] = self.members(&group)?;
                Ok(shown)
            }
            D::DeleteGroup { group } => {
                let oid = self.group(&group)?.oid;
                self.propose(Command::DeleteGroup(PrincipalRef { tenant, oid })).await
            }
            D::SetMember { group, member, present } => {
                let group = self.group(&group)?.oid;
                let member = self.principal(&member)?;
                self.propose(Command::SetMember(SetMember { tenant, group, member, present })).await
            }
        }
    }

    async fn propose(&self, command: Command) -> Result<Value> {
        match self.service.propose_and_see(Actor::System, &command, Vec::new()).await? {
            Outcome::Refused(refusal) => Err(Refused(ArmError::of(refusal).text())),
            _ => Ok(json!({})),
        }
    }

    fn applications(&self) -> Result<Vec<Application>> {
        let all = self.service.node.view(|view| read::applications(view))?;
        Ok(all.into_iter().filter(|found| found.tenant == self.tenant).collect())
    }

    fn application(&self, name: &str) -> Result<Application> {
        let fits = |found: &Application| match guid(name) {
            Some(id) => [found.app, found.object, found.oid].contains(&id),
            None => found.display_name == name,
        };
        only("application", name, self.applications()?.into_iter().filter(fits).collect())
    }

    fn shown(&self, application: &Application) -> Result<Value> {
        let federated = self.service.node.view(|view| read::federated_credentials(view, application.app))?;
        let mut shown = render_application(application);
        shown["servicePrincipalId"] = json!(application.has_principal.then(|| application.oid.guid()));
        shown["federatedIdentityCredentials"] = federated.iter().map(render_federated).collect::<Vec<_>>().into();
        Ok(shown)
    }

    fn user(&self, name: &str) -> Result<User> {
        let found = self.service.node.view(|view| match guid(name) {
            Some(oid) => read::user(view, oid),
            None => read::user_by_name(view, name),
        })?;
        found.filter(|user| user.tenant == self.tenant).ok_or_else(|| no_such("user", name))
    }

    fn shown_user(&self, user: &User) -> Result<Value> {
        let sign_in = self.service.node.view(|view| read::sign_in(view, user.oid))?;
        Ok(render_user(user, sign_in.as_ref()))
    }

    fn groups(&self) -> Result<Vec<Group>> {
        let all = self.service.node.view(|view| read::groups(view))?;
        Ok(all.into_iter().filter(|found| found.tenant == self.tenant).collect())
    }

    fn group(&self, name: &str) -> Result<Group> {
        let fits = |found: &Group| match guid(name) {
            Some(oid) => found.oid == oid,
            None => found.display_name == name,
        };
        only("group", name, self.groups()?.into_iter().filter(fits).collect())
    }

    fn members(&self, group: &Group) -> Result<Value> {
        let users = self.service.node.view(|view| read::users(view))?;
        let users = users.iter().map(|user| (user.oid, user.upn.clone(), "user"));
        let applications = self.applications()?;
        let principals = applications.iter().map(|a| (a.oid, a.display_name.clone(), "servicePrincipal"));
        let mut members = Vec::new();
        for (oid, name, kind) in users.chain(principals) {
            if self.service.node.view(|view| read::principals(view, oid))?.contains(&group.oid) {
                members.push(json!({"id": oid.guid(), "name": name, "type": kind}));
            }
        }
        Ok(members.into())
    }

    /// The object id of a user or of an application's service principal.
    fn principal(&self, name: &str) -> Result<Id128> {
        if let Ok(user) = self.user(name) {
            return Ok(user.oid);
        }
        let application = self.application(name).map_err(|_| no_such("user or application", name))?;
        Ok(application.oid)
    }
}

/// The password that was given, or a new one, which has to be told.
fn given_or_made(password: Option<Zeroizing<String>>) -> Result<(Zeroizing<String>, bool)> {
    match password {
        Some(password) => {
            directory::new_password(&password)?;
            Ok((password, false))
        }
        None => Ok((Zeroizing::new(fresh_secret()?), true)),
    }
}
