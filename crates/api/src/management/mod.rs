//! The resource manager: what `az` and the management SDKs ask before and around the data plane (contract section 16,
//! az-cli.md).
//!
//! Every operation is finished within its request; what clients know as a long-running operation is answered as one whose
//! first poll finds it done. Each is authorized at the edge, for the error text, and once more when its command is applied.

mod error;
mod groups;
mod objects;
mod operations;
mod properties;
mod roles;
mod subscriptions;
mod vaults;

pub(crate) use error::ArmError;

use crate::call::query_parameter;
use crate::domain::{Origin, Resource};
use crate::error::{ServiceError, TokenFault};
use crate::filter::{self, Condition};
use crate::http::read_body;
use crate::service::Service;
use crate::tokens::Principal;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::StatusCode;
use actix_web::{web, HttpRequest, HttpResponse};
use claviger_node::View;
use claviger_state_machine::records::Subscription;
use claviger_state_machine::{allowed_in, read, ApplyError};
use claviger_types::command::{Command, Tags};
use claviger_types::name::Id128;
use claviger_types::outcome::{Outcome, Refusal};
use claviger_types::role::Scope;
use serde_json::{json, Value};
use std::sync::Arc;

/// Largest body: a vault with 1024 access policies of every permission takes 2 MB.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most tags of a resource, and the sizes of their names and values, as the public cloud has them.
const TAGS_MAX: usize = 50;
const TAG_NAME_MAX: usize = 512;
const TAG_VALUE_MAX: usize = 256;

/// One authenticated request.
pub(crate) struct Arm<'a> {
    pub(crate) service: &'a Service,
    pub(crate) origin: &'a Origin<'a>,
    pub(crate) principal: Arc<Principal>,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) body: &'a [u8],
    /// `api-version`.
    pub(crate) version: String,
}

/// A status, JSON, and the place where a poller looks.
pub(crate) struct Answer {
    status: u16,
    body: Option<Value>,
    location: Option<String>,
}

impl Answer {
    pub(crate) fn ok(body: Value) -> Self {
        Self::with(200, body)
    }

