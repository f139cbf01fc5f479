//! Discovery documents and public keys (identity contract section 2).

use super::{tenant_of, IdentityError, TenantRef};
use crate::call::query_parameter;
use crate::domain::{resolve, Origin, Plane};
use crate::service::Service;
use crate::wire::b64;
use actix_web::HttpResponse;
use claviger_state_machine::read;
use claviger_types::alg::PublicKey;
use serde_json::{json, Value};

/// The OpenID Connect discovery document of a tenant.
pub(super) fn document(
    service: &Service,
    origin: &Origin<'_>,
    tenant: &str,
    v2: bool,
) -> Result<HttpResponse, IdentityError> {
    let base = origin.login_base();
    // MSAL takes the tenant from the path of the token endpoint: a domain name is answered with its GUID. The `adfs`
    // document stays below `adfs`, where MSAL looks for it.
    let (path, issuer) = match tenant_of(service, tenant)? {
        TenantRef::One(found) => {
            let guid = found.tenant.guid();
            let path = if tenant.eq_ignore_ascii_case("adfs") { "adfs".to_owned() } else { guid.clone() };
            (path, origin.issuer(&guid))
        }
        TenantRef::Any => (tenant.to_ascii_lowercase(), origin.issuer("{tenantid}")),
    };
    let version = if v2 { "v2.0/" } else { "" };
    let authority = format!("{base}/{path}");
    Ok(HttpResponse::Ok().insert_header(("cache-control", "max-age=86400, private")).json(json!({
        "token_endpoint": format!("{authority}/oauth2/{version}token"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic", "private_key_jwt"],
        "jwks_uri": format!("{authority}/discovery/{version}keys"),
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "issuer": issuer,
        "request_uri_parameter_supported": false,
        "authorization_endpoint": format!("{authority}/oauth2/{version}authorize"),
        "device_authorization_endpoint": format!("{authority}/oauth2/{version}devicecode"),
        "end_session_endpoint": format!("{authority}/oauth2/{version}logout"),
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nbf", "tid", "oid", "appid", "ver"],
        "cloud_instance_name": origin.cloud.instance,
        "cloud_graph_host_name": origin.cloud.graph_hosts.last(),
        "msgraph_host": origin.cloud.graph_hosts.first(),
        "tenant_region_scope": service.config.region,
    })))
}

/// Instance discovery: which hosts are one authority.
pub(super) fn instance(query: &str, service: &Service, origin: &Origin<'_>) -> Result<HttpResponse, IdentityError> {
    let endpoint = query_parameter(query, "authorization_endpoint").unwrap_or_default();
    let rest = endpoint.strip_prefix("https://").unwrap_or_default();
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let tenant = path.split('/').next().filter(|tenant| !tenant.is_empty()).unwrap_or("common");
    let known = resolve(&service.config.clouds, host).filter(|(_, plane)| *plane == Plane::Login);
    let Some((asked, _)) = known else {
        let text = format!("The authorization_endpoint is not in the list of well-known instances: '{host}'.");
        return Err(IdentityError::new(400, "invalid_instance", 50_049, text));
    };
    let clouds = &service.config.clouds;
    let metadata: Vec<Value> = clouds
        .iter()
        .map(|cloud| {
            let preferred = cloud.login_hosts.first();
            json!({"preferred_network": preferred, "preferred_cache": preferred, "aliases": cloud.login_hosts})
        })
        .collect();
    let base = if asked.cloud == origin.cloud { origin.login_base() } else { asked.login_base() };
    Ok(HttpResponse::Ok().json(json!({
        "tenant_discovery_endpoint": format!("{base}/{tenant}/v2.0/.well-known/openid-configuration"),
        "api-version": query_parameter(query, "api-version").unwrap_or_else(|| "1.1".into()),
        "metadata": metadata,
    })))
}

/// The public keys that tokens are verified with.
pub(super) fn keys(service: &Service, tenant: &str) -> Result<HttpResponse, IdentityError> {
    tenant_of(service, tenant)?;
    let keys = service.node.view(|view| read::token_keys(view)).map_err(|_| IdentityError::unavailable())?;
    let keys: Vec<Value> = keys
        .iter()
        .filter_map(|key| match &key.public {
            PublicKey::Rsa { n, e } => Some(json!({
                "kty": "RSA", "use": "sig", "alg": "RS256", "kid": key.kid, "x5t": key.kid, "n": b64(n), "e": b64(e),
            })),
            PublicKey::Ec { .. } | PublicKey::Oct { .. } => None,
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({ "keys": keys })))
}
