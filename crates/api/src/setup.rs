//! First things: what a new world needs before a client can use it, and what operators add later.

use crate::admin::DirectoryCommand;
use crate::directory;
use crate::error::ServiceError;
use crate::service::{fresh_id, fresh_secret, Service};
use crate::tokens::TOKEN_KEY;
use claviger_crypto::jwt;
use claviger_crypto::provider::{AwsLc, CryptoProvider};
use claviger_state_machine::read;
use claviger_types::alg::KeySpec;
use claviger_types::command::{
    Actor, AddClientSecret, ClientSecret, Command, CreateVault, InitWorld, PrincipalKind, PutApplication,
    PutResourceGroup, PutRoleAssignment, PutSubscription, PutTenant, PutTokenKey, SetReads, SetVaultReads, Tags,
};
use claviger_types::name::{Id128, VaultName};
use claviger_types::outcome::{Outcome, Refusal};
use claviger_types::permission::AccessPolicy;
use claviger_types::reads::{ReadMode, ReadTiming};
use claviger_types::role::{self, Scope};
use claviger_types::vault::VaultSettings;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Days between delete and purge unless a vault says otherwise.
pub const RETENTION_DAYS: u16 = 90;

/// Resource group of vaults that `dev` and operators make.
pub(crate) const GROUP: &str = "claviger";

/// What a first client needs to know. Holds a secret: `Debug` is not derived.
#[derive(Serialize, Deserialize)]
pub struct Welcome {
    /// `AZURE_TENANT_ID`.
    pub tenant_id: String,
    /// `AZURE_SUBSCRIPTION_ID`.
    pub subscription_id: String,
    /// `AZURE_CLIENT_ID`.
    pub client_id: String,
    /// Object id of the application's service principal: what policies name.
    pub object_id: String,
    /// `AZURE_CLIENT_SECRET`.
    pub client_secret: String,
    /// Vaults that the application may do everything in.
    pub vaults: Vec<String>,
}

impl Drop for Welcome {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.client_secret);
    }
}

/// Operators' requests of the service, from the command line to a node.
/// `Debug` is not derived: passwords are in it.
#[derive(Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum AdminCommand {
    /// Makes this node the first of a new cluster, with a world, a tenant, an application and vaults.
    Init {
        /// Names of vaults.
        vaults: Vec<String>,
    },
    /// Adds a vault that an application may do everything in.
    CreateVault {
        /// Its name.
        name: String,
        /// The application, by client id.
        client_id: String,
        /// Days between delete and purge.
        retention_days: Option<u16>,
        /// Whether purge is left to the end of the retention.
        #[serde(default)]
        purge_protection: bool,
        /// Whether hardware-protected kinds are allowed.
        #[serde(default)]
        standard: bool,
    },
    /// Changes how reads are made.
    SetReads {
        /// `lease`, `read_index`, `bounded`; for a vault also `world`, which is as its world's.
        mode: String,
        /// How far behind an answer may be, in milliseconds, for `bounded`.
        bound_ms: Option<u32>,
        /// The numbers of leases; those that are not given stay.
        lease_ms: Option<u32>,
        /// See [`claviger_types::reads::ReadTiming`].
        rho_ppm: Option<u32>,
        /// See [`claviger_types::reads::ReadTiming`].
        eps_ms: Option<u32>,
        /// Only this vault.
        vault: Option<String>,
    },
    /// What an approver has to sign before this node may answer without a majority.
    EmergencyStatement {
        /// How far behind an answer may be, in milliseconds.
        bound_ms: u64,
        /// For how long.
        minutes: u64,
    },
    /// Lets this node answer without a majority.
    BeginEmergency {
        /// As it was signed.
        statement: String,
        /// RS256, in base64.
        signature: String,
    },
    /// Ends that.
    EndEmergency,
    /// Adds a tenant with a subscription, and an application that owns it.
    CreateTenant {
        /// For people.
        display_name: String,
        /// By which sign-ins may name it, beside its id.
        domain: String,
    },
    /// Shows all tenants with their subscriptions.
    ListTenants,
    /// Adds an application with a secret to the first tenant.
    CreateApplication {
        /// For people.
        display_name: String,
    },
    /// Anything else about principals.
    Directory(DirectoryCommand),
}

/// Ids that are drawn for a tenant until one is behind the first's: two or three.
const DRAWS_MAX: usize = 100_000;

