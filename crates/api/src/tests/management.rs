//! The resource manager and the directory, as requests that no SDK makes find them.

use crate::testing::World;
use actix_web::http::Method;
use claviger_types::name::Id128;
use serde_json::{json, Value};

const ARM: &str = "management.azure.com";
const GRAPH: &str = "graph.microsoft.com";

/// A world, and what its owner's tokens are for.
struct Desk {
    world: World,
    /// `/subscriptions/{id}`.
    subscription: String,
}

impl Desk {
    async fn new() -> Self {
        let world = World::start().await;
        let vault = world.node.view(|view| claviger_state_machine::read::vault(view, world.vault)).unwrap().unwrap();
        let subscription = format!("/subscriptions/{}", vault.subscription.guid());
        Self { world, subscription }
    }

    fn token(&self, host: &str, oid: Id128) -> String {
        let world = &self.world;
        let now = world.service.now_ms() / 1000;
        let app = if oid == world.owner { world.app.clone() } else { oid.guid() };
        let claims = json!({
            "aud": format!("https://{host}"), "iss": format!("https://sts.windows.net/{}/", world.tenant.guid()),
            "tid": world.tenant.guid(), "oid": oid.guid(), "appid": app, "idtyp": "app", "nbf": now, "exp": now + 3600,
        });
        world.service.sign_token(&claims).unwrap()
    }

    async fn send(&self, host: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let token = self.token(host, self.world.owner);
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        // As clients send them.
        let uri = path.replace(' ', "%20");
        self.world.send_raw(host, &token, method, &uri, body).await
    }

    /// A request of the owner to the resource manager.
    async fn arm(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let path = path.replace("{S}", &self.subscription);
        let joint = if path.contains('?') { '&' } else { '?' };
        self.send(ARM, method, &format!("{path}{joint}api-version=2022-07-01"), body).await
    }

