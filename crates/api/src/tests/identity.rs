//! Who a token speaks for: a principal that is there, at the time of the request.

use crate::service::fresh_id;
use crate::testing::World;
use claviger_types::command::{
    Command, CreateUser, DeleteApplication, PrincipalRef, PutApplication, SetPolicies, UpdateUser,
};
use claviger_types::name::Id128;
use claviger_types::permission::AccessPolicy;
use serde_json::{json, Value};

/// A program that need not be registered.
const AZ: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";

impl World {
    async fn user(&self) -> Id128 {
        let oid = fresh_id().unwrap();
        let upn = format!("{}@a.test", oid.guid());
        let display_name = "A".to_owned();
        let tenant = self.tenant;
        let password = None;
        self.system(Command::CreateUser(CreateUser { tenant, oid, upn, display_name, password, enabled: true })).await;
        oid
    }

    async fn status(&self, token: &str) -> (u16, Value) {
        self.send_as(token, "PUT", "secrets/s", json!({"value": "v"}).to_string().into_bytes()).await
    }

    async fn policies(&self, policies: Vec<AccessPolicy>) {
        self.system(Command::SetPolicies(SetPolicies { vault: self.vault, policies, seen: None })).await;
    }
}

#[actix_web::test]
async fn a_token_dies_with_its_application() {
    let world = World::start().await;
    let (tenant, app) = (world.tenant, fresh_id().unwrap());
    world.grant(app, 0, !0).await;
    let token = world.token(app);
    assert_eq!(world.status(&token).await.0, 200);
    // Without its service principal, and with it again.
    let put = |has_principal| {
        let display_name = "test".to_owned();
        Command::PutApplication(PutApplication { tenant, app, object: app, oid: app, has_principal, display_name })
    };
    world.system(put(false)).await;
    let (status, answer) = world.status(&token).await;
    assert_eq!((status, &answer["error"]["code"]), (401, &json!("Unauthorized")));
    assert!(answer["error"]["message"].as_str().unwrap().starts_with("AKV10004: "), "{answer}");
    world.system(put(true)).await;
    assert_eq!(world.status(&token).await.0, 200);
    // A token that names the principal of one application and the id of another.
    assert_eq!(world.status(&world.token_of(app, &world.app, "app")).await.0, 401);
    world.system(Command::DeleteApplication(DeleteApplication { tenant, app })).await;
    assert_eq!(world.status(&token).await.0, 401);
    // The other planes look, too.
    let (status, answer) = world.send_to("management.azure.com", &token, "GET", "subscriptions", vec![]).await;
    assert_eq!((status, answer["error"]["code"].as_str().unwrap()), (401, "InvalidAuthenticationTokenAudience"));
    world.stop().await;
}

#[actix_web::test]
async fn a_token_dies_with_its_user() {
    let world = World::start().await;
    let (tenant, oid) = (world.tenant, world.user().await);
    world.policies(vec![AccessPolicy::everything(tenant, oid)]).await;
    let token = world.token_of(oid, AZ, "user");
    assert_eq!(world.status(&token).await.0, 200);
    let enable = |enabled| {
        let enabled = Some(enabled);
        Command::UpdateUser(UpdateUser { tenant, oid, display_name: None, password: None, enabled })
    };
    world.system(enable(false)).await;
    assert_eq!(world.status(&token).await.0, 401);
    world.system(enable(true)).await;
    assert_eq!(world.status(&token).await.0, 200);
    // Through an application that is not there, and by a token that is no user's.
    assert_eq!(world.status(&world.token_of(oid, &fresh_id().unwrap().guid(), "user")).await.0, 401);
    assert_eq!(world.status(&world.token_of(oid, AZ, "app")).await.0, 401);
    world.system(Command::DeleteUser(PrincipalRef { tenant, oid })).await;
    assert_eq!(world.status(&token).await.0, 401);
    world.stop().await;
}

#[actix_web::test]
async fn a_policy_may_name_user_and_application_together() {
    let world = World::start().await;
    let (tenant, oid, through, other) = (world.tenant, world.user().await, fresh_id().unwrap(), fresh_id().unwrap());
    world.application(through).await;
    world.application(other).await;
    world.policies(vec![AccessPolicy { application: Some(through), ..AccessPolicy::everything(tenant, oid) }]).await;
    assert_eq!(world.status(&world.token_of(oid, &through.guid(), "user")).await.0, 200);
    assert_eq!(world.status(&world.token_of(oid, &other.guid(), "user")).await.0, 403);
    assert_eq!(world.status(&world.token_of(oid, AZ, "user")).await.0, 403);
    // The application by itself is somebody else.
    assert_eq!(world.status(&world.token(through)).await.0, 403);
    world.stop().await;
}

/// `az login -p -77H…` is an error of az: what starts with a dash is an option to every program.
#[test]
fn no_secret_that_is_drawn_looks_like_an_option() {
    for _ in 0..1000 {
        let secret = crate::service::fresh_secret().unwrap();
        assert_eq!(secret.len(), 40);
        assert!(secret.starts_with(|first: char| first.is_ascii_alphabetic()), "{secret}");
    }
}
