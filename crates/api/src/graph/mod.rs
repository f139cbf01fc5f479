//! The directory: what `az` asks of Microsoft Graph, and of the Azure AD Graph before it (az-cli.md section 5).
//!
//! Only what clients of a key vault need is here: to find principals, and to make applications, users and groups.

mod federation;
mod users;

pub(crate) use federation::render as render_federated;

use crate::call::query_parameter;
use crate::directory;
use crate::domain::{Origin, Resource};
use crate::filter::{self, Condition};
use crate::http::read_body;
use crate::identity::certificate_key;
use crate::management::{add_headers, authenticate, authenticate_again, next_query, segments, settle, ArmError};
use crate::service::{fresh_id, Service};
use crate::tokens::Principal;
use actix_web::http::StatusCode;
use actix_web::{web, HttpRequest, HttpResponse};
use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use claviger_node::View;
use claviger_state_machine::records::{Application, Group, SignIn, User};
use claviger_state_machine::{read, ApplyError};
use claviger_types::command::{
    AddClientSecret, ClientCertificate, ClientSecret, Command, DeleteApplication, PutApplication, PutGroup,
    RemoveClientSecret, SetCertificates, SetMember,
};
use claviger_types::duration::{parse_rfc3339, rfc3339};
use claviger_types::name::Id128;
use claviger_types::outcome::{Outcome, Refusal};
use serde_json::{json, Value};
use sha1::{Digest, Sha1};
use std::sync::Arc;

/// Most items of a page that can be asked for, as the public cloud has it; all come at once where none are.
const TOP_MAX: usize = 999;

/// The last item that a page can begin after: a list holds at most all users, applications and groups.
const SKIP_MAX: usize = 3 * read::DIRECTORY_ROWS_MAX;

/// Largest body: an application with a certificate is a few kilobytes.
const BODY_BYTES_MAX: usize = 256 * 1024;

type Result<T> = std::result::Result<T, ArmError>;

/// One authenticated request.
struct Graph<'a> {
    service: &'a Service,
    origin: &'a Origin<'a>,
    principal: Arc<Principal>,
    dialect: Dialect,
    path: &'a str,
    query: &'a str,
    body: &'a [u8],
}

/// Which of the two interfaces is spoken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// Microsoft Graph.
    Microsoft,
    /// The Azure AD Graph of before.
    Old,
}

/// Answers a request of the directory plane.
pub(crate) async fn handle(
    request: &HttpRequest,
    payload: web::Payload,
    service: &Service,
    origin: &Origin<'_>,
) -> HttpResponse {
    let segments = segments(request.path());
    let dialect = match segments.first().map(String::as_str) {
        Some("v1.0" | "beta") => Dialect::Microsoft,
        _ => Dialect::Old,
    };
    let mut response = match answer(request, payload, service, origin, &segments, dialect).await {
        Ok((status, Some(body))) => {
            HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)).json(body)
        }
        Ok((status, None)) => {
            HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)).finish()
        }
        Err(ArmError::Said { status, code, message }) if dialect == Dialect::Old => {
            HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
                .json(json!({"odata.error": {"code": code, "message": {"lang": "en", "value": message}}}))
        }
        Err(error) => error.response(),
    };
    add_headers(request, &mut response);
    response
}

async fn answer(
    request: &HttpRequest,
    payload: web::Payload,
    service: &Service,
    origin: &Origin<'_>,
    segments: &[String],
    dialect: Dialect,
) -> Result<(u16, Option<Value>)> {
    service.node().gate().check().await?;
    let principal = authenticate(request, service, origin, Resource::Graph).await?;
    let body = read_body(payload, BODY_BYTES_MAX).await?;
    if !body.is_empty() {
        authenticate_again(request, service, origin, Resource::Graph).await?;
    }
    let (path, query) = (request.path(), request.query_string());
    let graph = Graph { service, origin, principal, dialect, path, query, body: &body };
    let given: Vec<&str> = segments.iter().skip(1).map(String::as_str).collect();
    let answer = match dialect {
        Dialect::Microsoft => graph.route(request.method().as_str(), &given).await,
        Dialect::Old => graph.route_old(request.method().as_str(), &given),
    };
    settle(request, service).await?;
    answer
}