/// An id behind `first`: tenants are kept in the order of their ids, and the first one has to stay the first.
fn drawn_behind(first: Id128, mut draw: impl FnMut() -> Result<Id128, ServiceError>) -> Result<Id128, ServiceError> {
    for _ in 0..DRAWS_MAX {
        let id = draw()?;
        if id > first {
            return Ok(id);
        }
    }
    Err(ServiceError::Internal)
}

impl Service {
    async fn system(&self, command: Command, blobs: Vec<Vec<u8>>) -> Result<(), ServiceError> {
        match self.propose(Actor::System, &command, blobs).await? {
            Outcome::Refused(Refusal::VaultExists) => {
                Err(ServiceError::BadParameter("a vault of this name exists already".into()))
            }
            Outcome::Refused(refusal) => {
                Err(ServiceError::BadParameter(format!("{} was refused: {refusal:?}", command.name())))
            }
            _ => Ok(()),
        }
    }

    /// Whether the world exists.
    pub fn is_set_up(&self) -> Result<bool, ServiceError> {
        Ok(self.node.view(|view| read::world(view))?.is_some())
    }

    /// Draws the ids and the secret of the first tenant, subscription and application. Nothing is changed yet: whoever keeps
    /// the plan can carry it out again after a crash.
    pub fn plan(vaults: &[VaultName]) -> Result<Welcome, ServiceError> {
        Ok(Welcome {
            tenant_id: fresh_id()?.guid(),
            subscription_id: fresh_id()?.guid(),
            client_id: fresh_id()?.guid(),
            object_id: fresh_id()?.guid(),
            client_secret: fresh_secret()?,
            vaults: vaults.iter().map(VaultName::to_string).collect(),
        })
    }

    /// Makes the world's first contents as planned. May be repeated: what is there already stays.
    pub async fn set_up(&self, plan: &Welcome) -> Result<(), ServiceError> {
        let id = |text: &str| Id128::parse_guid(text).map_err(|_| ServiceError::Internal);
        let (tenant, subscription) = (id(&plan.tenant_id)?, id(&plan.subscription_id)?);
        let (app, oid) = (id(&plan.client_id)?, id(&plan.object_id)?);
        if !self.is_set_up()? {
            let world = InitWorld { world: self.sealer.world(), region: self.config.region.clone() };
            self.system(Command::InitWorld(world), Vec::new()).await?;
            self.system(Command::SetReads(self.config.reads), Vec::new()).await?;
        }
        if self.node.view(|view| read::token_keys(view))?.is_empty() {
            self.add_token_key().await?;
        }
        let put = PutTenant { tenant, domain: "claviger.onmicrosoft.com".into(), display_name: "Claviger".into() };
        self.system(Command::PutTenant(put), Vec::new()).await?;
        let put = PutSubscription { subscription, tenant, display_name: "Claviger".into() };
        self.system(Command::PutSubscription(put), Vec::new()).await?;
        self.put_application(tenant, app, oid, "claviger-first-app", &plan.client_secret).await?;
        self.make_owner(subscription, oid).await?;
        self.put_group(subscription).await?;
        for name in &plan.vaults {
            let name = VaultName::parse(name).map_err(|_| ServiceError::Internal)?;
            if self.node.view(|view| read::vault_by_name(view, &name))?.is_none() {
                self.add_vault(&name, tenant, subscription, oid, RETENTION_DAYS, false, true).await?;
            }
        }
        Ok(())
    }

    /// The resource group of vaults that are made without one.
    async fn put_group(&self, subscription: Id128) -> Result<(), ServiceError> {
        let put = PutResourceGroup {
            subscription,
            name: GROUP.into(),
            location: self.config.region.clone(),
            tags: Tags::new(),
        };
        self.system(Command::PutResourceGroup(put), Vec::new()).await
    }

    /// Makes a principal owner of a subscription.
    async fn make_owner(&self, subscription: Id128, principal: Id128) -> Result<(), ServiceError> {
        let put = PutRoleAssignment {
            // The same one when it is repeated.
            id: principal,
            scope: Scope::subscription(subscription),
            role: Id128::parse_guid(role::OWNER).map_err(|_| ServiceError::Internal)?,
            principal,
            principal_kind: PrincipalKind::ServicePrincipal,
            description: None,
        };
        self.system(Command::PutRoleAssignment(put), Vec::new()).await
    }

