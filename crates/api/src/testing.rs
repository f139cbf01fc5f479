//! The whole service in one process: a node on a directory of its own, and requests through the real handler. For the
//! tests of this crate and the fuzz targets; no release has it.

use crate::attestation::Attested;
use crate::domain::Cloud;
use crate::http::handle;
use crate::release_policy::Policy;
use crate::sealing::Sealer;
use crate::service::{fresh_id, Service, ServiceConfig};
use crate::Clock;
use actix_web::http::Method;
use actix_web::test::TestRequest;
use actix_web::{web, FromRequest};
use claviger_crypto::provider::{default_provider, CryptoProvider};
use claviger_crypto::seal::SealKey;
use claviger_node::{Node, NodeConfig, Peers, Storage};
use claviger_state_machine::read;
use claviger_types::command::{Actor, Command, PutApplication, SetPolicies, SetReads};
use claviger_types::name::{Id128, Kind, VaultName};
use claviger_types::outcome::Outcome;
use claviger_types::permission::AccessPolicy;
use claviger_types::reads::{ReadMode, ReadTiming};
use serde_json::{json, Value};
use std::sync::Arc;
use std::time::Duration;

/// The vault of every test.
pub const HOST: &str = "demo.vault.azure.net";

/// The newest version of the contract.
pub const VERSION: &str = "2026-04-01";

/// A service with a vault, and a principal that may do everything in it.
pub struct World {
    /// The service.
    pub service: web::Data<Service>,
    /// Its node.
    pub node: Node,
    /// The tenant of everybody.
    pub tenant: Id128,
    /// The vault.
    pub vault: Id128,
    /// Object id of the principal.
    pub owner: Id128,
    /// Client id of its application.
    pub app: String,
    _dir: tempfile::TempDir,
}

impl World {
    /// With the settings of `dev`.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With settings changed.
    pub async fn start_with(change: impl FnOnce(&mut ServiceConfig)) -> Self {
        Self::start_on(default_provider(), change).await
    }

    /// With a provider of one's own.
    pub async fn start_on(provider: Arc<dyn CryptoProvider>, change: impl FnOnce(&mut ServiceConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = fresh_id().unwrap();
        let config = NodeConfig {
            id: 1,
            name: "test".into(),
            advertise: "127.0.0.1:0".into(),
            world,
            heartbeat_ms: 50,
            election_min_ms: 150,
            election_max_ms: 300,
            snapshot_entries: 50_000,
            keep_entries: 10_000,
        };
        let storage = Storage::open(dir.path()).unwrap();
        let node = Node::start(config, storage, Peers::new(world, 1, "test".into(), None)).await.unwrap();
        node.initialize().await.unwrap();
        node.elect_if_alone().await.unwrap();
        node.gate().check().await.unwrap();
        let mut config = ServiceConfig {
            clouds: vec![Cloud::public()],
            region: "local".into(),
            hsm_in_software: true,
            authorities: Vec::new(),
            clock: Clock::default(),
            policies_where_rbac_is_asked: false,
            sign_in_base: None,
            issuers: Vec::new(),
            approvers: Vec::new(),
            reads: SetReads { mode: ReadMode::Lease, timing: ReadTiming::default() },
        };
        change(&mut config);
        let sealer = Sealer::new(world, SealKey::generate().unwrap());
        let service = Service::new(node.clone(), sealer, provider, config);
        let name = VaultName::parse("demo").unwrap();
        let welcome = Service::plan(std::slice::from_ref(&name)).unwrap();
        service.set_up(&welcome).await.unwrap();
        let vault = node.view(|view| read::vault_by_name(view, &name)).unwrap().unwrap().id;
        Self {
            service: web::Data::new(service),
            node,
            tenant: Id128::parse_guid(&welcome.tenant_id).unwrap(),
            vault,
            owner: Id128::parse_guid(&welcome.object_id).unwrap(),
            app: welcome.client_id.clone(),
            _dir: dir,
        }
    }

    /// A token of the built-in token service, as of now.
    pub fn token(&self, oid: Id128) -> String {
        // Applications that the tests make have one id for everything.
        let app = if oid == self.owner { self.app.clone() } else { oid.guid() };
        self.token_of(oid, &app, "app")
    }

    /// The same, of a principal that came through this application and is an application or a user.
    pub fn token_of(&self, oid: Id128, app: &str, kind: &str) -> String {
        let now = self.service.now_ms() / 1000;
        let claims = json!({
            "aud": "https://vault.azure.net",
            "iss": format!("https://sts.windows.net/{}/", self.tenant.guid()),
            "tid": self.tenant.guid(),
            "oid": oid.guid(),
            "appid": app,
            "idtyp": kind,
            "nbf": now,
            "exp": now + 3600,
        });
        self.service.sign_token(&claims).unwrap()
    }

    /// Sends bytes in the name of the owner.
    pub async fn send(&self, method: &str, path: &str, body: Vec<u8>) -> (u16, Value) {
        self.send_as(&self.token(self.owner), method, path, body).await
    }

    /// Sends bytes; answers status and body.
    pub async fn send_as(&self, token: &str, method: &str, path: &str, body: Vec<u8>) -> (u16, Value) {
        self.send_to(HOST, token, method, path, body).await
    }

    /// The same, to any host of the service.
    pub async fn send_to(&self, host: &str, token: &str, method: &str, path: &str, body: Vec<u8>) -> (u16, Value) {
        let uri = format!("/{path}?api-version={VERSION}");
        self.send_raw(host, token, Method::from_bytes(method.as_bytes()).unwrap(), &uri, body).await
    }

    /// The same, with a path and a query of one's own.
    pub async fn send_raw(&self, host: &str, token: &str, method: Method, uri: &str, body: Vec<u8>) -> (u16, Value) {
        let (request, mut payload) = TestRequest::default()
            .method(method)
            .uri(uri)
            .insert_header(("host", host))
            .insert_header(("authorization", format!("Bearer {token}")))
            .set_payload(body)
            .to_http_parts();
        let payload = web::Payload::from_request(&request, &mut payload).await.unwrap();
        let response = handle(request, payload, self.service.clone()).await;
        let status = response.status().as_u16();
        let body = actix_web::body::to_bytes(response.into_body()).await.unwrap();
        let value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        (status, value)
    }

    /// A request of the owner with a JSON body.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send(method, path, body).await
    }