fn bad(message: impl Into<String>) -> ArmError {
    ArmError::new(400, "Request_BadRequest", message)
}

fn missing(id: &str) -> ArmError {
    let text =
        format!("Resource '{id}' does not exist or one of its queried reference-property objects are not present.");
    ArmError::new(404, "Request_ResourceNotFound", text)
}

pub(crate) fn render_secret(secret: &ClientSecret, text: Option<&str>) -> Value {
    json!({
        "keyId": secret.id.guid(),
        "displayName": secret.display_name,
        "hint": secret.hint,
        "startDateTime": rfc3339(secret.start),
        "endDateTime": secret.end.map(rfc3339),
        "secretText": text,
        "customKeyIdentifier": null,
    })
}

pub(crate) fn render_certificate(found: &ClientCertificate) -> Value {
    let thumbprint = Sha1::digest(&found.der).iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    json!({
        "keyId": found.id.guid(),
        "displayName": found.display_name,
        "customKeyIdentifier": thumbprint,
        "type": "AsymmetricX509Cert",
        "usage": "Verify",
        "startDateTime": rfc3339(found.start),
        "endDateTime": rfc3339(found.end),
        "key": null,
    })
}

/// A certificate out of `keyCredentials`, with its key as base64 of DER, which may have line breaks.
fn certificate(entry: &Value) -> Result<ClientCertificate> {
    let wrong = || bad("Key credential is invalid: it must be an X.509 certificate with an RSA key, in base64.");
    let text: String = entry["key"].as_str().unwrap_or_default().split_whitespace().collect();
    let der = STANDARD.decode(text).map_err(|_| wrong())?;
    let (public, start, end) = certificate_key(&der).ok_or_else(wrong)?;
    let time = |name: &str| entry[name].as_str().and_then(parse_rfc3339);
    Ok(ClientCertificate {
        id: match entry["keyId"].as_str().and_then(|id| Id128::parse_guid(id).ok()) {
            Some(id) => id,
            None => fresh_id()?,
        },
        der,
        public,
        display_name: entry["displayName"].as_str().unwrap_or_default().to_owned(),
        // Never longer than the certificate itself.
        start: time("startDateTime").map_or(start, |asked| asked.max(start)),
        end: time("endDateTime").map_or(end, |asked| asked.min(end)),
    })
}

/// The certificates that a list asks for: those with a key are new, those without stay as they are.
fn certificates(list: &Value, old: &[ClientCertificate]) -> Result<Vec<ClientCertificate>> {
    let entries = list.as_array().ok_or_else(|| bad("'keyCredentials' is no list."))?;
    entries
        .iter()
        .map(|entry| {
            let id = entry["keyId"].as_str().and_then(|id| Id128::parse_guid(id).ok());
            match old.iter().find(|known| Some(known.id) == id) {
                Some(known) if entry["key"].is_null() => Ok(known.clone()),
                _ => certificate(entry),
            }
        })
        .collect()
}

pub(crate) fn render_application(found: &Application) -> Value {
    json!({
        "id": found.object.guid(),
        "appId": found.app.guid(),
        "displayName": found.display_name,
        "createdDateTime": rfc3339(found.created),
        "signInAudience": "AzureADMyOrg",
        "identifierUris": [],
        "keyCredentials": found.certificates.iter().map(render_certificate).collect::<Vec<_>>(),
        "passwordCredentials": found.secrets.iter().map(|secret| render_secret(secret, None)).collect::<Vec<_>>(),
    })
}

fn render_principal(found: &Application) -> Value {
    json!({
        "id": found.oid.guid(),
        "appId": found.app.guid(),
        "displayName": found.display_name,
        "appDisplayName": found.display_name,
        "accountEnabled": true,
        "appOwnerOrganizationId": found.tenant.guid(),
        "createdDateTime": rfc3339(found.created),
        "servicePrincipalNames": [found.app.guid()],
        "servicePrincipalType": "Application",
        "keyCredentials": [],
        "passwordCredentials": [],
    })
}