    pub(crate) fn with(status: u16, body: Value) -> Self {
        Self { status, body: Some(body), location: None }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, body: None, location: None }
    }

    /// Accepted, and done when the poller looks.
    pub(crate) fn accepted(location: String) -> Self {
        Self { status: 202, body: None, location: Some(location) }
    }

    /// A list in one page.
    pub(crate) fn list(items: Vec<Value>) -> Self {
        Self::ok(json!({"value": items, "nextLink": null}))
    }

    pub(crate) fn response(self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut builder = HttpResponse::build(status);
        if let Some(location) = self.location {
            builder.insert_header(("location", location)).insert_header(("retry-after", "1"));
        }
        match self.body {
            Some(body) => builder.json(body),
            None => builder.finish(),
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, ArmError>;

/// Answers a request of the management plane.
pub(crate) async fn handle(
    request: &HttpRequest,
    payload: web::Payload,
    service: &Service,
    origin: &Origin<'_>,
) -> HttpResponse {
    let mut response = match answer(request, payload, service, origin).await {
        Ok(answer) => answer.response(),
        Err(error) => error.response(),
    };
    add_headers(request, &mut response);
    response
}

/// The headers of every answer: ids that clients log, and no caching.
pub(crate) fn add_headers(request: &HttpRequest, response: &mut HttpResponse) {
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("cache-control", "no-cache");
    set("strict-transport-security", "max-age=31536000;includeSubDomains");
    set("x-content-type-options", "nosniff");
    if let Ok(id) = crate::service::fresh_id() {
        set("x-ms-request-id", &id.guid());
        set("x-ms-correlation-request-id", &id.guid());
    }
    if let Some(id) = request.headers().get("x-ms-client-request-id").and_then(|id| id.to_str().ok()) {
        set("x-ms-client-request-id", id);
    }
}

/// The decoded segments of a path, without empty ones.
pub(crate) fn segments(path: &str) -> Vec<String> {
    let decoded = |segment: &str| percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned();
    path.split('/').filter(|segment| !segment.is_empty()).map(decoded).collect()
}

async fn answer(
    request: &HttpRequest,
    payload: web::Payload,
    service: &Service,
    origin: &Origin<'_>,
) -> Result<Answer> {
    let segments = segments(request.path());
    let folded: Vec<String> = segments.iter().map(|segment| segment.to_ascii_lowercase()).collect();
    let folded: Vec<&str> = folded.iter().map(String::as_str).collect();
    let query = request.query_string();
    let version = query_parameter(query, "api-version").filter(|version| !version.is_empty());
    if folded == ["metadata", "endpoints"] {
        return Ok(subscriptions::metadata(origin, version.as_deref().unwrap_or_default()));
    }
    // What the token says depends on keys and principals that another node may just have changed.
    service.node().gate().check().await?;
    let principal = authenticate(request, service, origin, Resource::Management).await?;
    let version = version.ok_or_else(|| {
        let text = "The api-version query parameter (?api-version=) is required for all requests.";
        ArmError::new(400, "MissingApiVersionParameter", text)
    })?;
    let body = read_body(payload, BODY_BYTES_MAX).await?;
    if !body.is_empty() {
        authenticate_again(request, service, origin, Resource::Management).await?;
    }
    let arm = Arm { service, origin, principal, path: request.path(), query, body: &body, version };
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let answer = arm.route(request.method().as_str(), &segments, &folded).await;
    settle(request, service).await?;
    answer
}

/// Looks at the principal again once its body has arrived, which may take a while: by then it may be gone.
pub(crate) async fn authenticate_again(
    request: &HttpRequest,
    service: &Service,
    origin: &Origin<'_>,
    plane: Resource,
) -> Result<()> {
    service.node().gate().check().await?;
    authenticate(request, service, origin, plane).await.map(|_| ())
}

/// Nothing is shown that another node could still miss. What was to change something may have done so.
pub(crate) async fn settle(request: &HttpRequest, service: &Service) -> Result<()> {
    let settled = service.node().gate().settle().await;
    let looks = request.method().is_safe();
    settled.map_err(|error| if looks { error.into() } else { ServiceError::OutcomeUnknown.into() })
}

/// The principal of a request, whose token must be for this plane and from its own tenant's issuer.
pub(crate) async fn authenticate(
    request: &HttpRequest,
    service: &Service,
    origin: &Origin<'_>,
    plane: Resource,
) -> Result<Arc<Principal>> {
    let tenant = service.node().view(|view| read::tenants(view))?;
    let tenant = tenant.first().map_or_else(|| "common".to_owned(), |tenant| tenant.tenant.guid());
    let token_error = |code: &'static str, message: String| {
        // Parts of it are the token's.
        let description: String = message.chars().filter(|c| matches!(c, ' '..='~') && *c != '"').collect();
        let challenge = format!(
            "Bearer authorization_uri=\"{}/{tenant}\", error=\"invalid_token\", error_description=\"{description}\"",
            origin.login_base()
        );
        ArmError::Token { code, message, challenge }
    };
    let header = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let token = header
        .and_then(|header| header.split_once(' '))
        .filter(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty());
    let Some((_, token)) = token else {
        let text = "Authentication failed. The 'Authorization' header is missing.".to_owned();
        return Err(token_error("AuthenticationFailed", text));
    };
    let principal = service.principal(token.trim(), service.now_ms() / 1000).await.map_err(|fault| match fault {
        TokenFault::Expired => token_error("ExpiredAuthenticationToken", "The access token has expired.".into()),
        TokenFault::KeysUnavailable => ServiceError::Token(fault).into(),
        TokenFault::Claim(_) | TokenFault::Audience { .. } => {
            token_error("InvalidAuthenticationToken", ServiceError::Token(fault).to_wire().1.error.message)
        }
        _ => token_error("InvalidAuthenticationToken", "The access token is invalid.".into()),
    })?;
    // What another issuer's tokens are for was compared with what the operator says.
    if principal.is_external() && plane == Resource::Management {
        return Ok(principal);
    }
    if origin.resource(&principal.audience) != Some(plane) {
        let expected = match plane {
            Resource::Graph => origin.graph_base(),
            _ => format!("{}/", origin.management_base()),
        };
        let text = format!(
            "The access token has been obtained for wrong audience or resource '{}'. It should exactly match with one \
             of the allowed audiences '{expected}'.",
            principal.audience
        );
        return Err(token_error("InvalidAuthenticationTokenAudience", text));
    }
    let expected = origin.issuer(&principal.tenant.guid());
    if principal.issuer != expected {
        let text = format!(
            "The access token is from the wrong issuer '{}'. It must match the tenant '{expected}' associated with this \
             subscription.",
            principal.issuer
        );
        return Err(token_error("InvalidAuthenticationTokenTenant", text));
    }
    if !service.node().view(|view| principal.is_alive(view))? {
        let text = "The user or application that the access token was issued for does not exist or is disabled.";
        return Err(token_error("InvalidAuthenticationToken", text.to_owned()));
    }
    Ok(principal)
}

impl<'a> Arm<'a> {
    async fn route(&self, method: &str, given: &[&str], folded: &[&str]) -> Result<Answer> {
        // Authorization hangs below any scope.
        let authorization = folded.windows(2).rposition(|pair| pair == ["providers", "microsoft.authorization"]);
        if let Some(at) = authorization {
            let scope = given.get(..at).unwrap_or_default();
            return self.authorization(method, scope, folded.get(at + 2..).unwrap_or_default()).await;
        }
        match (method, folded) {
            ("GET", ["tenants"]) => self.tenants(),
            ("GET", ["subscriptions"]) => self.subscriptions(),
            ("GET", ["providers"]) => {
                Ok(Answer::list(vec![subscriptions::provider(None, &self.service.config.region)]))
            }
            ("GET", ["providers", "microsoft.keyvault"]) => {
                Ok(Answer::ok(subscriptions::provider(None, &self.service.config.region)))
            }
            ("GET", ["providers", "microsoft.keyvault", "operations"]) => Ok(Answer::list(operations::all())),
            (_, ["subscriptions", id, rest @ ..]) => {
                let subscription = self.subscription(id)?;
                let given = given.get(2..).unwrap_or_default();
                match rest {
                    []
                    | ["locations" | "providers" | "resources"]
                    | ["providers" | "operationresults", _]
                    | ["providers", _, "register" | "unregister"] => self.in_subscription(method, &subscription, rest),
                    ["resourcegroups", ..] if !rest.contains(&"providers") => {
                        self.groups(method, &subscription, given, rest).await
                    }
                    ["providers", "microsoft.keyvault", ..]
                    | ["resourcegroups", _, "providers", "microsoft.keyvault", ..] => {
                        self.key_vault(method, &subscription, given, rest).await
                    }
                    _ => self.of_other_provider(method, &subscription, rest),
                }
            }
            _ => Err(self.no_route(method)),
        }
    }

    /// A subscription of the caller's tenant.
    fn subscription(&self, id: &str) -> Result<Subscription> {
        let found = Id128::parse_guid(id).ok();
        let found = match found {
            Some(id) => self.view(|view| read::subscription(view, id))?,
            None => None,
        };
        let found = found.ok_or_else(|| {
            ArmError::new(404, "SubscriptionNotFound", format!("The subscription '{id}' could not be found."))
        })?;
        if found.tenant == self.principal.tenant {
            return Ok(found);
        }
        let text = format!(
            "The access token is from the wrong issuer '{}'. It must match the tenant '{}' associated with this \
             subscription.",
            self.principal.issuer,
            self.origin.issuer(&found.tenant.guid())
        );
        let challenge = format!(
            "Bearer authorization_uri=\"{}/{}\", error=\"invalid_token\"",
            self.origin.login_base(),
            found.tenant.guid()
        );
        Err(ArmError::Token { code: "InvalidAuthenticationTokenTenant", message: text, challenge })
    }

    pub(crate) fn view<T>(&self, query: impl FnOnce(&View<'_>) -> std::result::Result<T, ApplyError>) -> Result<T> {
        Ok(self.service.node().view(query)?)
    }

    pub(crate) fn may(&self, scope: &Scope, action: &str) -> Result<bool> {
        self.view(|view| allowed_in(view, &self.principal.subject(), scope, action))
    }

    /// Refuses who may not.
    pub(crate) fn require(&self, scope: &Scope, action: &str) -> Result<()> {
        if self.may(scope, action)? {
            return Ok(());
        }
        Err(self.forbidden(scope, action))
    }

    pub(crate) fn forbidden(&self, scope: &Scope, action: &str) -> ArmError {
        let text = format!(
            "The client '{}' with object id '{}' does not have authorization to perform action '{action}' over scope \
             '{scope}' or the scope is invalid. If access was recently granted, please refresh your credentials.",
            self.principal.app,
            self.principal.oid.guid()
        );
        ArmError::new(403, "AuthorizationFailed", text)
    }

    /// Proposes in the caller's name; a refusal is an outcome like any other.
    pub(crate) async fn propose_raw(&self, command: &Command, blobs: Vec<Vec<u8>>) -> Result<Option<Refusal>> {
        Ok(match self.service.propose_and_see(self.principal.actor.clone(), command, blobs).await? {
            Outcome::Refused(refusal) => Some(refusal),
            _ => None,
        })
    }

    pub(crate) async fn propose(&self, command: &Command, blobs: Vec<Vec<u8>>) -> Result<()> {
        match self.propose_raw(command, blobs).await? {
            Some(refusal) => Err(ArmError::of(refusal)),
            None => Ok(()),
        }
    }

    /// The body; an object.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_slice::<Value>(self.body).ok().filter(Value::is_object).ok_or_else(ArmError::body)
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        query_parameter(self.query, name)
    }

    /// The conditions of `$filter`, each of which must be one that the list knows.
    pub(crate) fn filter(&self, known: impl Fn(&Condition) -> bool) -> Result<Vec<Condition>> {
        let text = self.parameter("$filter").unwrap_or_default();
        let bad = |what: String| {
            let text = format!("Invalid $filter '{text}' specified in the query string: {what}.");
            ArmError::new(400, "InvalidFilterInQueryString", text)
        };
        let conditions = filter::parse(&text).map_err(|rest| bad(format!("'{}' is not understood", rest.0)))?;
        match conditions.iter().find(|condition| !known(condition)) {
            None => Ok(conditions),
            Some(unknown) => Err(bad(format!("there is no filtering by '{}' here", unknown.name()))),
        }
    }

    /// The refusal of a path that leads nowhere.
    fn no_route(&self, method: &str) -> ArmError {
        let text = format!("No HTTP resource was found that matches the request '{method} {}'.", self.path);
        ArmError::new(404, "InvalidResourceType", text)
    }

    /// Where a poller finds that an operation is over.
    fn poll_at(&self, below: &str) -> Result<String> {
        let opaque = crate::service::fresh_id()?.hex();
        Ok(format!("{}{below}/{opaque}?api-version={}", self.origin.management_base(), self.version))
    }
}

/// The query of a list's next page: the one given, with another `$skiptoken`.
pub(crate) fn next_query(query: &str, token: &str, top: usize) -> String {
    let kept = query.split('&').filter(|pair| {
        let name = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
        !["", "$top", "%24top", "$skiptoken", "%24skiptoken"].contains(&name.as_str())
    });
    let added = [format!("$top={top}"), format!("$skiptoken={token}")];
    kept.map(str::to_owned).chain(added).collect::<Vec<_>>().join("&")
}

/// Whether a resource has a tag that fits all conditions about tags: name and value are those of the same one.
fn has_tag(tags: &Tags, conditions: &[Condition]) -> bool {
    let about_tags: Vec<&Condition> = conditions.iter().filter(|condition| is_about_tags(condition)).collect();
    let fits = |name: &str, value: &str| {
        about_tags.iter().all(|condition| match condition {
            Condition::StartsWith { start, .. } => {
                name.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start))
            }
            Condition::Equal { property, value: asked } if property == "tagname" => name.eq_ignore_ascii_case(asked),
            Condition::Equal { value: asked, .. } => value == asked,
            _ => false,
        })
    };
    about_tags.is_empty() || tags.iter().any(|(name, value)| fits(name, value))
}

