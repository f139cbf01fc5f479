//! Tokens of other issuers: for applications with federated credentials, and for principals of their own. Keys at an
//! address, and what happens when it does not answer, are in `tests/python/test_issuers_bad_days.py`.

use super::{fresh, jwk};
use crate::issuers::{external_object_id, KeySource, Mapping, TrustedIssuer};
use crate::service::fresh_id;
use crate::testing::World;
use crate::wire::b64;
use actix_web::http::Method;
use claviger_crypto::provider::LoadedKey;
use claviger_state_machine::read;
use claviger_types::alg::{Curve, KeySpec, SignAlg};
use claviger_types::command::{
    AddClientSecret, ClientSecret, Command, DeleteFederatedCredential, FederatedCredential, PrincipalKind,
    PutFederatedCredential, PutRoleAssignment, SetPolicies,
};
use claviger_types::name::Id128;
use claviger_types::permission::AccessPolicy;
use claviger_types::role::{Scope, OWNER};
use serde_json::{json, Value};
use sha2::{Digest, Sha256, Sha384};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ISSUER: &str = "https://issuer.test";
const OTHER: &str = "https://other.test/";
const SUBJECT: &str = "system:serviceaccount:a:b";
const EXCHANGE: &str = "api://AzureADTokenExchange";

fn first(header: &Value, claims: &Value) -> String {
    format!("{}.{}", b64(header.to_string().as_bytes()), b64(claims.to_string().as_bytes()))
}

fn sign(key: &dyn LoadedKey, alg: SignAlg, header: &Value, claims: &Value) -> String {
    let signed = first(header, claims);
    let digest = match alg.digest_bytes() {
        Some(48) => Sha384::digest(&signed).to_vec(),
        _ => Sha256::digest(&signed).to_vec(),
    };
    format!("{signed}.{}", b64(&key.sign(alg, &digest).unwrap()))
}

fn with(claims: &Value, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    claims[name] = value;
    claims
}