pub(crate) fn render_user(found: &User, sign_in: Option<&SignIn>) -> Value {
    json!({
        "id": found.oid.guid(),
        "userPrincipalName": found.upn,
        "displayName": found.display_name,
        "mail": found.upn,
        "mailNickname": found.upn.split('@').next(),
        "accountEnabled": sign_in.is_none_or(|sign_in| sign_in.enabled),
        "createdDateTime": sign_in.map(|sign_in| rfc3339(sign_in.created)),
    })
}

pub(crate) fn render_group(found: &Group) -> Value {
    json!({"id": found.oid.guid(), "displayName": found.display_name, "mailEnabled": false, "mailNickname": "",
           "securityEnabled": true, "groupTypes": []})
}

fn typed(mut value: Value, name: &str) -> Value {
    value["@odata.type"] = json!(format!("#microsoft.graph.{name}"));
    value
}

/// What a list of this name can be filtered by, in lower case.
fn filterable(of: &str) -> &'static [&'static str] {
    match of {
        "users" => &["id", "objectid", "displayname", "userprincipalname", "mail", "mailnickname", "accountenabled"],
        "groups" => &["id", "displayname", "mailnickname", "mailenabled", "securityenabled"],
        "applications" => &["id", "appid", "displayname", "identifieruris"],
        "servicePrincipals" => &[
            "id",
            "objectid",
            "appid",
            "displayname",
            "accountenabled",
            "serviceprincipalnames",
            "serviceprincipaltype",
        ],
        "federatedIdentityCredentials" => &["id", "name", "issuer", "subject"],
        _ => &["id", "displayname", "appid", "userprincipalname", "mail"],
    }
}

/// The conditions of a `$filter` on a list of this name.
fn conditions(text: &str, of: &str) -> Result<Vec<Condition>> {
    let bad = |what: String| {
        ArmError::new(400, "Request_UnsupportedQuery", format!("Unsupported or invalid query filter clause: {what}."))
    };
    let conditions = filter::parse(text).map_err(|rest| bad(format!("'{}' is not understood", rest.0)))?;
    let known = |condition: &&Condition| {
        let is_list = matches!(condition.name(), "identifieruris" | "serviceprincipalnames");
        let is_fitting = match condition {
            Condition::Equal { .. } | Condition::StartsWith { .. } => !is_list,
            Condition::Any { .. } => is_list,
            Condition::Call { .. } => false,
        };
        is_fitting && filterable(of).contains(&condition.name())
    };
    match conditions.iter().find(|condition| !known(condition)) {
        None => Ok(conditions),
        Some(unknown) => Err(bad(format!("'{of}' are not filtered by '{}' in this way", unknown.name()))),
    }
}

/// Whether an object, as it is rendered, is one that conditions are about.
fn fits(conditions: &[Condition], item: &Value) -> bool {
    let member = |name: &str| {
        let found = item.as_object().and_then(|o| o.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)));
        found.map(|(_, value)| value)
    };
    let text = |value: &Value| match value {
        Value::String(text) => text.to_lowercase(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    conditions.iter().all(|condition| match condition {
        Condition::Equal { property, value } => member(property).is_some_and(|m| text(m) == value.to_lowercase()),
        Condition::StartsWith { property, start } => {
            member(property).is_some_and(|m| text(m).starts_with(&start.to_lowercase()))
        }
        Condition::Any { collection, value } => {
            let all = member(collection).and_then(Value::as_array);
            all.is_some_and(|all| all.iter().any(|m| text(m) == value.to_lowercase()))
        }
        Condition::Call { .. } => false,
    })
}

/// The key in `applications(appId='...')`.
fn by_app_id<'a>(segment: &'a str, collection: &str) -> Option<&'a str> {
    let rest = segment.strip_prefix(collection)?;
    rest.strip_prefix("(appId='")?.strip_suffix("')")
}