    /// A request of the owner that succeeds.
    pub async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert!(status == 200 || status == 204, "{method} {path}: {status} {answer}");
        answer
    }

    /// A request of the owner that is refused: status, code, inner code, text.
    pub async fn refused(&self, method: &str, path: &str, body: Value) -> (u16, String, String, String) {
        let (status, answer) = self.call(method, path, body).await;
        assert!(status >= 400, "{method} {path}: {status} {answer}");
        let error = &answer["error"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (status, text(&error["code"]), text(&error["innererror"]["code"]), text(&error["message"]))
    }

    /// Makes an application whose principal is `oid`.
    pub async fn application(&self, oid: Id128) {
        let put = PutApplication {
            tenant: self.tenant,
            app: oid,
            object: oid,
            oid,
            has_principal: true,
            display_name: "test".into(),
        };
        self.system(Command::PutApplication(put)).await;
    }

    /// Gives `oid` exactly these permissions; the owner keeps everything.
    pub async fn grant(&self, oid: Id128, keys: u32, secrets: u32) {
        self.application(oid).await;
        let owner = AccessPolicy::everything(self.tenant, self.owner);
        let policies = vec![owner, AccessPolicy { keys, secrets, ..AccessPolicy::everything(self.tenant, oid) }];
        self.system(Command::SetPolicies(SetPolicies { vault: self.vault, policies, seen: None })).await;
    }

    /// A command of the service itself, which is not refused.
    pub async fn system(&self, command: Command) {
        let outcome = self.service.propose(Actor::System, &command, vec![]).await.unwrap();
        assert!(!matches!(outcome, Outcome::Refused(_)), "{command:?}: {outcome:?}");
    }

    /// Moves the service's clock.
    pub fn forward_days(&self, days: u64) {
        self.service.config.clock.forward(Duration::from_secs(days * 86_400));
    }

    /// A backup blob with this inside, as if the service had made it; for keys, or for secrets.
    pub fn seal_backup(&self, kind: Kind, plain: &[u8]) -> Vec<u8> {
        let vault = self.node.view(|view| read::live_vault(view, self.vault)).unwrap().unwrap();
        self.service.sealer.seal_backup(vault.subscription, kind, plain).unwrap()
    }

    /// Ends the node.
    pub async fn stop(self) {
        self.node.shutdown().await;
    }
}

/// Whether a release policy (JSON) is one, and if so, whether it lets a key go to whoever has these claims of an authority.
pub fn release_allowed(policy: &[u8], authority: &str, claims: &Value) -> Result<bool, String> {
    let attested = Attested { authority: authority.to_owned(), claims: claims.clone() };
    Ok(Policy::parse(policy)?.allows(&attested))
}
