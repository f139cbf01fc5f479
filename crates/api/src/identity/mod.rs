//! The built-in token service: discovery, keys, tokens, users (identity contract sections 2 to 4 and 7).

mod assertion;
mod credentials;
mod device;
mod discovery;
mod page;
mod token;
mod user;

pub(crate) use assertion::certificate_key;
pub(crate) use credentials::Credentials;
pub(crate) use device::Failures;
pub(crate) use token::{application_token, LIFE};

use crate::domain::Origin;
use crate::http::read_body;
use crate::service::Service;
use actix_web::{web, HttpRequest, HttpResponse};
use claviger_state_machine::read;
use claviger_state_machine::records::Tenant;
use claviger_types::name::Id128;
use serde_json::json;

/// Programs that users sign in with without any of them being registered: `az`, PowerShell, Visual Studio and its Code.
const PUBLIC_CLIENTS: &[&str] = &[
    "04b07795-8ddb-461a-bbee-02f9e1bf7b46",
    "1950a258-227b-4e31-a9cf-717495945fc2",
    "872cd9fa-d31f-45e0-9eab-6e460a02d1f1",
    "aebc6443-996d-45c2-90f0-388ff96faa56",
];

/// Whether this is the client id of a program that cannot keep a secret and need not be registered.
pub(crate) fn is_public_client(app: Id128) -> bool {
    PUBLIC_CLIENTS.contains(&app.guid().as_str())
}

/// Largest form: an assertion with its certificate chain is a few kilobytes.
const FORM_BYTES_MAX: usize = 64 * 1024;

/// An error of the token service: what Entra says in the same case.
#[derive(Debug)]
pub(crate) struct IdentityError {
    status: u16,
    error: &'static str,
    code: u32,
    text: String,
}

impl IdentityError {
    pub(crate) fn new(status: u16, error: &'static str, code: u32, text: impl Into<String>) -> Self {
        Self { status, error, code, text: text.into() }
    }

    /// Whether the same request may succeed a moment later.
    fn is_transient(&self) -> bool {
        self.status == 503
    }

    /// What people are told.
    fn text(&self) -> &str {
        &self.text
    }

    fn unavailable() -> Self {
        Self::new(503, "temporarily_unavailable", 90033, "A transient error has occurred. Please try again.")
    }

    fn response(&self) -> HttpResponse {
        let id = || crate::service::fresh_id().map(|id| id.guid()).unwrap_or_default();
        let (trace, correlation) = (id(), id());
        let now = claviger_types::duration::rfc3339(crate::clock::now_ms() / 1000).replace('T', " ");
        let status = actix_web::http::StatusCode::from_u16(self.status).unwrap_or_default();
        HttpResponse::build(status).insert_header(("cache-control", "no-store")).json(json!({
            "error": self.error,
            "error_description": format!(
                "AADSTS{}: {} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {now}", self.code, self.text
            ),
            "error_codes": [self.code],
            "timestamp": now,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": format!("https://login.microsoftonline.com/error?code={}", self.code),
        }))
    }
}

/// What the first segment of a path names.
pub(crate) enum TenantRef {
    /// One tenant.
    One(Tenant),
    /// `common` or `organizations`: no tenant in particular.
    Any,
}

pub(crate) fn tenant_of(service: &Service, segment: &str) -> Result<TenantRef, IdentityError> {
    let tenants = service.node.view(|view| read::tenants(view)).map_err(|_| IdentityError::unavailable())?;
    if ["common", "organizations", "consumers"].iter().any(|any| any.eq_ignore_ascii_case(segment)) {
        return Ok(TenantRef::Any);
    }
    let adfs = segment.eq_ignore_ascii_case("adfs");
    let id = Id128::parse_guid(segment).ok();
    let found = tenants
        .into_iter()
        .find(|tenant| adfs || Some(tenant.tenant) == id || tenant.domain.eq_ignore_ascii_case(segment));
    found.map(TenantRef::One).ok_or_else(|| {
        let text = format!(
            "Tenant '{segment}' not found. Check to make sure you have the correct tenant ID and are signing into the \
             correct cloud."
        );
        IdentityError::new(400, "invalid_request", 90002, text)
    })
}

/// Answers a request of the login plane.
pub(crate) async fn handle(
    request: &HttpRequest,
    payload: web::Payload,
    service: &Service,
    origin: &Origin<'_>,
) -> HttpResponse {
    if service.node.gate().check().await.is_err() {
        return IdentityError::unavailable().response();
    }
    let path = request.path().trim_start_matches('/').trim_end_matches('/');
    let segments: Vec<&str> = path.split('/').collect();
    let folded: Vec<String> = segments.iter().skip(1).map(|s| s.to_ascii_lowercase()).collect();
    let rest: Vec<&str> = folded.iter().map(String::as_str).collect();
    let tenant = segments.first().copied().unwrap_or("");
    let malformed = || IdentityError::new(400, "invalid_request", 900_144, "The request body is malformed.");
    let result = match (request.method().as_str(), rest.as_slice()) {
        ("GET", ["v2.0", ".well-known", "openid-configuration"]) => discovery::document(service, origin, tenant, true),
        ("GET", [".well-known", "openid-configuration"]) => discovery::document(service, origin, tenant, false),
        ("GET", ["discovery", "instance"]) => discovery::instance(request.query_string(), service, origin),
        ("GET", ["discovery", "v2.0", "keys"] | ["discovery", "keys"]) => discovery::keys(service, tenant),
        ("POST", ["oauth2", "v2.0", "token"] | ["oauth2", "token"]) => {
            let v1 = rest.len() == 2;
            let basic = request.headers().get("authorization").and_then(|value| value.to_str().ok());
            match read_body(payload, FORM_BYTES_MAX).await {
                Ok(body) => match tenant_of(service, tenant) {
                    Ok(tenant) => {
                        let form = token::Form(std::str::from_utf8(&body).unwrap_or(""));
                        token::issue(&token::TokenRequest { service, origin, tenant, v1, form, basic }).await
                    }
                    Err(error) => Err(error),
                },
                Err(_) => Err(malformed()),
            }
        }
        ("POST", ["oauth2", "v2.0", "devicecode"] | ["oauth2", "devicecode"]) => {
            match (read_body(payload, FORM_BYTES_MAX).await, tenant_of(service, tenant)) {
                (Ok(body), Ok(_)) => device::begin(service, origin, &body, rest.len() == 2),
                (Err(_), _) => Err(malformed()),
                (_, Err(error)) => Err(error),
            }
        }
        ("GET", ["oauth2", "deviceauth"]) => Ok(page::form(200, "", "")),
        ("GET", []) if tenant.eq_ignore_ascii_case("devicelogin") => Ok(page::form(200, "", "")),
        ("POST", []) if tenant.eq_ignore_ascii_case("devicelogin") => match read_body(payload, FORM_BYTES_MAX).await {
            Ok(body) => Ok(device::sign_in(service, &body).await),
            Err(_) => Err(malformed()),
        },
        ("GET", ["userrealm", _]) => {
            let name = segments.get(2).copied().unwrap_or_default();
            Ok(user::realm(origin, &percent_encoding::percent_decode_str(name).decode_utf8_lossy()))
        }
        (method, _) => Err(IdentityError::new(
            404,
            "invalid_request",
            90_009,
            format!("There is no endpoint {method} /{path} in this release of Claviger."),
        )),
    };
    // Nothing is shown that another node could still miss.
    if service.node.gate().settle().await.is_err() {
        return IdentityError::unavailable().response();
    }
    result.unwrap_or_else(|error| error.response())
}