impl Graph<'_> {
    fn view<T>(&self, query: impl FnOnce(&View<'_>) -> std::result::Result<T, ApplyError>) -> Result<T> {
        Ok(self.service.node().view(query)?)
    }

    fn applications(&self) -> Result<Vec<Application>> {
        let all = self.view(|view| read::applications(view))?;
        Ok(all.into_iter().filter(|found| found.tenant == self.principal.tenant).collect())
    }

    fn users(&self) -> Result<Vec<User>> {
        let all = self.view(|view| read::users(view))?;
        Ok(all.into_iter().filter(|found| found.tenant == self.principal.tenant).collect())
    }

    fn groups(&self) -> Result<Vec<Group>> {
        let all = self.view(|view| read::groups(view))?;
        Ok(all.into_iter().filter(|found| found.tenant == self.principal.tenant).collect())
    }

    fn application(&self, id: &str) -> Result<Application> {
        let found = self.applications()?.into_iter().find(|found| found.object.guid().eq_ignore_ascii_case(id));
        found.ok_or_else(|| missing(id))
    }

    fn service_principal(&self, id: &str) -> Result<Application> {
        let mut all = self.applications()?.into_iter();
        all.find(|found| found.has_principal && found.oid.guid().eq_ignore_ascii_case(id)).ok_or_else(|| missing(id))
    }

    fn list(&self, items: Vec<Value>, of: &str) -> Result<(u16, Option<Value>)> {
        let conditions = conditions(&query_parameter(self.query, "$filter").unwrap_or_default(), of)?;
        let items: Vec<Value> = items.into_iter().filter(|item| fits(&conditions, item)).collect();
        let context = format!("{}/v1.0/$metadata#{of}", self.origin.graph_base());
        let mut body = json!({"@odata.context": context});
        let (page, next) = self.page(items)?;
        body["value"] = Value::Array(page);
        if let Some(next) = next {
            body["@odata.nextLink"] = json!(next);
        }
        Ok((200, Some(body)))
    }

    /// `$top` items from `$skiptoken` on, and where the rest is. The old interface is asked for all.
    fn page(&self, items: Vec<Value>) -> Result<(Vec<Value>, Option<String>)> {
        let number = |name: &str, from: usize, to: usize| match query_parameter(self.query, name) {
            None => Ok(None),
            Some(text) => match text.parse::<usize>().ok().filter(|number| (from..=to).contains(number)) {
                Some(number) => Ok(Some(number)),
                None => {
                    let text = format!("Invalid value '{text}' of '{name}': it must be a number from {from} to {to}.");
                    Err(ArmError::new(400, "Request_UnsupportedQuery", text))
                }
            },
        };
        if self.dialect == Dialect::Old {
            return Ok((items, None));
        }
        let Some(top) = number("$top", 1, TOP_MAX)? else { return Ok((items, None)) };
        let skip = number("$skiptoken", 0, SKIP_MAX)?.unwrap_or(0);
        let next = (items.len() > skip + top).then(|| {
            let query = next_query(self.query, &(skip + top).to_string(), top);
            format!("{}{}?{query}", self.origin.graph_base(), self.path)
        });
        Ok((items.into_iter().skip(skip).take(top).collect(), next))
    }

    fn json(&self) -> Result<Value> {
        let parsed = serde_json::from_slice::<Value>(self.body).ok().filter(Value::is_object);
        parsed.ok_or_else(|| bad("Unable to read JSON request payload."))
    }

    async fn propose(&self, command: Command) -> Result<()> {
        match self.service.propose_and_see(self.principal.actor.clone(), &command, Vec::new()).await? {
            Outcome::Refused(Refusal::Forbidden) => Err(ArmError::new(
                403,
                "Authorization_RequestDenied",
                "Insufficient privileges to complete the operation.",
            )),
            Outcome::Refused(refusal) => Err(ArmError::of(refusal)),
            _ => Ok(()),
        }
    }

    /// The caller itself: a user, for applications have no `/me`.
    fn me(&self) -> Result<User> {
        let found = self.view(|view| read::user(view, self.principal.oid))?;
        found.filter(|user| user.tenant == self.principal.tenant).ok_or_else(|| {
            let text = "/me request is only valid with delegated authentication flow.";
            ArmError::new(400, "BadRequest", text)
        })
    }

    async fn route(&self, method: &str, given: &[&str]) -> Result<(u16, Option<Value>)> {
        let tenant = self.principal.tenant;
        match (method, given) {
            ("GET", ["me"]) => Ok((200, Some(self.shown_user(&self.me()?)?))),
            ("GET", ["me", "memberOf"]) => self.member_of(self.me()?.oid),
            ("POST", ["me", "getMemberGroups"]) => self.member_groups(self.me()?.oid),
            ("GET", ["organization"]) => {
                let tenants = self.view(|view| read::tenants(view))?;
                let own = tenants.iter().filter(|found| found.tenant == tenant);
                let item = own.map(|found| {
                    json!({"id": found.tenant.guid(), "displayName": found.display_name,
                           "verifiedDomains": [{"name": found.domain, "isDefault": true}]})
                });
                self.list(item.collect(), "organization")
            }
            ("GET", ["users"]) => {
                let items = self.users()?.iter().map(|user| self.shown_user(user)).collect::<Result<Vec<_>>>()?;
                self.list(items, "users")
            }
            ("POST", ["users"]) => self.create_user().await,
            ("GET", ["users", id]) => Ok((200, Some(self.shown_user(&self.user(id)?)?))),
            ("PATCH", ["users", id]) => self.update_user(id).await,
            ("DELETE", ["users", id]) => self.delete_user(id).await,
            ("GET", ["users", id, "memberOf"]) => self.member_of(self.user(id)?.oid),
            ("POST", ["users", id, "getMemberGroups"]) => self.member_groups(self.user(id)?.oid),
            ("GET", ["servicePrincipals"]) => {
                let all = self.applications()?;
                let items = all.iter().filter(|found| found.has_principal).map(render_principal).collect();
                self.list(items, "servicePrincipals")
            }
            ("GET", ["servicePrincipals", id]) => Ok((200, Some(render_principal(&self.service_principal(id)?)))),
            ("DELETE", ["servicePrincipals", id]) => {
                let found = self.service_principal(id)?;
                self.propose(put(&found, found.display_name.clone(), false)).await?;
                Ok((204, None))
            }
            ("POST", ["servicePrincipals"]) => {
                let body = self.json()?;
                let id = body["appId"].as_str().unwrap_or_default();
                let all = self.applications()?;
                let found = all.iter().find(|found| found.app.guid().eq_ignore_ascii_case(id));
                let found = found.ok_or_else(|| {
                    bad(format!(
                        "The appId '{id}' of the service principal does not reference a valid application object."
                    ))
                })?;
                if found.has_principal {
                    let text = "The service principal cannot be created, updated, or restored because the service \
                                principal name is already in use.";
                    return Err(ArmError::new(409, "Request_MultipleObjectsWithSameKeyValue", text));
                }
                self.propose(put(found, found.display_name.clone(), true)).await?;
                Ok((201, Some(render_principal(found))))
            }
            ("GET", ["applications"]) => {
                self.list(self.applications()?.iter().map(render_application).collect(), "applications")
            }
            ("POST", ["applications"]) => self.create_application().await,
            ("GET", ["applications", id]) => Ok((200, Some(render_application(&self.application(id)?)))),
            ("PATCH", ["applications", id]) => {
                let found = self.application(id)?;
                let body = self.json()?;
                if let Some(name) = body["displayName"].as_str() {
                    self.propose(put(&found, name.to_owned(), found.has_principal)).await?;
                }
                // Passwords that the list does not name are gone; new ones are made by `addPassword` only.
                if let Some(list) = body["passwordCredentials"].as_array() {
                    let kept = |secret: &ClientSecret| {
                        let id = secret.id.guid();
                        list.iter().any(|e| e["keyId"].as_str().is_some_and(|k| k.eq_ignore_ascii_case(&id)))
                    };
                    for secret in found.secrets.iter().filter(|secret| !kept(secret)) {
                        let remove = RemoveClientSecret { tenant, app: found.app, id: secret.id };
                        self.propose(Command::RemoveClientSecret(remove)).await?;
                    }
                }
                if !body["keyCredentials"].is_null() {
                    let certificates = certificates(&body["keyCredentials"], &found.certificates)?;
                    let set = SetCertificates { tenant, app: found.app, certificates };
                    self.propose(Command::SetCertificates(set)).await?;
                }
                Ok((204, None))
            }
            ("DELETE", ["applications", id]) => {
                let found = self.application(id)?;
                self.propose(Command::DeleteApplication(DeleteApplication { tenant, app: found.app })).await?;
                Ok((204, None))
            }
            ("POST", ["applications", id, "addPassword"]) => self.add_password(&self.application(id)?).await,
            ("POST", ["servicePrincipals", id, "addPassword"]) => self.add_password(&self.service_principal(id)?).await,
            ("POST", ["applications", id, "removePassword"]) => {
                let found = self.application(id)?;
                let id = self.json()?["keyId"].as_str().and_then(|id| Id128::parse_guid(id).ok());
                let id = id.ok_or_else(|| bad("The 'keyId' is missing or no GUID."))?;
                self.propose(Command::RemoveClientSecret(RemoveClientSecret { tenant, app: found.app, id })).await?;
                Ok((204, None))
            }
            (_, ["applications", id, "federatedIdentityCredentials", rest @ ..]) => {
                self.federation(method, &self.application(id)?, rest).await
            }
            ("POST", ["directoryObjects", "getByIds"]) => self.by_ids(),
            ("POST", ["directoryObjects", id, "checkMemberGroups"]) => {
                self.check_member_groups(Id128::parse_guid(id).map_err(|_| missing(id))?)
            }
            ("GET", ["groups"]) => self.list(self.groups()?.iter().map(render_group).collect(), "groups"),
            ("POST", ["groups"]) => {
                let name = self.json()?["displayName"].as_str().unwrap_or_default().to_owned();
                if name.is_empty() {
                    return Err(bad("A value is required for property 'displayName' of resource 'Group'."));
                }
                let group = Group { tenant, oid: fresh_id()?, display_name: name };
                let display_name = group.display_name.clone();
                self.propose(Command::PutGroup(PutGroup { tenant, oid: group.oid, display_name })).await?;
                Ok((201, Some(render_group(&group))))
            }
            ("GET", ["groups", id]) => Ok((200, Some(render_group(&self.group(id)?)))),
            ("DELETE", ["groups", id]) => self.delete_group(id).await,
            // Groups have no groups here.
            ("POST", ["groups", id, "getMemberGroups"]) => self.member_groups(self.group(id)?.oid),
            ("GET", ["groups" | "applications" | "servicePrincipals", _, "owners"]) => {
                self.list(Vec::new(), "directoryObjects")
            }
            ("GET", ["groups", id, "members"]) => {
                let group = self.group(id)?;
                let mut items = Vec::new();
                for item in self.principals()? {
                    let oid = item["id"].as_str().and_then(|id| Id128::parse_guid(id).ok());
                    if let Some(oid) = oid {
                        if self.groups_of(oid)?.contains(&group.oid.guid()) {
                            items.push(item);
                        }
                    }
                }
                self.list(items, "directoryObjects")
            }
            ("POST", ["groups", id, "members", "$ref"]) => {
                let group = self.group(id)?;
                let body = self.json()?;
                let url = body["@odata.id"].as_str().unwrap_or_default();
                let member = url.rsplit('/').next().unwrap_or_default();
                let known = self.principals()?.iter().any(|item| item["id"] == json!(member.to_ascii_lowercase()));
                let member = Id128::parse_guid(member).ok().filter(|_| known).ok_or_else(|| missing(member))?;
                let set = SetMember { tenant, group: group.oid, member, present: true };
                self.propose(Command::SetMember(set)).await?;
                Ok((204, None))
            }
            ("DELETE", ["groups", id, "members", member, "$ref"]) => {
                let group = self.group(id)?;
                let member = Id128::parse_guid(member).map_err(|_| missing(member))?;
                let set = SetMember { tenant, group: group.oid, member, present: false };
                self.propose(Command::SetMember(set)).await?;
                Ok((204, None))
            }
            ("GET", [one]) => {
                let all = self.applications()?;
                let find = |id: &str| all.iter().find(|found| found.app.guid().eq_ignore_ascii_case(id));
                if let Some(id) = by_app_id(one, "applications") {
                    return Ok((200, Some(render_application(find(id).ok_or_else(|| missing(id))?))));
                }
                if let Some(id) = by_app_id(one, "servicePrincipals") {
                    let found = find(id).filter(|found| found.has_principal);
                    return Ok((200, Some(render_principal(found.ok_or_else(|| missing(id))?))));
                }
                Err(no_segment(one))
            }
            _ => Err(no_segment(given.first().copied().unwrap_or_default())),
        }
    }

    fn group(&self, id: &str) -> Result<Group> {
        let mut all = self.groups()?.into_iter();
        all.find(|found| found.oid.guid().eq_ignore_ascii_case(id)).ok_or_else(|| missing(id))
    }

    /// Every principal, with its type.
    fn principals(&self) -> Result<Vec<Value>> {
        let applications = self.applications()?;
        let mut items: Vec<Value> = applications
            .iter()
            .filter(|found| found.has_principal)
            .map(|found| typed(render_principal(found), "servicePrincipal"))
            .collect();
        items.extend(self.users()?.iter().map(|found| typed(render_user(found, None), "user")));
        items.extend(self.groups()?.iter().map(|found| typed(render_group(found), "group")));
        Ok(items)
    }

    fn by_ids(&self) -> Result<(u16, Option<Value>)> {
        let body = self.json()?;
        let ids: Vec<String> = body["ids"]
            .as_array()
            .map(|ids| ids.iter().filter_map(Value::as_str).map(str::to_ascii_lowercase).collect())
            .unwrap_or_default();
        let types = match &body["types"] {
            Value::Null => Vec::new(),
            list => {
                let names = list.as_array().and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
                names.ok_or_else(|| bad("'types' is no list of texts."))?
            }
        };
        let is_asked = |item: &Value| {
            let name = item["@odata.type"].as_str().unwrap_or_default().trim_start_matches("#microsoft.graph.");
            let is = |asked: &&str| asked.eq_ignore_ascii_case(name) || asked.eq_ignore_ascii_case("directoryObject");
            (types.is_empty() || types.iter().any(is)) && ids.iter().any(|id| item["id"] == json!(id))
        };
        let found = self.principals()?.into_iter().filter(is_asked).collect();
        self.list(found, "directoryObjects")
    }

    async fn create_application(&self) -> Result<(u16, Option<Value>)> {
        let body = self.json()?;
        let name = body["displayName"].as_str().unwrap_or_default();
        if name.is_empty() {
            return Err(bad("A value is required for property 'displayName' of resource 'Application'."));
        }
        let certificates = match &body["keyCredentials"] {
            Value::Null => Vec::new(),
            list => certificates(list, &[])?,
        };
        let made = PutApplication {
            tenant: self.principal.tenant,
            app: fresh_id()?,
            object: fresh_id()?,
            oid: fresh_id()?,
            has_principal: false,
            display_name: name.to_owned(),
        };
        let (object, tenant, app) = (made.object.guid(), made.tenant, made.app);
        self.propose(Command::PutApplication(made)).await?;
        if !certificates.is_empty() {
            self.propose(Command::SetCertificates(SetCertificates { tenant, app, certificates })).await?;
        }
        Ok((201, Some(render_application(&self.application(&object)?))))
    }

    async fn add_password(&self, application: &Application) -> Result<(u16, Option<Value>)> {
        let body = self.json().unwrap_or_default();
        let asked = &body["passwordCredential"];
        let time = |name: &str| match asked[name].as_str() {
            Some(text) => parse_rfc3339(text).map(Some).ok_or_else(|| bad(format!("'{name}' is no date."))),
            None => Ok(None),
        };
        let now = self.service.now_ms() / 1000;
        let start = time("startDateTime")?.unwrap_or(now);
        let end = time("endDateTime")?.unwrap_or(start.saturating_add(directory::SECRET_LIFE));
        if end <= start {
            return Err(bad("'endDateTime' must be after 'startDateTime'."));
        }
        let display_name = asked["displayName"].as_str().unwrap_or_default().to_owned();
        let (secret, text) = directory::new_secret(display_name, start, Some(end)).await?;
        let shown = render_secret(&secret, Some(&text));
        let add = AddClientSecret { tenant: application.tenant, app: application.app, secret };
        self.propose(Command::AddClientSecret(add)).await?;
        Ok((200, Some(shown)))
    }

    /// Look-ups of `az` before 2.37.
    fn route_old(&self, method: &str, given: &[&str]) -> Result<(u16, Option<Value>)> {
        let old = |mut value: Value, name: &str| {
            value["objectId"] = value["id"].clone();
            value["objectType"] = json!(name);
            value["odata.type"] = json!(format!("Microsoft.DirectoryServices.{name}"));
            value
        };
        match (method, given) {
            ("GET", ["me"]) => Ok((200, Some(old(render_user(&self.me()?, None), "User")))),
            ("GET", ["users"]) => {
                self.list(self.users()?.iter().map(|u| old(render_user(u, None), "User")).collect(), "users")
            }
            ("GET", ["servicePrincipals"]) => {
                let all = self.applications()?;
                let principals = all.iter().filter(|found| found.has_principal);
                let items = principals.map(|found| old(render_principal(found), "ServicePrincipal")).collect();
                self.list(items, "servicePrincipals")
            }
            ("GET", ["servicePrincipals", id]) => {
                Ok((200, Some(old(render_principal(&self.service_principal(id)?), "ServicePrincipal"))))
            }
            _ => Err(no_segment(given.first().copied().unwrap_or_default())),
        }
    }
}

