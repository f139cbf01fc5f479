//! Users: signing in with a password, and staying signed in.
//!
//! A refresh token is sealed under the world key and stored nowhere, so that every node takes it. It names the password that
//! was signed in with by its place in the log: one that was set later, and a user who is gone or disabled, end it.

use super::credentials::Checked;
use super::token::{add_times, common, not_to_be_kept, Client, Common, Form, TokenRequest};
use super::{IdentityError, TenantRef};
use crate::domain::Resource;
use crate::service::Service;
use crate::wire::{b64, decode_b64};
use actix_web::HttpResponse;
use claviger_state_machine::records::{SignIn, Tenant, User};
use claviger_state_machine::{read, ApplyError};
use claviger_types::name::Id128;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};
use zeroize::Zeroizing;

/// Seconds for which a refresh token may lie unused: a laptop that was closed over a holiday still goes on.
const UNUSED_MAX: u64 = 14 * 86_400;

/// Seconds from one sign-in to the next, however busy the session is: a stolen one ends, too.
const SESSION_MAX: u64 = 90 * 86_400;

/// Groups that a token names; a client that needs more asks the directory. Access checks look at the directory themselves.
const GROUPS_MAX: usize = 200;

/// What refresh tokens are sealed as.
const REFRESH: &str = "refresh token";

/// Scopes that name no resource.
const OPENID: &[&str] = &["openid", "profile", "email", "offline_access"];

fn no_grant(code: u32, text: impl Into<String>) -> IdentityError {
    IdentityError::new(400, "invalid_grant", code, text)
}

fn unavailable(_: ApplyError) -> IdentityError {
    IdentityError::unavailable()
}

/// A user who has proved to be one.
pub(super) struct SignedIn {
    pub(super) user: User,
    pub(super) tenant: Tenant,
    stamp: u64,
    /// When, in seconds.
    at: u64,
}

/// What a refresh token says.
#[derive(Serialize, Deserialize)]
struct Refresh {
    oid: String,
    app: String,
    stamp: u64,
    signed_in: u64,
    issued: u64,
}

/// `grant_type=password`.
pub(super) async fn by_password(request: &TokenRequest<'_>) -> Result<HttpResponse, IdentityError> {
    let username = request.form.need("username")?;
    let password = Zeroizing::new(request.form.need("password")?);
    let signed_in = sign_in(request.service, &request.tenant, &username, &password).await?;
    let client = request.client(&signed_in.tenant).await?;
    answer(request, &signed_in, &client, &scopes(&request.form, request.v1)?)
}

/// `grant_type=refresh_token`.
pub(super) async fn by_refresh_token(request: &TokenRequest<'_>) -> Result<HttpResponse, IdentityError> {
    let service = request.service;
    let malformed = || no_grant(9_002_313, "Invalid request. Request is malformed or invalid.");
    let given = Zeroizing::new(request.form.need("refresh_token")?);
    let sealed = decode_b64(&given).ok_or_else(malformed)?;
    let plain = service.sealer.open_own(REFRESH, REFRESH, &sealed).map_err(|_| malformed())?;
    let token: Refresh = serde_json::from_slice(plain.expose()).map_err(|_| malformed())?;
    let now = service.now_ms() / 1000;
    if now >= token.issued.saturating_add(UNUSED_MAX) || now >= token.signed_in.saturating_add(SESSION_MAX) {
        return Err(no_grant(700_082, "The refresh token has expired due to inactivity or age. Sign in again."));
    }
    let oid = Id128::parse_guid(&token.oid).map_err(|_| malformed())?;
    let found = known_user(service, &request.tenant, oid)?;
    let Some((user, tenant, sign_in)) = found.filter(|(_, _, sign_in)| sign_in.stamp == token.stamp) else {
        let text = "The provided grant has expired due to it being revoked: the user is gone or has a new password.";
        return Err(no_grant(50_173, text));
    };
    let signed_in = SignedIn { user, tenant, stamp: sign_in.stamp, at: token.signed_in };
    check_enabled(&sign_in)?;
    let client = request.client(&signed_in.tenant).await?;
    if client.app.guid() != token.app {
        return Err(no_grant(70_000, "The provided value for the input parameter 'refresh_token' is not valid."));
    }
    answer(request, &signed_in, &client, &scopes(&request.form, request.v1)?)
}