/// Whether a condition is about tags, in the forms that [`has_tag`] knows.
fn is_about_tags(condition: &Condition) -> bool {
    match condition {
        Condition::Equal { property, .. } => matches!(property.as_str(), "tagname" | "tagvalue"),
        Condition::StartsWith { property, .. } => property == "tagname",
        _ => false,
    }
}

/// A location as resources show it: lower case, no spaces.
pub(crate) fn location(value: &Value) -> Result<String> {
    let text = value.as_str().unwrap_or_default().replace(' ', "").to_ascii_lowercase();
    if text.is_empty() {
        return Err(ArmError::new(400, "LocationRequired", "The location property is required for this definition."));
    }
    if text.len() > 64 || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        let text = format!("The provided location '{text}' is not available for resource group.");
        return Err(ArmError::new(400, "LocationNotAvailableForResourceGroup", text));
    }
    Ok(text)
}

/// The tags of a body; none when they are absent or null.
pub(crate) fn tags(value: &Value) -> Result<Option<Tags>> {
    let object = match value {
        Value::Null => return Ok(None),
        Value::Object(object) => object,
        _ => return Err(ArmError::body()),
    };
    let bad = |text: String| ArmError::new(400, "InvalidTagNameOrValue", text);
    if object.len() > TAGS_MAX {
        return Err(bad(format!("A resource has at most {TAGS_MAX} tags.")));
    }
    let mut tags = Tags::new();
    for (name, value) in object {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            _ => return Err(ArmError::body()),
        };
        if name.is_empty() || name.len() > TAG_NAME_MAX || value.len() > TAG_VALUE_MAX {
            return Err(bad(format!("The tag '{name}' is too long.")));
        }
        tags.insert(name.clone(), value);
    }
    Ok(Some(tags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_value_are_of_the_same_tag() {
        let tags: Tags = [("Team", "one"), ("stage", "two")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        let cases = [
            ("", true),
            ("tagName eq 'team'", true),
            ("tagName eq 'team' and tagValue eq 'one'", true),
            ("tagName eq 'team' and tagValue eq 'two'", false),
            ("tagName eq 'team' and tagValue eq 'ONE'", false),
            ("tagValue eq 'two'", true),
            ("startswith(tagname, 'st') and tagvalue eq 'two'", true),
            ("startswith(tagname, 'x')", false),
            ("tagName eq 'none'", false),
        ];
        for (text, want) in cases {
            assert_eq!(has_tag(&tags, &filter::parse(text).unwrap()), want, "{text}");
        }
    }
}