fn without(claims: &Value, name: &str) -> Value {
    let mut claims = claims.clone();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

/// Two trusted issuers with one key set in a file, an application that has a federated credential for the first, and a
/// secret.
struct Scene {
    world: World,
    app: Id128,
    rsa: Arc<dyn LoadedKey>,
    ec: Arc<dyn LoadedKey>,
    /// Bound to PS256 by the set.
    bound: Arc<dyn LoadedKey>,
    keys: PathBuf,
    _dir: tempfile::TempDir,
}

impl Scene {
    async fn new(change: impl FnOnce(&mut Vec<TrustedIssuer>)) -> Self {
        let (rsa, bound) = (fresh(KeySpec::Rsa { bits: 2048 }), fresh(KeySpec::Rsa { bits: 2048 }));
        let ec = fresh(KeySpec::Ec { curve: Curve::P384 });
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys.json");
        let set = json!({"keys": [
            jwk(rsa.public(), json!({"kid": "r", "use": "sig"})),
            jwk(ec.public(), json!({"kid": "e"})),
            jwk(bound.public(), json!({"kid": "b", "alg": "PS256"})),
            {"kty": "oct", "k": "AAAA", "kid": "o"},
        ]});
        std::fs::write(&keys, set.to_string()).unwrap();
        let issuer = |name: &str| TrustedIssuer {
            issuer: name.into(),
            keys: KeySource::File(keys.clone()),
            refresh: Duration::from_secs(1),
            principals: None,
        };
        let mut issuers = vec![issuer(ISSUER), issuer(OTHER)];
        change(&mut issuers);
        let world = World::start_with(|config| config.issuers = issuers).await;
        let app = fresh_id().unwrap();
        world.grant(app, 0, !0).await;
        let scene = Self { world, app, rsa, ec, bound, keys, _dir: dir };
        scene.put(scene.credential()).await;
        scene
    }

    fn credential(&self) -> FederatedCredential {
        FederatedCredential {
            id: self.app,
            name: "ci".into(),
            issuer: ISSUER.into(),
            subject: SUBJECT.into(),
            audiences: vec![EXCHANGE.into()],
            description: String::new(),
        }
    }

    async fn put(&self, credential: FederatedCredential) {
        let put = PutFederatedCredential { tenant: self.world.tenant, app: self.app, credential };
        self.world.system(Command::PutFederatedCredential(put)).await;
    }

    fn now(&self) -> u64 {
        self.world.service.now_ms() / 1000
    }

    fn claims(&self) -> Value {
        json!({"iss": ISSUER, "sub": SUBJECT, "aud": [EXCHANGE], "iat": self.now(), "exp": self.now() + 600})
    }

    fn signed(&self, claims: &Value) -> String {
        sign(&*self.rsa, SignAlg::Rs256, &json!({"alg": "RS256", "kid": "r"}), claims)
    }

    async fn ask_at(&self, tenant: &str, shown: &str) -> (u16, Value) {
        let form = format!(
            "grant_type=client_credentials&client_id={}&scope=https://vault.azure.net/.default&{shown}",
            self.app.guid()
        );
        let uri = format!("/{tenant}/oauth2/v2.0/token");
        self.world.send_raw("login.microsoftonline.com", "", Method::POST, &uri, form.into_bytes()).await
    }

    async fn ask(&self, assertion: &str) -> (u16, Value) {
        self.ask_at(&self.world.tenant.guid(), &shown(assertion)).await
    }

    /// Status and code of a refusal.
    async fn refused(&self, assertion: &str) -> (u16, u64) {
        let (status, answer) = self.ask(assertion).await;
        let code = answer["error_codes"][0].as_u64().unwrap_or_default();
        let text = answer["error_description"].as_str().unwrap_or_default();
        assert!(text.starts_with(&format!("AADSTS{code}: ")), "{answer}");
        (status, code)
    }
}

fn shown(assertion: &str) -> String {
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    format!("client_assertion_type={kind}&client_assertion={assertion}")
}

#[actix_web::test]
async fn a_token_of_another_issuer_stands_for_an_application() {
    let scene = Scene::new(|_| {}).await;
    let claims = scene.claims();
    let header = |alg: &str, kid: Value| json!({"alg": alg, "kid": kid});
    let good = [
        scene.signed(&claims),
        scene.signed(&with(&claims, "aud", json!(EXCHANGE))),
        scene.signed(&with(&claims, "exp", json!(scene.now() as f64 + 60.5))),
        // Clocks differ a little.
        scene.signed(&with(&claims, "exp", json!(scene.now() - 30))),
        scene.signed(&with(&claims, "nbf", json!(scene.now() + 30))),
        sign(&*scene.rsa, SignAlg::Ps256, &json!({"alg": "PS256"}), &claims),
        sign(&*scene.ec, SignAlg::Es384, &header("ES384", json!("e")), &claims),
        sign(&*scene.bound, SignAlg::Ps256, &header("PS256", json!("b")), &claims),
    ];
    for token in good {
        let (status, answer) = scene.ask(&token).await;
        assert_eq!(status, 200, "{answer}");
        let bearer = answer["access_token"].as_str().unwrap();
        let body = json!({"value": "v"}).to_string().into_bytes();
        assert_eq!(scene.world.send_as(bearer, "PUT", "secrets/s", body).await.0, 200);
    }
    scene.world.stop().await;
}

#[actix_web::test]
async fn assertions_that_do_not_match_are_refused_with_entras_codes() {
    let scene = Scene::new(|_| {}).await;
    let (claims, now) = (scene.claims(), scene.now());
    let stranger = fresh(KeySpec::Rsa { bits: 2048 });
    let header = json!({"alg": "RS256", "kid": "r"});
    let good = scene.signed(&claims);
    let (kept, _) = good.rsplit_once('.').unwrap();
    let by = |key: &Arc<dyn LoadedKey>, alg, header: Value| sign(&**key, alg, &header, &claims);
    let cases = [
        ("an issuer that is not trusted", scene.signed(&with(&claims, "iss", json!("https://evil.test"))), 700_211),
        ("an issuer's name with a slash", scene.signed(&with(&claims, "iss", json!("https://issuer.test/"))), 700_211),
        ("an issuer in capitals", scene.signed(&with(&claims, "iss", json!("https://ISSUER.test"))), 700_211),
        ("a trusted one without a credential", scene.signed(&with(&claims, "iss", json!(OTHER))), 700_211),
        ("another subject", scene.signed(&with(&claims, "sub", json!("system:serviceaccount:a:c"))), 700_213),
        ("no subject", scene.signed(&without(&claims, "sub")), 700_213),
        ("another audience", scene.signed(&with(&claims, "aud", json!(["api://x"]))), 700_212),
        ("no audience", scene.signed(&without(&claims, "aud")), 700_212),
        ("over", scene.signed(&with(&claims, "exp", json!(now - 61))), 700_024),
        ("not yet", scene.signed(&with(&claims, "nbf", json!(now + 120))), 700_024),
        ("without an end", scene.signed(&without(&claims, "exp")), 700_024),
        ("an end that is text", scene.signed(&with(&claims, "exp", json!("2999"))), 700_024),
        ("a beginning that is text", scene.signed(&with(&claims, "nbf", json!("0"))), 700_024),
        ("unsigned", format!("{}.", first(&json!({"alg": "none"}), &claims)), 700_027),
        ("by a secret", by(&scene.rsa, SignAlg::Rs256, json!({"alg": "HS256", "kid": "r"})), 700_027),
        ("another key", by(&stranger, SignAlg::Rs256, header.clone()), 700_027),
        ("a key that is not in the set", by(&scene.rsa, SignAlg::Rs256, json!({"alg": "RS256", "kid": "x"})), 700_027),
        ("another key's name", by(&scene.rsa, SignAlg::Rs256, json!({"alg": "RS256", "kid": "e"})), 700_027),
        (
            "what the set does not bind it to",
            by(&scene.bound, SignAlg::Rs256, json!({"alg": "RS256", "kid": "b"})),
            700_027,
        ),
        (
            "a key of its own",
            by(&stranger, SignAlg::Rs256, json!({"alg": "RS256", "jwk": jwk(stranger.public(), json!({}))})),
            700_027,
        ),
        (
            "something critical",
            by(&scene.rsa, SignAlg::Rs256, json!({"alg": "RS256", "kid": "r", "crit": ["x"]})),
            700_027,
        ),
        ("without its signature", format!("{kept}."), 700_027),
        ("cut", good[..good.len() - 10].to_owned(), 700_027),
        (
            "other claims",
            {
                let changed = first(&header, &with(&claims, "sub", json!("x")));
                format!("{changed}.{}", good.rsplit_once('.').unwrap().1)
            },
            700_027,
        ),
    ];
    for (what, token, code) in cases {
        assert_eq!(scene.refused(&token).await, (401, code), "{what}");
    }
    // Of another tenant, and after all of them the right one.
    assert_eq!(scene.ask_at(&fresh_id().unwrap().guid(), &shown(&good)).await.1["error_codes"][0], 90002);
    assert_eq!(scene.ask(&good).await.0, 200);
    // Without the credential.
    let delete = DeleteFederatedCredential { tenant: scene.world.tenant, app: scene.app, id: scene.app };
    scene.world.system(Command::DeleteFederatedCredential(delete)).await;
    assert_eq!(scene.refused(&good).await, (401, 700_211));
    scene.world.stop().await;
}

#[actix_web::test]
async fn a_key_that_its_issuer_takes_back_is_of_no_use() {
    let scene = Scene::new(|_| {}).await;
    let token = scene.signed(&scene.claims());
    assert_eq!(scene.ask(&token).await.0, 200);
    let next = fresh(KeySpec::Rsa { bits: 2048 });
    let set = json!({"keys": [jwk(next.public(), json!({"kid": "n"}))]});
    std::fs::write(&scene.keys, set.to_string()).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while scene.ask(&token).await.0 == 200 {
        assert!(Instant::now() < end, "the key is still believed");
        actix_web::rt::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(scene.refused(&token).await, (401, 700_027));
    let token = sign(&*next, SignAlg::Rs256, &json!({"alg": "RS256", "kid": "n"}), &scene.claims());
    assert_eq!(scene.ask(&token).await.0, 200);
    scene.world.stop().await;
}

#[actix_web::test]
async fn wrong_secrets_still_lock_and_assertions_do_not() {
    let scene = Scene::new(|_| {}).await;
    let secret = ClientSecret {
        id: fresh_id().unwrap(),
        hash: claviger_crypto::password::hash("right").unwrap(),
        hint: String::new(),
        display_name: String::new(),
        start: 0,
        end: None,
    };
    let add = AddClientSecret { tenant: scene.world.tenant, app: scene.app, secret };
    scene.world.system(Command::AddClientSecret(add)).await;
    let tenant = scene.world.tenant.guid();
    let wrong = scene.signed(&with(&scene.claims(), "sub", json!("x")));
    for _ in 0..25 {
        assert_eq!(scene.refused(&wrong).await.1, 700_213);
    }
    for _ in 0..20 {
        assert_eq!(scene.ask_at(&tenant, "client_secret=wrong").await.1["error_codes"][0], 7_000_215);
    }
    let locked = scene.ask_at(&tenant, "client_secret=right").await;
    assert_eq!((locked.0, &locked.1["error_codes"][0]), (400, &json!(50_053)));
    // Whoever has the lock closed does not shut out who has no secret to guess.
    assert_eq!(scene.ask(&scene.signed(&scene.claims())).await.0, 200);
    scene.world.stop().await;
}

fn mapping() -> Mapping {
    Mapping {
        audiences: vec!["api://claviger".into(), "api://second".into()],
        oid_claim: "sub".into(),
        groups_claim: Some("groups".into()),
        tenant: None,
        tenant_claim: None,
        object_ids_as_they_are: false,
    }
}

impl Scene {
    async fn secret(&self, token: &str) -> (u16, String) {
        let body = json!({"value": "v"}).to_string().into_bytes();
        let (status, answer) = self.world.send_as(token, "PUT", "secrets/s", body).await;
        (status, answer["error"]["message"].as_str().unwrap_or_default().to_owned())
    }

    async fn let_in(&self, principal: Id128) {
        let owner = AccessPolicy::everything(self.world.tenant, self.world.owner);
        let policies = vec![owner, AccessPolicy::everything(self.world.tenant, principal)];
        let vault = self.world.vault;
        self.world.system(Command::SetPolicies(SetPolicies { vault, policies, seen: None })).await;
    }
}

#[actix_web::test]
async fn principals_of_another_issuer_are_its_own() {
    let scene = Scene::new(|issuers| issuers[0].principals = Some(mapping())).await;
    let claims = with(&scene.claims(), "aud", json!("api://claviger"));
    let token = scene.signed(&claims);
    assert_eq!(scene.secret(&token).await.0, 403);
    // What another issuer calls the same is somebody else.
    scene.let_in(external_object_id(OTHER, "principal", SUBJECT)).await;
    assert_eq!(scene.secret(&token).await.0, 403);
    scene.let_in(external_object_id(ISSUER, "principal", SUBJECT)).await;
    assert_eq!(scene.secret(&token).await.0, 200);
    assert_eq!(scene.secret(&scene.signed(&with(&claims, "aud", json!(["x", "api://second"])))).await.0, 200);
    // A group, at most as many as an entry of the log holds.
    scene.let_in(external_object_id(ISSUER, "group", "ops")).await;
    assert_eq!(scene.secret(&token).await.0, 403);
    assert_eq!(scene.secret(&scene.signed(&with(&claims, "groups", json!(["dev", "ops"])))).await.0, 200);
    assert_eq!(scene.secret(&scene.signed(&with(&claims, "groups", json!("ops")))).await.0, 200);
    let many: Vec<String> = (0..201).map(|n| n.to_string()).collect();
    for (what, claims, message) in [
        ("too many groups", with(&claims, "groups", json!(many)), "AKV10006"),
        ("a group that is a number", with(&claims, "groups", json!([1])), "AKV10006"),
        ("no name", without(&claims, "sub"), "AKV10006"),
        ("an empty name", with(&claims, "sub", json!("")), "AKV10006"),
        ("another audience", with(&claims, "aud", json!("https://vault.azure.net")), "AKV10022"),
        ("no audience", without(&claims, "aud"), "AKV10022"),
        ("over", with(&claims, "exp", json!(scene.now() - 61)), "AKV1000"),
        ("without an end", without(&claims, "exp"), "AKV10006"),
        ("not yet", with(&claims, "nbf", json!(scene.now() + 120)), "AKV1000"),
        ("another issuer, with the same keys", with(&claims, "iss", json!(OTHER)), "AKV1000"),
    ] {
        let (status, text) = scene.secret(&scene.signed(&claims)).await;
        assert!(status == 401 && text.starts_with(message), "{what}: {status} {text}");
    }
    let unsigned = format!("{}.", first(&json!({"alg": "none"}), &claims));
    assert_eq!(scene.secret(&unsigned).await.0, 401);
    // The directory is for the service's own tokens; the resource manager looks at roles.
    let graph = scene.world.send_to("graph.microsoft.com", &token, "GET", "v1.0/users", vec![]).await;
    assert_eq!(graph.0, 401, "{graph:?}");
    let arm = scene.world.send_to("management.azure.com", &token, "GET", "subscriptions", vec![]).await;
    assert_eq!((arm.0, &arm.1["value"]), (200, &json!([])), "{arm:?}");
    // A role of a group that only its token names.
    let vault = scene.world.node.view(|view| read::vault(view, scene.world.vault)).unwrap().unwrap();
    let assignment_scope = Scope::subscription(vault.subscription);
    let assignment = PutRoleAssignment {
        id: fresh_id().unwrap(),
        scope: assignment_scope.clone(),
        role: Id128::parse_guid(OWNER).unwrap(),
        principal: external_object_id(ISSUER, "group", "ops"),
        principal_kind: PrincipalKind::Group,
        description: None,
    };
    scene.world.system(Command::PutRoleAssignment(assignment)).await;
    let member = scene.signed(&with(&claims, "groups", json!(["ops"])));
    let permissions = format!("{}/providers/Microsoft.Authorization/permissions", assignment_scope);
    for path in ["subscriptions", permissions.trim_start_matches('/')] {
        for (token, want) in [(&member, 1), (&token, 0)] {
            let (status, answer) = scene.world.send_to("management.azure.com", token, "GET", path, vec![]).await;
            let found = answer["value"].as_array().map_or(0, Vec::len);
            assert_eq!((status, found), (200, want), "{path}: {answer}");
        }
    }
    scene.world.stop().await;
}

#[actix_web::test]
async fn an_issuer_speaks_for_the_tenant_that_the_operator_says() {
    let scene = Scene::new(|issuers| {
        issuers[0].principals = Some(Mapping { tenant_claim: Some("tid".into()), ..mapping() });
        let tenant = Some(Id128([7; 16]));
        issuers[1].principals = Some(Mapping { tenant, ..mapping() });
    })
    .await;
    let claims = with(&scene.claims(), "aud", json!("api://claviger"));
    scene.let_in(external_object_id(ISSUER, "principal", SUBJECT)).await;
    let own = with(&claims, "tid", json!(scene.world.tenant.guid()));
    assert_eq!(scene.secret(&scene.signed(&own)).await.0, 200);
    for other in [claims.clone(), with(&claims, "tid", json!(Id128([7; 16]).guid())), with(&claims, "tid", json!("x"))]
    {
        let (status, text) = scene.secret(&scene.signed(&other)).await;
        assert!(status == 401 && text.starts_with("AKV10006"), "{status} {text}");
    }
    // The other one's tenant is not the vault's, whatever a policy says.
    scene.let_in(external_object_id(OTHER, "principal", SUBJECT)).await;
    let (status, text) = scene.secret(&scene.signed(&with(&claims, "iss", json!(OTHER)))).await;
    assert!(status == 401 && text.starts_with("AKV10032"), "{status} {text}");
    scene.world.stop().await;
}

#[actix_web::test]
async fn object_ids_may_be_taken_as_they_are() {
    let scene = Scene::new(|issuers| {
        let object_ids_as_they_are = true;
        issuers[0].principals = Some(Mapping { oid_claim: "oid".into(), object_ids_as_they_are, ..mapping() });
    })
    .await;
    let oid = fresh_id().unwrap();
    scene.let_in(oid).await;
    let claims = with(&scene.claims(), "aud", json!("api://claviger"));
    assert_eq!(scene.secret(&scene.signed(&with(&claims, "oid", json!(oid.guid())))).await.0, 200);
    assert_eq!(scene.secret(&scene.signed(&with(&claims, "oid", json!("alice")))).await.0, 401);
    assert_eq!(scene.secret(&scene.signed(&claims)).await.0, 401);
    scene.world.stop().await;
}
