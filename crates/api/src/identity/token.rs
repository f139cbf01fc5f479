//! The token endpoint (identity contract sections 3 and 4): client credentials with a secret or a signed assertion.

use super::credentials::Checked;
use super::{assertion, tenant_of, IdentityError, TenantRef};
use crate::call::query_parameter;
use crate::domain::Origin;
use crate::service::{fresh_id, Service};
use actix_web::HttpResponse;
use base64::Engine;
use claviger_state_machine::read;
use claviger_state_machine::records::Application;
use claviger_types::name::Id128;
use serde_json::json;
use zeroize::Zeroizing;

/// Life of a token, in seconds. SDKs renew below 300 s left.
const LIFE: u64 = 3_599;

struct Form<'a>(&'a str);

impl Form<'_> {
    fn get(&self, name: &str) -> Option<String> {
        query_parameter(self.0, name).filter(|value| !value.is_empty())
    }
}

fn missing(name: &str) -> IdentityError {
    let text = format!("The request body must contain the following parameter: '{name}'.");
    IdentityError::new(400, "invalid_request", 900_144, text)
}

/// Issues a token, or says why not.
pub(super) async fn issue(
    service: &Service,
    origin: &Origin<'_>,
    tenant: &str,
    v1: bool,
    body: &[u8],
    basic: Option<&str>,
) -> Result<HttpResponse, IdentityError> {
    let form = Form(std::str::from_utf8(body).unwrap_or(""));
    let found = tenant_of(service, tenant)?;
    let grant = form.get("grant_type").ok_or_else(|| missing("grant_type"))?;
    if grant != "client_credentials" {
        let text = format!("The app requested an unsupported grant type '{grant}'.");
        return Err(IdentityError::new(400, "unsupported_grant_type", 70_003, text));
    }
    let TenantRef::One(tenant) = found else {
        let text =
            "No tenant-identifying information found in either the request or implied by any provided credentials.";
        return Err(IdentityError::new(400, "invalid_request", 50_059, text));
    };
    let (basic_id, basic_secret) = basic.and_then(basic_credentials).unzip();
    let client = form.get("client_id").or(basic_id).ok_or_else(|| missing("client_id"))?;
    let audience = audience(&form)?;
    if origin.resource(&audience).is_none() {
        let text = format!(
            "The resource principal named {audience} was not found in the tenant named {}. This can happen if the \
             application has not been installed by the administrator of the tenant or consented to by any user in the \
             tenant.",
            tenant.display_name
        );
        return Err(IdentityError::new(400, "invalid_resource", 500_011, text));
    }
    let application = application(service, &client, tenant.tenant)?;
    if let Some(assertion) = form.get("client_assertion") {
        if form.get("client_assertion_type").as_deref() != Some(assertion::TYPE) {
            let text = format!("The 'client_assertion_type' must be '{}'.", assertion::TYPE);
            return Err(IdentityError::new(401, "invalid_client", 700_027, text));
        }
        assertion::check(service, origin, &application, &assertion, service.now_ms() / 1000)?;
        return answer(service, origin, &application, &audience, v1, "2");
    }
    let secret = form.get("client_secret").map(Zeroizing::new).or(basic_secret);
    let Some(secret) = secret else {
        let text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
        return Err(IdentityError::new(401, "invalid_client", 7_000_218, text));
    };
    match service.credentials.check(&application, &secret, service.now_ms() / 1000).await {
        Checked::Right => answer(service, origin, &application, &audience, v1, "1"),
        Checked::Wrong => {
            let text = format!(
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, \
                 not the client secret ID, for a secret added to app '{client}'."
            );
            Err(IdentityError::new(401, "invalid_client", 7_000_215, text))
        }
        Checked::Locked => {
            let text = "The application is locked for a minute: too many wrong secrets.";
            Err(IdentityError::new(400, "invalid_grant", 50_053, text))
        }
        Checked::Busy => Err(IdentityError::unavailable()),
    }
}

fn basic_credentials(header: &str) -> Option<(String, Zeroizing<String>)> {
    let (scheme, text) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = Zeroizing::new(base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()?);
    let (id, secret) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    Some((decode(id), Zeroizing::new(decode(secret))))
}

/// The audience that is asked for: `resource`, or the scope without exactly one trailing `/.default`.
fn audience(form: &Form<'_>) -> Result<String, IdentityError> {
    if let Some(resource) = form.get("resource") {
        return Ok(resource);
    }
    let scope = form.get("scope").ok_or_else(|| missing("scope"))?;
    let found = scope.split_whitespace().find_map(|scope| scope.strip_suffix("/.default")).map(str::to_owned);
    found.ok_or_else(|| {
        let text = format!(
            "The provided value for the input parameter 'scope' is not valid. The scope {scope} must end with /.default."
        );
        IdentityError::new(400, "invalid_scope", 70_011, text)
    })
}

fn application(service: &Service, client: &str, tenant: Id128) -> Result<Application, IdentityError> {
    let id = Id128::parse_guid(client).ok();
    let found = match id {
        Some(id) => service.node.view(|view| read::application(view, id)).map_err(|_| IdentityError::unavailable())?,
        None => None,
    };
    found.filter(|application| application.tenant == tenant && application.has_principal).ok_or_else(|| {
        let text = format!(
            "Application with identifier '{client}' was not found in the directory '{}'. This can happen if the \
             application has not been installed by the administrator of the tenant or consented to by any user in the \
             tenant. You may have sent your authentication request to the wrong tenant.",
            tenant.guid()
        );
        IdentityError::new(400, "unauthorized_client", 700_016, text)
    })
}

/// The claims of section 4, and the answer around them.
fn answer(
    service: &Service,
    origin: &Origin<'_>,
    application: &Application,
    audience: &str,
    v1: bool,
    how: &str,
) -> Result<HttpResponse, IdentityError> {
    let now = service.now_ms() / 1000;
    let (tid, oid) = (application.tenant.guid(), application.oid.guid());
    let issuer = origin.issuer(&tid);
    let unique = fresh_id().map(|id| crate::wire::b64(&id.0)).map_err(|_| IdentityError::unavailable())?;
    // Issued a little in the past: the clocks of the nodes that check it may be behind.
    let (not_before, expires) = (now.saturating_sub(300), now + LIFE);
    let claims = json!({
        "aud": audience,
        "iss": issuer,
        "iat": not_before,
        "nbf": not_before,
        "exp": expires,
        "aio": unique,
        "appid": application.app.guid(),
        "appidacr": how,
        "idp": issuer,
        "idtyp": "app",
        "oid": oid,
        "sub": oid,
        "tid": tid,
        "uti": unique,
        "ver": "1.0",
    });
    let token = service.sign_token(&claims).map_err(|_| IdentityError::unavailable())?;
    let body = if v1 {
        json!({
            "token_type": "Bearer",
            "expires_in": LIFE.to_string(),
            "ext_expires_in": LIFE.to_string(),
            "expires_on": expires.to_string(),
            "not_before": not_before.to_string(),
            "resource": audience,
            "access_token": token,
        })
    } else {
        json!({"token_type": "Bearer", "expires_in": LIFE, "ext_expires_in": LIFE, "access_token": token})
    };
    Ok(HttpResponse::Ok().insert_header(("cache-control", "no-store")).insert_header(("pragma", "no-cache")).json(body))
}