    async fn add_token_key(&self) -> Result<(), ServiceError> {
        let made = tokio::task::spawn_blocking(|| AwsLc.generate(KeySpec::Rsa { bits: 2048 }))
            .await
            .map_err(|_| ServiceError::Internal)??;
        let kid = jwt::kid_of(&made.public);
        let sealed = self.sealer.seal_own(TOKEN_KEY, &kid, made.private.expose())?;
        self.system(Command::PutTokenKey(PutTokenKey { kid, public: made.public }), vec![sealed]).await
    }

    /// A tenant of its own: nobody of another one sees anything of it. What it is given owns its subscription.
    async fn add_tenant(&self, display_name: &str, domain: &str) -> Result<Welcome, ServiceError> {
        let bad = ServiceError::BadParameter;
        let display_name = directory::display_name(display_name).map_err(bad)?;
        let domain = directory::domain(domain).map_err(bad)?;
        let first = self.node.view(|view| read::tenants(view))?.first().map(|first| first.tenant);
        let first = first.ok_or_else(|| bad("the world is not set up yet".into()))?;
        let mut made = Self::plan(&[])?;
        let id = |text: &str| Id128::parse_guid(text).map_err(|_| ServiceError::Internal);
        let (subscription, app, oid) = (id(&made.subscription_id)?, id(&made.client_id)?, id(&made.object_id)?);
        let tenant = drawn_behind(first, || Ok(fresh_id()?))?;
        made.tenant_id = tenant.guid();
        let application = format!("{display_name} first app");
        let put = PutTenant { tenant, domain: domain.clone(), display_name: display_name.clone() };
        match self.propose(Actor::System, &Command::PutTenant(put), Vec::new()).await? {
            Outcome::Refused(Refusal::PrincipalExists) => {
                return Err(bad(format!("a tenant with the domain `{domain}` exists already")));
            }
            Outcome::Refused(Refusal::TooMany) => return Err(bad("there are as many tenants as there may be".into())),
            _ => {}
        }
        let put = PutSubscription { subscription, tenant, display_name };
        self.system(Command::PutSubscription(put), Vec::new()).await?;
        self.put_application(tenant, app, oid, &application, &made.client_secret).await?;
        self.make_owner(subscription, oid).await?;
        self.put_group(subscription).await?;
        Ok(made)
    }

    fn list_tenants(&self) -> Result<serde_json::Value, ServiceError> {
        let (tenants, subscriptions) = self.node.view(|view| {
            Ok::<_, claviger_state_machine::ApplyError>((read::tenants(view)?, read::subscriptions(view)?))
        })?;
        let tenant = |tenant: &claviger_state_machine::records::Tenant| {
            let own = subscriptions.iter().filter(|subscription| subscription.tenant == tenant.tenant);
            serde_json::json!({
                "tenantId": tenant.tenant.guid(),
                "displayName": tenant.display_name,
                "defaultDomain": tenant.domain,
                "subscriptions": own.map(|own| own.subscription.guid()).collect::<Vec<_>>(),
            })
        };
        Ok(tenants.iter().map(tenant).collect())
    }

    async fn add_application(&self, tenant: Id128, display_name: &str) -> Result<Welcome, ServiceError> {
        let mut made = Self::plan(&[])?;
        made.tenant_id = tenant.guid();
        made.subscription_id = String::new();
        let id = |text: &str| Id128::parse_guid(text).map_err(|_| ServiceError::Internal);
        let (app, oid) = (id(&made.client_id)?, id(&made.object_id)?);
        self.put_application(tenant, app, oid, display_name, &made.client_secret).await?;
        Ok(made)
    }

    async fn put_application(
        &self,
        tenant: Id128,
        app: Id128,
        oid: Id128,
        display_name: &str,
        secret: &str,
    ) -> Result<(), ServiceError> {
        let hash = directory::hash(secret).await?;
        let display_name = display_name.to_owned();
        let put = PutApplication { tenant, app, object: fresh_id()?, oid, has_principal: true, display_name };
        self.system(Command::PutApplication(put), Vec::new()).await?;
        let known = self.node.view(|view| read::application(view, app))?;
        if known.is_some_and(|known| !known.secrets.is_empty()) {
            return Ok(());
        }
        let secret = ClientSecret {
            id: fresh_id()?,
            hash,
            hint: secret.chars().take(3).collect(),
            display_name: "first".into(),
            start: self.now_ms() / 1_000,
            end: None,
        };
        self.system(Command::AddClientSecret(AddClientSecret { tenant, app, secret }), Vec::new()).await
    }