/// A user of the tenant that was asked for, as it is now.
fn known_user(
    service: &Service,
    asked: &TenantRef,
    oid: Id128,
) -> Result<Option<(User, Tenant, SignIn)>, IdentityError> {
    let found = service.node.view(|view| {
        let Some(user) = read::user(view, oid)? else { return Ok(None) };
        let tenant = read::tenants(view)?.into_iter().find(|tenant| tenant.tenant == user.tenant);
        let sign_in = read::sign_in(view, oid)?;
        Ok(tenant.zip(sign_in).map(|(tenant, sign_in)| (user, tenant, sign_in)))
    });
    let found = found.map_err(unavailable)?;
    Ok(found.filter(|(user, ..)| match asked {
        TenantRef::One(tenant) => tenant.tenant == user.tenant,
        TenantRef::Any => true,
    }))
}

/// A user by object id, for whom somebody vouches.
pub(super) fn vouched_for(request: &TokenRequest<'_>, oid: Id128) -> Result<SignedIn, IdentityError> {
    let found = known_user(request.service, &request.tenant, oid)?;
    let (user, tenant, sign_in) = found.ok_or_else(|| {
        let text = "The user account does not exist in the directory. The account must be added to it first.";
        no_grant(50_034, text)
    })?;
    check_enabled(&sign_in)?;
    Ok(SignedIn { user, tenant, stamp: sign_in.stamp, at: request.service.now_ms() / 1000 })
}

fn check_enabled(sign_in: &SignIn) -> Result<(), IdentityError> {
    match sign_in.enabled {
        true => Ok(()),
        false => Err(no_grant(50_057, "The user account is disabled.")),
    }
}

/// Checks a name and a password. A name that nobody has, and one without a password, look like a wrong password.
pub(super) async fn sign_in(
    service: &Service,
    asked: &TenantRef,
    username: &str,
    password: &str,
) -> Result<SignedIn, IdentityError> {
    let user = service.node.view(|view| read::user_by_name(view, username)).map_err(unavailable)?;
    let found = match &user {
        Some(user) => known_user(service, asked, user.oid)?,
        None => None,
    };
    let credentials = &service.credentials;
    let checked = match &found {
        Some((user, _, SignIn { password: Some(hash), .. })) => {
            credentials.check(user.oid, vec![hash.clone()], Vec::new(), password).await
        }
        _ => credentials.check_nobody(password).await,
    };
    match (checked, found) {
        (Checked::Right, Some((user, tenant, sign_in))) => {
            check_enabled(&sign_in)?;
            Ok(SignedIn { user, tenant, stamp: sign_in.stamp, at: service.now_ms() / 1000 })
        }
        (Checked::Busy, _) => Err(IdentityError::unavailable()),
        (Checked::Locked, _) => {
            let text = "The account is locked for a minute: too many sign-ins with a wrong user ID or password.";
            Err(no_grant(50_053, text))
        }
        (Checked::Right | Checked::Wrong | Checked::Ended, _) => {
            Err(no_grant(50_126, "Error validating credentials due to invalid username or password."))
        }
    }
}

/// What is asked for, as scopes: version 1 names a resource instead, and always gets everything.
pub(super) fn scopes(form: &Form<'_>, v1: bool) -> Result<String, IdentityError> {
    match form.get("resource") {
        Some(resource) => Ok(format!("{resource}/.default openid profile offline_access")),
        None => form.need_scope(v1),
    }
}