fn no_segment(name: &str) -> ArmError {
    bad(format!("Resource not found for the segment '{name}', or not there in this release of Claviger."))
}

fn put(found: &Application, display_name: String, has_principal: bool) -> Command {
    Command::PutApplication(PutApplication {
        tenant: found.tenant,
        app: found.app,
        object: found.object,
        oid: found.oid,
        has_principal,
        display_name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_find_the_right_ones_only() {
        let id = "00000000-0000-0000-0000-00000000000a";
        let item = json!({"id": id, "appId": "ab", "displayName": "R and D", "servicePrincipalNames": ["ab"],
                          "accountEnabled": true});
        let cases = [
            ("", true),
            ("servicePrincipalNames/any(c:c eq 'AB')", true),
            ("servicePrincipalNames/any(c:c eq 'x')", false),
            ("displayName eq 'r and d'", true),
            ("displayName eq 'R'", false),
            ("startswith(displayName,'R and')", true),
            ("startswith(displayName,'R and E')", false),
            ("appId eq 'ab' and displayName eq 'x'", false),
            ("id eq 00000000-0000-0000-0000-00000000000A and accountEnabled eq true", true),
            ("accountEnabled eq false", false),
        ];
        for (text, want) in cases {
            assert_eq!(fits(&conditions(text, "servicePrincipals").unwrap(), &item), want, "{text}");
        }
    }

    #[test]
    fn conditions_that_are_not_understood_are_refused() {
        let cases = [
            ("users", "unknown eq 'x'"),
            ("users", "appId eq 'x'"),
            ("users", "displayName ne 'x'"),
            ("users", "displayName eq 'x' or displayName eq 'y'"),
            ("users", "endswith(mail,'x')"),
            ("users", "displayName('x')"),
            ("applications", "identifierUris eq 'x'"),
            ("applications", "displayName/any(c:c eq 'x')"),
            ("groups", "id in ('x')"),
        ];
        for (of, text) in cases {
            let Err(ArmError::Said { status, code, .. }) = conditions(text, of) else { panic!("{text}") };
            assert_eq!((status, code), (400, "Request_UnsupportedQuery"), "{text}");
        }
    }

    #[test]
    fn keys_of_applications() {
        assert_eq!(by_app_id("applications(appId='x')", "applications"), Some("x"));
    }
}