    #[expect(clippy::too_many_arguments, reason = "the settings of a vault, each named where it is called")]
    async fn add_vault(
        &self,
        name: &VaultName,
        tenant: Id128,
        subscription: Id128,
        oid: Id128,
        retention_days: u16,
        purge_protection: bool,
        premium: bool,
    ) -> Result<(), ServiceError> {
        let id = fresh_id()?;
        let wrapped = self.sealer.new_vault_key(id)?;
        if self.node.view(|view| read::resource_group(view, subscription, GROUP))?.is_none() {
            self.put_group(subscription).await?;
        }
        let command = Command::CreateVault(CreateVault {
            id,
            name: name.clone(),
            display_name: name.to_string(),
            tenant,
            subscription,
            group: GROUP.into(),
            location: self.config.region.clone(),
            retention_days,
            purge_protection,
            settings: VaultSettings { premium, ..VaultSettings::default() },
            policies: vec![AccessPolicy::everything(tenant, oid)],
        });
        self.system(command, vec![wrapped]).await
    }

    /// Adds vaults that `client_id` may do everything in; names that exist are left as they are.
    pub async fn ensure_vaults(&self, names: &[VaultName], client_id: &str) -> Result<(), ServiceError> {
        for name in names {
            if self.node.view(|view| read::vault_by_name(view, name))?.is_none() {
                self.create_vault(name.as_str(), client_id, None, false, true).await?;
            }
        }
        Ok(())
    }

    async fn create_vault(
        &self,
        name: &str,
        client_id: &str,
        retention_days: Option<u16>,
        purge_protection: bool,
        premium: bool,
    ) -> Result<(), ServiceError> {
        let bad = |text: &str| ServiceError::BadParameter(text.to_owned());
        let name = VaultName::parse(name).map_err(|_| {
            bad("a vault's name has 3 to 24 letters, digits and dashes, begins with a letter, and has no two dashes together")
        })?;
        let days = retention_days.unwrap_or(RETENTION_DAYS);
        if !(7..=90).contains(&days) {
            return Err(bad("the retention is 7 to 90 days"));
        }
        let app = Id128::parse_guid(client_id).map_err(|_| bad("the client id is not a GUID"))?;
        let (app, subscriptions) = self.node.view(|view| {
            let app = read::application(view, app)?;
            Ok::<_, claviger_state_machine::ApplyError>((app, read::subscriptions(view)?))
        })?;
        let app = app.ok_or_else(|| bad("no application has this client id"))?;
        let subscription = subscriptions.iter().find(|subscription| subscription.tenant == app.tenant);
        let subscription =
            subscription.ok_or_else(|| bad("the application's tenant has no subscription"))?.subscription;
        self.add_vault(&name, app.tenant, subscription, app.oid, days, purge_protection, premium).await
    }