/// The resource that is asked for, and the scopes that the answer names: clients look for those that they asked for.
fn resource(request: &TokenRequest<'_>, asked: &str) -> (String, String) {
    let scopes: Vec<&str> = asked.split_whitespace().filter(|scope| !OPENID.contains(scope)).collect();
    let audience = match scopes.first().map(|scope| scope.rsplit_once('/')) {
        Some(Some((audience, _))) => audience.to_owned(),
        // A bare name is a permission of the directory.
        Some(None) | None => request.origin.graph_base(),
    };
    let granted = match request.origin.resource(&audience) {
        Some(Resource::Graph) => "Directory.AccessAsUser.All",
        _ => "user_impersonation",
    };
    let others = asked.split_whitespace().filter(|scope| *scope != "offline_access");
    let scopes: Vec<String> =
        std::iter::once(format!("{audience}/{granted}")).chain(others.map(str::to_owned)).collect();
    (audience, scopes.join(" "))
}

/// Access token, id token and refresh token.
pub(super) fn answer(
    request: &TokenRequest<'_>,
    signed_in: &SignedIn,
    client: &Client,
    scopes: &str,
) -> Result<HttpResponse, IdentityError> {
    let (service, origin) = (request.service, request.origin);
    let SignedIn { user, tenant, stamp, at } = signed_in;
    let (audience, scope) = resource(request, scopes);
    request.check_audience(&audience, tenant)?;
    let groups = service.node.view(|view| read::principals(view, user.oid)).map_err(unavailable)?;
    let groups: Vec<String> = groups.iter().skip(1).map(|group| group.guid()).collect();
    let oid = user.oid.guid();
    let Common { mut claims, not_before, expires } =
        common(service, origin, user.tenant, client.app, client.how, &audience)?;
    let mut say = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    say("acr", json!("1"));
    say("amr", json!(["pwd"]));
    say("idtyp", json!("user"));
    say("name", json!(user.display_name));
    say("oid", json!(oid));
    say("scp", json!("user_impersonation"));
    say("sub", json!(oid));
    say("unique_name", json!(user.upn));
    say("upn", json!(user.upn));
    if groups.len() > GROUPS_MAX {
        say("hasgroups", json!(true));
    } else if !groups.is_empty() {
        say("groups", json!(groups));
    }
    let sign = |claims: &Value| service.sign_token(claims).map_err(|_| IdentityError::unavailable());
    let token = sign(&Value::Object(claims))?;
    let tid = user.tenant.guid();
    let id_token = json!({
        "aud": client.app.guid(),
        "iss": format!("{}/{tid}/v2.0", origin.login_base()),
        "iat": not_before,
        "nbf": not_before,
        "exp": expires,
        "name": user.display_name,
        "oid": oid,
        "preferred_username": user.upn,
        "sub": oid,
        "tid": tid,
        "ver": "2.0",
    });
    let mut body = json!({
        "token_type": "Bearer",
        "scope": scope,
        "access_token": token,
        "id_token": sign(&id_token)?,
        "client_info": b64(json!({"uid": oid, "utid": tid}).to_string().as_bytes()),
    });
    add_times(&mut body, request.v1, &audience, not_before, expires);
    if scopes.split_whitespace().any(|scope| scope == "offline_access") {
        let refresh =
            Refresh { oid, app: client.app.guid(), stamp: *stamp, signed_in: *at, issued: service.now_ms() / 1000 };
        let plain = Zeroizing::new(serde_json::to_vec(&refresh).map_err(|_| IdentityError::unavailable())?);
        let sealed = service.sealer.seal_own(REFRESH, REFRESH, &plain).map_err(|_| IdentityError::unavailable())?;
        body["refresh_token"] = json!(b64(&sealed));
    }
    Ok(not_to_be_kept(body))
}

/// What kind of account a name is: none is another identity provider's.
pub(super) fn realm(request_origin: &crate::domain::Origin<'_>, upn: &str) -> HttpResponse {
    let domain = upn.rsplit_once('@').map_or("", |(_, domain)| domain);
    HttpResponse::Ok().insert_header(("cache-control", "no-store")).json(json!({
        "ver": "1.0",
        "account_type": "Managed",
        "domain_name": domain,
        "cloud_instance_name": request_origin.cloud.instance,
        "cloud_audience_urn": "urn:federation:MicrosoftOnline",
    }))
}
