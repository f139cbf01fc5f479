//! The token endpoint (identity contract sections 3 and 4): which grant it is, which program asks, and what every token
//! says.

use super::credentials::{ended, valid, Checked};
use super::{assertion, device, is_public_client, user, IdentityError, TenantRef};
use crate::call::query_parameter;
use crate::domain::Origin;
use crate::service::{fresh_id, Service};
use actix_web::HttpResponse;
use base64::Engine;
use claviger_state_machine::read;
use claviger_state_machine::records::{Application, Tenant};
use claviger_types::name::Id128;
use serde_json::{json, Map, Value};
use zeroize::Zeroizing;

/// Life of a token, in seconds. SDKs renew below 300 s left.
pub(crate) const LIFE: u64 = 3_599;

pub(super) struct Form<'a>(pub(super) &'a str);

impl Form<'_> {
    pub(super) fn get(&self, name: &str) -> Option<String> {
        query_parameter(self.0, name).filter(|value| !value.is_empty())
    }

    /// A parameter that has to be there.
    pub(super) fn need(&self, name: &str) -> Result<String, IdentityError> {
        self.get(name).ok_or_else(|| {
            let text = format!("The request body must contain the following parameter: '{name}'.");
            IdentityError::new(400, "invalid_request", 900_144, text)
        })
    }

    /// The scope, where no `resource` is named: that is what version 1 misses if there is none of both.
    pub(super) fn need_scope(&self, v1: bool) -> Result<String, IdentityError> {
        match self.get("scope") {
            Some(scope) => Ok(scope),
            None => self.need(if v1 { "resource" } else { "scope" }),
        }
    }
}

/// One request of the token endpoint.
pub(super) struct TokenRequest<'a> {
    pub(super) service: &'a Service,
    pub(super) origin: &'a Origin<'a>,
    pub(super) tenant: TenantRef,
    /// Whether it came to the endpoint of version 1, whose answers differ.
    pub(super) v1: bool,
    pub(super) form: Form<'a>,
    /// `Authorization`, which may hold the client's credentials.
    pub(super) basic: Option<&'a str>,
}

/// The program that asks.
pub(super) struct Client {
    /// Its id.
    pub(super) app: Id128,
    /// `appidacr`: "0" without credentials, "1" by a secret, "2" by an assertion.
    pub(super) how: &'static str,
    application: Option<Application>,
}

/// Issues a token, or says why not.
pub(super) async fn issue(request: &TokenRequest<'_>) -> Result<HttpResponse, IdentityError> {
    let grant = request.form.need("grant_type")?;
    match grant.as_str() {
        "client_credentials" => request.client_credentials().await,
        "password" => user::by_password(request).await,
        "refresh_token" => user::by_refresh_token(request).await,
        "urn:ietf:params:oauth:grant-type:device_code" | "device_code" => device::by_device_code(request).await,
        _ => {
            let text = format!("The app requested an unsupported grant type '{grant}'.");
            Err(IdentityError::new(400, "unsupported_grant_type", 70_003, text))
        }
    }
}