    /// One that is refused: status and code.
    async fn refused(&self, method: &str, path: &str, body: Value) -> (u16, String) {
        let (status, answer) = self.arm(method, path, body).await;
        (status, answer["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    /// One that succeeds.
    async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.arm(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    async fn graph(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.send(GRAPH, method, &format!("/v1.0{path}"), body).await
    }

    /// A vault in a group of its own.
    async fn vault(&self, group: &str, name: &str, tags: Value) -> String {
        let path = format!("{{S}}/resourceGroups/{group}");
        self.ok("PUT", &path, json!({"location": "local", "tags": tags})).await;
        let path = format!("{path}/providers/Microsoft.KeyVault/vaults/{name}");
        let sku = json!({"family": "A", "name": "standard"});
        let properties = json!({"tenantId": self.world.tenant.guid(), "sku": sku, "accessPolicies": []});
        self.ok("PUT", &path, json!({"location": "local", "properties": properties, "tags": tags})).await;
        path
    }
}

/// In their order: vaults are listed by ids that are drawn.
fn names(list: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = list["value"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

#[actix_web::test]
async fn filters_are_understood_or_refused() {
    let desk = Desk::new().await;
    desk.vault("one", "vault-one", json!({"team": "red", "stage": "blue"})).await;
    desk.vault("two", "vault-two", json!({"team": "blue"})).await;
    let both = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
    let cases = [
        ("tagName eq 'team'", both(&["one", "two"])),
        ("tagName eq 'team' and tagValue eq 'blue'", both(&["two"])),
        ("tagname eq 'stage' and tagvalue eq 'blue'", both(&["one"])),
        ("startswith(tagname, 'st')", both(&["one"])),
        ("tagName eq 'none'", vec![]),
    ];
    for (filter, want) in cases {
        let groups = desk.ok("GET", &format!("{{S}}/resourcegroups?$filter={filter}"), Value::Null).await;
        assert_eq!(names(&groups), want, "{filter}");
        let vaults: Vec<String> = want.iter().map(|name| format!("vault-{name}")).collect();
        let resources = desk.ok("GET", &format!("{{S}}/resources?$filter={filter}"), Value::Null).await;
        assert_eq!(names(&resources), vaults, "{filter}");
    }
    let found = "{S}/resources?$filter=resourceType eq 'Microsoft.KeyVault/vaults' and name eq 'vault-one'";
    assert_eq!(names(&desk.ok("GET", found, Value::Null).await), ["vault-one"]);

    let roles = "/providers/Microsoft.Authorization";
    let made = json!({"properties": {"roleName": "Backup and Restore", "assignableScopes": [desk.subscription],
                                     "permissions": [{"actions": ["*/read"]}]}});
    let id = "00000000-0000-0000-0000-0000000000aa";
    desk.ok("PUT", &format!("{{S}}{roles}/roleDefinitions/{id}"), made).await;
    let list = format!("{{S}}{roles}/roleDefinitions?$filter=roleName eq");
    assert_eq!(names(&desk.ok("GET", &format!("{list} 'Backup and Restore'"), Value::Null).await), [id]);
    assert!(names(&desk.ok("GET", &format!("{list} 'Backup'"), Value::Null).await).is_empty());
    let list = format!("{{S}}{roles}/roleAssignments?$filter=");
    let owner = desk.world.owner.guid();
    for (filter, want) in [
        (format!("principalId eq '{owner}'"), true),
        (format!("principalId eq {owner} and atScope()"), true),
        (format!("atScope() and assignedTo('{owner}')"), true),
        (format!("principalId eq '{owner}' and assignedTo('{id}')"), false),
    ] {
        let found = desk.ok("GET", &format!("{list}{filter}"), Value::Null).await;
        assert_eq!(!names(&found).is_empty(), want, "{filter}");
    }

    for path in [
        "{S}/resourcegroups?$filter=tagName ne 'team'",
        "{S}/resourcegroups?$filter=name eq 'one'",
        "{S}/resources?$filter=name eq 'a' or name eq 'b'",
        "{S}/resources?$filter=substringof('a', name)",
        "{S}/resources?$filter=plan eq 'a'",
        "{S}/providers/Microsoft.Authorization/roleDefinitions?$filter=id eq 'a'",
        "{S}/providers/Microsoft.Authorization/roleDefinitions?$filter=roleName eq 'a",
        "{S}/providers/Microsoft.Authorization/roleAssignments?$filter=roleDefinitionId eq 'a'",
    ] {
        let want = (400, "InvalidFilterInQueryString".to_owned());
        assert_eq!(desk.refused("GET", path, Value::Null).await, want, "{path}");
    }

    let (_, made) = desk.graph("POST", "/groups", json!({"displayName": "R and D"})).await;
    for (filter, want) in [
        ("displayName eq 'R and D'", 1),
        ("startswith(displayName,'R and D')", 1),
        ("displayName eq 'R'", 0),
        ("displayName eq 'R and D' and mailNickname eq 'x'", 0),
    ] {
        let (status, found) = desk.graph("GET", &format!("/groups?$filter={filter}"), Value::Null).await;
        assert_eq!((status, found["value"].as_array().unwrap().len()), (200, want), "{filter}: {made}");
    }
    let (status, answer) = desk.graph("GET", "/groups?$filter=displayName ne 'x'", Value::Null).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (400, Some("Request_UnsupportedQuery")));
    desk.world.stop().await;
}

#[actix_web::test]
async fn network_rules_are_whole_or_refused() {
    let desk = Desk::new().await;
    let path = desk.vault("one", "vault-one", json!({})).await;
    let acls = |value: Value| json!({"properties": {"networkAcls": value}});
    desk.ok("PATCH", &path, acls(json!({"defaultAction": "Deny", "ipRules": [{"value": "10.0.0.0/8"}]}))).await;
    let shown = desk.ok("GET", &path, Value::Null).await;
    for bad in [
        acls(json!("Allow")),
        acls(json!([])),
        acls(json!(1)),
        acls(json!({"ipRules": "10.0.0.1"})),
        acls(json!({"virtualNetworkRules": {}})),
        json!({"properties": ["networkAcls"]}),
        json!({"properties": "networkAcls"}),
    ] {
        assert_eq!(desk.refused("PATCH", &path, bad.clone()).await, (400, "BadRequest".into()), "{bad}");
        assert_eq!(desk.ok("GET", &path, Value::Null).await, shown, "{bad}");
    }
    for (name, value) in [("tenantId", json!(5)), ("createMode", json!("other")), ("createMode", json!(1))] {
        let mut body = json!({"location": "local", "properties": {"sku": {"name": "standard"}, "accessPolicies": []}});
        body["properties"][name] = value;
        let other = path.replace("vault-one", "vault-two");
        assert_eq!(desk.refused("PUT", &other, body.clone()).await, (400, "BadRequest".into()), "{body}");
    }
    let changed = desk.ok("PATCH", &path, acls(json!({"ipRules": [{"value": "10.0.0.1"}]}))).await;
    let acls = &changed["properties"]["networkAcls"];
    assert_eq!((&acls["defaultAction"], &acls["ipRules"][0]["value"]), (&json!("Deny"), &json!("10.0.0.1")), "{acls}");
    desk.world.stop().await;
}

#[actix_web::test]
async fn roles_are_assigned_where_something_is() {
    let desk = Desk::new().await;
    let vault = desk.vault("one", "vault-one", json!({})).await;
    let roles = "providers/Microsoft.Authorization";
    let id = "00000000-0000-0000-0000-0000000000aa";
    let scopes = [&desk.subscription];
    let definition = |permissions: Value| json!({"properties": {"roleName": "Mine", "assignableScopes": scopes, "permissions": permissions}});
    let define = format!("{{S}}/{roles}/roleDefinitions/{id}");
    for (permissions, code) in [
        (json!([{"actions": ["a/b"]}, {"actions": ["*"], "notActions": ["c/d"]}]), "InvalidRoleDefinition"),
        (json!([{"actions": ["a/b"], "condition": "x"}]), "ConditionNotSupported"),
        (json!([{"actions": ["read"]}]), "InvalidActionOrNotAction"),
    ] {
        assert_eq!(desk.refused("PUT", &define, definition(permissions)).await, (400, code.into()));
    }
    let made = desk.ok("PUT", &define, definition(json!([{"actions": ["a/b"]}, {"actions": ["c/d"]}]))).await;
    assert_eq!(made["properties"]["permissions"][0]["actions"], json!(["a/b", "c/d"]));

    let assign = |scope: &str| format!("{scope}/{roles}/roleAssignments/{id}");
    let body = |description: &str| {
        json!({"properties": {"roleDefinitionId": format!("/{roles}/roleDefinitions/{id}"),
                              "principalId": desk.world.owner.guid(), "description": description}})
    };
    let nowhere = "{S}/resourceGroups/none";
    let vaults = "providers/Microsoft.KeyVault/vaults";
    for (scope, code) in [
        (nowhere.to_owned(), "ResourceGroupNotFound"),
        (format!("{nowhere}/{vaults}/vault-one"), "ResourceGroupNotFound"),
        (format!("{{S}}/resourceGroups/one/{vaults}/none"), "ResourceNotFound"),
        (format!("{{S}}/resourceGroups/one/{vaults}/none/keys/k"), "ResourceNotFound"),
    ] {
        assert_eq!(desk.refused("PUT", &assign(&scope), body("")).await, (404, code.into()), "{scope}");
    }
    for scope in ["{S}".to_owned(), "{S}/resourceGroups/one".to_owned(), vault.clone(), format!("{vault}/keys/none")] {
        desk.ok("PUT", &assign(&scope), body("one")).await;
        let again = desk.ok("PUT", &assign(&scope), body("two")).await;
        assert_eq!(again["properties"]["description"], "two", "{scope}");
        desk.ok("DELETE", &assign(&scope), Value::Null).await;
    }
    desk.world.stop().await;
}

#[actix_web::test]
async fn what_token_requests_miss_is_named() {
    let desk = Desk::new().await;
    let tenant = desk.world.tenant.guid();
    for (path, missing) in [("oauth2/token", "'resource'"), ("oauth2/v2.0/token", "'scope'")] {
        let form = format!("grant_type=client_credentials&client_id={tenant}&client_secret=x").into_bytes();
        let uri = format!("/{tenant}/{path}");
        let (status, answer) = desk.world.send_raw("login.microsoftonline.com", "", Method::POST, &uri, form).await;
        let text = answer["error_description"].as_str().unwrap();
        assert!(status == 400 && text.contains(missing) && text.starts_with("AADSTS900144"), "{path}: {text}");
    }
    desk.world.stop().await;
}

#[actix_web::test]
async fn keys_and_secrets_are_resources_to_look_at() {
    let desk = Desk::new().await;
    let (world, none) = (&desk.world, Value::Null);
    let vault = "{S}/resourceGroups/claviger/providers/Microsoft.KeyVault/vaults/demo";
    let id = vault.replace("{S}", &desk.subscription);
    let key = world.ok("POST", "keys/One/create", json!({"kty": "RSA", "tags": {"a": "b"}})).await;
    let first = key["key"]["kid"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    world
        .ok("POST", "keys/one/create", json!({"kty": "EC", "crv": "P-384", "attributes": {"exp": 4_000_000_000_u64}}))
        .await;
    for n in 0..2 {
        world.ok("PUT", &format!("secrets/s{n}"), json!({"value": "hidden", "contentType": "text"})).await;
    }

    let listed = desk.ok("GET", &format!("{vault}/keys"), none.clone()).await;
    assert_eq!(names(&listed), ["One"]);
    assert_eq!(listed["value"][0]["id"], format!("{id}/keys/One"));
    let newest = desk.ok("GET", &format!("{vault}/keys/ONE"), none.clone()).await;
    assert_eq!((&newest["name"], &newest["type"]), (&json!("One"), &json!("Microsoft.KeyVault/vaults/keys")));
    let properties = &newest["properties"];
    assert_eq!((&properties["kty"], &properties["curveName"]), (&json!("EC"), &json!("P-384")), "{newest}");
    assert_eq!(properties["keyUri"], "https://demo.vault.azure.net/keys/One");
    assert_eq!(properties["attributes"]["exp"], 4_000_000_000_u64);
    let versions = desk.ok("GET", &format!("{vault}/keys/one/versions?$top=1"), none.clone()).await;
    let next = versions["nextLink"].as_str().unwrap().strip_prefix("https://management.azure.com").unwrap();
    let (status, rest) = desk.send(ARM, "GET", next, none.clone()).await;
    assert_eq!((status, &rest["nextLink"], rest["value"].as_array().unwrap().len()), (200, &none, 1), "{rest}");
    let one = desk.ok("GET", &format!("{vault}/keys/one/Versions/{first}"), none.clone()).await;
    assert_eq!((&one["name"], &one["properties"]["keySize"]), (&json!(first), &json!(2048)), "{one}");
    assert_eq!((&one["id"], &one["tags"]["a"]), (&json!(format!("{id}/keys/One/versions/{first}")), &json!("b")));

    let page = desk.ok("GET", &format!("{vault}/secrets?$top=1"), none.clone()).await;
    assert_eq!(names(&page), ["s0"]);
    let next = page["nextLink"].as_str().unwrap().strip_prefix("https://management.azure.com").unwrap();
    assert_eq!(names(&desk.send(ARM, "GET", next, none.clone()).await.1), ["s1"]);
    let secret = desk.ok("GET", &format!("{vault}/secrets/s0"), none.clone()).await;
    assert_eq!(secret["properties"]["contentType"], "text");
    assert!(!secret.to_string().contains("hidden"), "{secret}");

    for path in ["keys/none", "keys/a_b", "keys/none/versions", "keys/one/versions/x", "secrets/one"] {
        let refused = desk.refused("GET", &format!("{vault}/{path}"), none.clone()).await;
        assert_eq!(refused, (404, "ResourceNotFound".into()), "{path}");
    }
    let refused = desk.refused("GET", &format!("{vault}/secrets/s0/versions"), none.clone()).await;
    assert_eq!(refused, (404, "InvalidResourceType".into()));
    for path in ["keys/two", "secrets/two"] {
        let refused = desk.refused("PUT", &format!("{vault}/{path}"), json!({"properties": {}})).await;
        assert_eq!(refused, (501, "NotImplemented".into()), "{path}");
    }
    let stranger = Id128([9; 16]);
    world.application(stranger).await;
    for path in ["keys", "keys/one", "keys/none", "secrets", "secrets/s0"] {
        let uri = format!("{id}/{path}?api-version=2022-07-01");
        let token = desk.token(ARM, stranger);
        let (status, answer) = world.send_raw(ARM, &token, Method::GET, &uri, vec![]).await;
        assert_eq!((status, &answer["error"]["code"]), (403, &json!("AuthorizationFailed")), "{path}");
    }
    desk.world.stop().await;
}

#[actix_web::test]
async fn the_provider_says_what_can_be_done_with_it() {
    let desk = Desk::new().await;
    let provider = desk.ok("GET", "/providers/Microsoft.KeyVault", Value::Null).await;
    assert_eq!(provider["namespace"], "Microsoft.KeyVault");
    let operations = desk.ok("GET", "/providers/Microsoft.KeyVault/operations", Value::Null).await;
    let find = |name: &str| operations["value"].as_array().unwrap().iter().find(|item| item["name"] == name).cloned();
    assert_eq!(find("Microsoft.KeyVault/vaults/write").unwrap()["isDataAction"], false);
    assert_eq!(find("Microsoft.KeyVault/vaults/keys/read").unwrap()["display"]["resource"], "Key");
    assert_eq!(find("Microsoft.KeyVault/vaults/keys/sign/action").unwrap()["isDataAction"], true);
    desk.world.stop().await;
}

#[actix_web::test]
async fn the_directory_is_listed_in_pages() {
    let desk = Desk::new().await;
    let none = Value::Null;
    let mut groups = Vec::new();
    for n in 0..3 {
        let (_, made) = desk.graph("POST", "/groups", json!({"displayName": format!("R and D {n}")})).await;
        groups.push(made["id"].clone());
    }
    let mut path = "/groups?$filter=startswith(displayName,'R and D')&$top=2".to_owned();
    let mut seen = Vec::new();
    loop {
        let (status, page) = desk.graph("GET", &path, none.clone()).await;
        let items = page["value"].as_array().unwrap();
        assert!(status == 200 && (1..=2).contains(&items.len()), "{page}");
        seen.extend(items.iter().map(|item| item["id"].clone()));
        let Some(next) = page["@odata.nextLink"].as_str() else { break };
        path = next.strip_prefix("https://graph.microsoft.com/v1.0").unwrap().to_owned();
    }
    let sorted = |mut ids: Vec<Value>| {
        ids.sort_by_key(Value::to_string);
        ids
    };
    assert_eq!(sorted(seen), sorted(groups.clone()));
    for query in ["$top=0", "$top=x", "$top=1000", "$top=1&$skiptoken=x"] {
        let (status, answer) = desk.graph("GET", &format!("/groups?{query}"), none.clone()).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("Request_UnsupportedQuery")), "{query}");
    }
    let ids = json!([groups[0], desk.world.owner.guid()]);
    for (types, want) in [
        (json!(null), 2),
        (json!([]), 2),
        (json!(["directoryObject"]), 2),
        (json!(["group"]), 1),
        (json!(["user"]), 0),
        (json!(["user", "servicePrincipal"]), 1),
    ] {
        let body = json!({"ids": ids, "types": types});
        let (status, found) = desk.graph("POST", "/directoryObjects/getByIds", body).await;
        assert_eq!((status, found["value"].as_array().unwrap().len()), (200, want), "{types}");
    }
    let (status, _) = desk.graph("POST", "/directoryObjects/getByIds", json!({"ids": ids, "types": "user"})).await;
    assert_eq!(status, 400);
    desk.world.stop().await;
}