    /// Carries out an operator's request that came in over the peer port; request and answer are JSON.
    pub async fn admin(self: &Arc<Self>, request: &[u8]) -> Result<Vec<u8>, String> {
        let command: AdminCommand = serde_json::from_slice(request).map_err(|e| format!("malformed request: {e}"))?;
        let say = |error: ServiceError| error.to_wire().1.error.message;
        let answer = match command {
            AdminCommand::Init { vaults } => {
                let vaults: Result<Vec<_>, _> = vaults.iter().map(|name| VaultName::parse(name)).collect();
                let vaults = vaults.map_err(|_| "a vault's name breaks the rules".to_owned())?;
                if self.node.is_initialized().await.map_err(|e| e.to_string())? {
                    // An init that was cut off before it gave anybody credentials may be finished.
                    self.node.gate().check().await.map_err(|e| e.to_string())?;
                    if self.node.view(|view| read::has_applications(view)).map_err(|e| e.to_string())? {
                        return Err("this node belongs to a cluster already".into());
                    }
                } else {
                    self.node.initialize().await.map_err(|e| e.to_string())?;
                    self.node.elect_if_alone().await.map_err(|e| e.to_string())?;
                }
                let plan = Self::plan(&vaults).map_err(say)?;
                self.set_up(&plan).await.map_err(say)?;
                serde_json::to_vec(&plan)
            }
            AdminCommand::CreateVault { name, client_id, retention_days, purge_protection, standard } => {
                self.node.gate().check().await.map_err(|e| e.to_string())?;
                let made = self.create_vault(&name, &client_id, retention_days, purge_protection, !standard).await;
                made.map_err(say)?;
                serde_json::to_vec(&serde_json::json!({ "vault": name }))
            }
            AdminCommand::SetReads { mode, bound_ms, lease_ms, rho_ppm, eps_ms, vault } => {
                self.node.gate().check().await.map_err(|e| e.to_string())?;
                let known = self.node.view(|view| read::reads(view)).map_err(|e| e.to_string())?;
                let old = known.map(|reads| reads.timing).unwrap_or_default();
                let timing = ReadTiming {
                    lease_ms: lease_ms.unwrap_or(old.lease_ms),
                    rho_ppm: rho_ppm.unwrap_or(old.rho_ppm),
                    eps_ms: eps_ms.unwrap_or(old.eps_ms),
                };
                let parsed = match (mode.as_str(), &vault) {
                    ("world", Some(_)) => None,
                    (mode, _) => Some(ReadMode::parse(mode, bound_ms)?),
                };
                let command = match (vault, parsed) {
                    (Some(name), mode) => {
                        let name = VaultName::parse(&name).map_err(|_| "a vault's name breaks the rules".to_owned())?;
                        let found =
                            self.node.view(|view| read::vault_by_name(view, &name)).map_err(|e| e.to_string())?;
                        let vault = found.ok_or("no vault has this name")?.id;
                        Command::SetVaultReads(SetVaultReads { vault, mode })
                    }
                    (None, Some(mode)) => {
                        timing.check()?;
                        Command::SetReads(SetReads { mode, timing })
                    }
                    (None, None) => return Err("`world` is for a vault".into()),
                };
                match self.propose(Actor::System, &command, Vec::new()).await.map_err(say)? {
                    Outcome::Refused(Refusal::BadReads) => {
                        return Err(
                            "a vault's mode must be stricter than its world's, and the world's must be set".into()
                        )
                    }
                    Outcome::Refused(refusal) => return Err(format!("refused: {refusal:?}")),
                    _ => serde_json::to_vec(&serde_json::json!({ "mode": mode })),
                }
            }
            AdminCommand::EmergencyStatement { bound_ms, minutes } => serde_json::to_vec(&serde_json::json!({
                "statement": self.emergency_statement(bound_ms, minutes)?
            })),
            AdminCommand::BeginEmergency { statement, signature } => {
                serde_json::to_vec(&serde_json::json!({ "until": self.begin_emergency(&statement, &signature)? }))
            }
            AdminCommand::EndEmergency => {
                self.node.set_emergency(None);
                serde_json::to_vec(&serde_json::json!({}))
            }
            AdminCommand::CreateTenant { display_name, domain } => {
                self.node.gate().check().await.map_err(|e| e.to_string())?;
                serde_json::to_vec(&self.add_tenant(&display_name, &domain).await.map_err(say)?)
            }
            AdminCommand::ListTenants => {
                self.node.gate().check().await.map_err(|e| e.to_string())?;
                serde_json::to_vec(&self.list_tenants().map_err(say)?)
            }
            AdminCommand::CreateApplication { display_name } => {
                self.node.gate().check().await.map_err(|e| e.to_string())?;
                let tenants = self.node.view(|view| read::tenants(view)).map_err(|e| e.to_string())?;
                let tenant = tenants.first().ok_or("the world is not set up yet")?.tenant;
                serde_json::to_vec(&self.add_application(tenant, &display_name).await.map_err(say)?)
            }
            AdminCommand::Directory(command) => {
                self.node.gate().check().await.map_err(|e| e.to_string())?;
                serde_json::to_vec(&self.directory(command).await?)
            }
        };
        answer.map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_never_before_the_first() {
        let id = |byte| Id128([byte; 16]);
        let mut drawn = [id(1), id(5), id(7), id(9)].into_iter();
        assert_eq!(drawn_behind(id(5), || Ok(drawn.next().unwrap())).unwrap(), id(7));
        assert!(drawn_behind(id(5), || Ok(id(5))).is_err());
    }
}