impl TokenRequest<'_> {
    async fn client_credentials(&self) -> Result<HttpResponse, IdentityError> {
        let TenantRef::One(tenant) = &self.tenant else {
            let text = "No tenant-identifying information found in either the request or implied by any provided \
                        credentials.";
            return Err(IdentityError::new(400, "invalid_request", 50_059, text));
        };
        let audience = audience(&self.form, self.v1)?;
        self.check_audience(&audience, tenant)?;
        let client = self.client(tenant).await?;
        let Some(application) = client.application.filter(|_| client.how != "0") else {
            let text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
            return Err(IdentityError::new(401, "invalid_client", 7_000_218, text));
        };
        answer(self.service, self.origin, &application, &audience, self.v1, client.how)
    }

    /// Whether the resource is one of ours.
    pub(super) fn check_audience(&self, audience: &str, tenant: &Tenant) -> Result<(), IdentityError> {
        if self.origin.resource(audience).is_some() {
            return Ok(());
        }
        let text = format!(
            "The resource principal named {audience} was not found in the tenant named {}. This can happen if the \
             application has not been installed by the administrator of the tenant or consented to by any user in the \
             tenant.",
            tenant.display_name
        );
        Err(IdentityError::new(400, "invalid_resource", 500_011, text))
    }

    /// The program that asks, with what it shows to prove it. One that has credentials has to show one: a policy that
    /// names it together with a user would otherwise be anybody's.
    pub(super) async fn client(&self, tenant: &Tenant) -> Result<Client, IdentityError> {
        let (basic_id, basic_secret) = self.basic.and_then(basic_credentials).unzip();
        let id = match self.form.get("client_id").or(basic_id) {
            Some(id) => id,
            None => self.form.need("client_id")?,
        };
        if let Some(app) = Id128::parse_guid(&id).ok().filter(|app| is_public_client(*app)) {
            return Ok(Client { app, how: "0", application: None });
        }
        let application = application(self.service, &id, tenant.tenant)?;
        let now = self.service.now_ms() / 1000;
        let known =
            |how, application: Application| Ok(Client { app: application.app, how, application: Some(application) });
        if let Some(given) = self.form.get("client_assertion") {
            if self.form.get("client_assertion_type").as_deref() != Some(assertion::TYPE) {
                let text = format!("The 'client_assertion_type' must be '{}'.", assertion::TYPE);
                return Err(IdentityError::new(401, "invalid_client", 700_027, text));
            }
            assertion::check(self.service, self.origin, &application, &given, now).await?;
            return known("2", application);
        }
        let Some(secret) = self.form.get("client_secret").map(Zeroizing::new).or(basic_secret) else {
            let federated = self.service.node.view(|view| read::federated_credentials(view, application.app));
            let federated = federated.map_err(|_| IdentityError::unavailable())?;
            if application.secrets.is_empty() && application.certificates.is_empty() && federated.is_empty() {
                return known("0", application);
            }
            let text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
            return Err(IdentityError::new(401, "invalid_client", 7_000_218, text));
        };
        let (valid, ended) = (valid(&application, now), ended(&application, now));
        match self.service.credentials.check(application.app, valid, ended, &secret).await {
            Checked::Right => known("1", application),
            Checked::Wrong => {
                let text = format!(
                    "Invalid client secret provided. Ensure the secret being sent in the request is the client secret \
                     value, not the client secret ID, for a secret added to app '{id}'."
                );
                Err(IdentityError::new(401, "invalid_client", 7_000_215, text))
            }
            Checked::Ended => {
                let text = format!(
                    "The provided client secret keys for app '{id}' are expired. Create new keys for the app, or \
                     consider using certificate credentials for added security."
                );
                Err(IdentityError::new(401, "invalid_client", 7_000_222, text))
            }
            Checked::Locked => {
                let text = "The application is locked for a minute: too many wrong secrets.";
                Err(IdentityError::new(400, "invalid_grant", 50_053, text))
            }
            Checked::Busy => Err(IdentityError::unavailable()),
        }
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
fn audience(form: &Form<'_>, v1: bool) -> Result<String, IdentityError> {
    if let Some(resource) = form.get("resource") {
        return Ok(resource);
    }
    let scope = form.need_scope(v1)?;
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

/// What every token says, whomever it is for.
pub(super) struct Common {
    pub(super) claims: Map<String, Value>,
    pub(super) not_before: u64,
    pub(super) expires: u64,
}

/// The claims of section 4 that users and applications have in common.
pub(super) fn common(
    service: &Service,
    origin: &Origin<'_>,
    tenant: Id128,
    app: Id128,
    how: &str,
    audience: &str,
) -> Result<Common, IdentityError> {
    let now = service.now_ms() / 1000;
    let tid = tenant.guid();
    let issuer = origin.issuer(&tid);
    let unique = fresh_id().map(|id| crate::wire::b64(&id.0)).map_err(|_| IdentityError::unavailable())?;
    // Issued a little in the past: the clocks of the nodes that check it may be behind.
    let (not_before, expires) = (now.saturating_sub(300), now + LIFE);
    let claims = [
        ("aud", json!(audience)),
        ("iss", json!(issuer)),
        ("iat", json!(not_before)),
        ("nbf", json!(not_before)),
        ("exp", json!(expires)),
        ("aio", json!(unique)),
        ("appid", json!(app.guid())),
        ("appidacr", json!(how)),
        ("idp", json!(issuer)),
        ("tid", json!(tid)),
        ("uti", json!(unique)),
        ("ver", json!("1.0")),
    ];
    let claims = claims.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Ok(Common { claims, not_before, expires })
}

/// A token for an application itself.
pub(crate) fn application_token(
    service: &Service,
    origin: &Origin<'_>,
    application: &Application,
    audience: &str,
    how: &str,
    more: &[(&str, Value)],
) -> Result<ApplicationToken, IdentityError> {
    let Common { mut claims, not_before, expires } =
        common(service, origin, application.tenant, application.app, how, audience)?;
    let oid = json!(application.oid.guid());
    let own = [("idtyp", json!("app")), ("oid", oid.clone()), ("sub", oid)];
    for (name, value) in own.iter().chain(more) {
        claims.insert((*name).to_owned(), value.clone());
    }
    let token = service.sign_token(&Value::Object(claims)).map_err(|_| IdentityError::unavailable())?;
    Ok(ApplicationToken { token, not_before, expires })
}

/// A token and its times, in seconds.
pub(crate) struct ApplicationToken {
    pub(crate) token: String,
    pub(crate) not_before: u64,
    pub(crate) expires: u64,
}

fn answer(
    service: &Service,
    origin: &Origin<'_>,
    application: &Application,
    audience: &str,
    v1: bool,
    how: &str,
) -> Result<HttpResponse, IdentityError> {
    let made = application_token(service, origin, application, audience, how, &[])?;
    let mut body = json!({"token_type": "Bearer", "access_token": made.token});
    add_times(&mut body, v1, audience, made.not_before, made.expires);
    Ok(not_to_be_kept(body))
}

/// The members of an answer that say how long a token lives: text in version 1.
pub(super) fn add_times(body: &mut Value, v1: bool, audience: &str, not_before: u64, expires: u64) {
    if v1 {
        body["expires_in"] = json!(LIFE.to_string());
        body["ext_expires_in"] = json!(LIFE.to_string());
        body["expires_on"] = json!(expires.to_string());
        body["not_before"] = json!(not_before.to_string());
        body["resource"] = json!(audience);
    } else {
        body["expires_in"] = json!(LIFE);
        body["ext_expires_in"] = json!(LIFE);
    }
}

pub(super) fn not_to_be_kept(body: Value) -> HttpResponse {
    HttpResponse::Ok().insert_header(("cache-control", "no-store")).insert_header(("pragma", "no-cache")).json(body)
}
