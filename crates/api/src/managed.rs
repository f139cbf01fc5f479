//! Managed identities: programs on this machine get tokens without credentials, as on a virtual machine (the instance
//! metadata service) or in App Service (identity contract section 7).
//!
//! Whoever can open a connection from this machine can have the tokens: that is what the operator turns on. The listener is on
//! loopback, and a peer that is not is refused besides. A request has to carry a header that a web page cannot make a browser
//! send to another site, none that a proxy adds, and a `Host` that is no name: a page whose own name was made to lead to
//! loopback (DNS rebinding) could send that header, but not that `Host`.

use crate::domain::Origin;
use crate::identity::{application_token, LIFE};
use crate::service::Service;
use actix_web::dev::Server;
use actix_web::http::StatusCode;
use actix_web::{web, App, HttpRequest, HttpResponse, HttpServer};
use claviger_state_machine::read;
use claviger_state_machine::records::Application;
use claviger_types::name::Id128;
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Path of the metadata service.
const METADATA: &str = "/metadata/identity/oauth2/token";

/// Path of the App Service shape.
pub const APP_SERVICE: &str = "/msi/token";

/// Connections at once: the programs of one machine, each of which keeps its token for an hour.
const CONNECTIONS_MAX: usize = 256;

/// Which applications programs on this machine may be.
#[derive(Clone)]
pub struct ManagedIdentities {
    /// Whom a request means that names none.
    pub system: Option<Id128>,
    /// Who may be named.
    pub user: Assigned,
    /// What requests of the App Service shape carry in `X-IDENTITY-HEADER`; without one, there is only the other shape.
    pub header: Option<Zeroizing<String>>,
}

/// Applications that may be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assigned {
    /// These, by client id.
    These(Vec<Id128>),
    /// Every application of the world: `dev` has nothing to keep apart.
    Any,
}

/// The plain HTTP server of managed identities.
pub fn serve_managed_identities(
    service: Arc<Service>,
    identities: ManagedIdentities,
    listener: TcpListener,
) -> io::Result<Server> {
    if !listener.local_addr()?.ip().is_loopback() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "managed identities are for loopback only"));
    }
    let data = web::Data::new((service, identities));
    let server = HttpServer::new(move || App::new().app_data(data.clone()).default_service(web::to(answer)))
        .workers(1)
        .max_connections(CONNECTIONS_MAX)
        .shutdown_timeout(1)
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}

/// Which of the two shapes is spoken: their errors differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Metadata,
    AppService,
}

/// A refusal: status, code of the metadata service, text.
struct Refused(u16, &'static str, String);

fn bad(text: impl Into<String>) -> Refused {
    Refused(400, "invalid_request", text.into())
}

fn unavailable() -> Refused {
    Refused(503, "temporarily_unavailable", "The service cannot answer at the moment.".into())
}

/// Whether a `Host` is an address or `localhost`, with or without a port.
fn is_an_address(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

/// Whether it has the form of a day, as versions of the interface do.
fn is_a_day(version: &str) -> bool {
    let digit = |at: usize, byte: u8| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() };
    version.len() == 10 && version.bytes().enumerate().all(|(at, byte)| digit(at, byte))
}

async fn answer(request: HttpRequest, data: web::Data<(Arc<Service>, ManagedIdentities)>) -> HttpResponse {
    let (service, identities) = &**data;
    if !request.peer_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback()) {
        return HttpResponse::Forbidden().finish();
    }
    let shape = match request.path() {
        METADATA => Shape::Metadata,
        APP_SERVICE => Shape::AppService,
        _ => return HttpResponse::NotFound().json(json!({"error": "not_found", "error_description": "No such path."})),
    };
    match issue(&request, service, identities, shape).await {
        Ok(body) => HttpResponse::Ok().insert_header(("cache-control", "no-store")).json(body),
        Err(Refused(status, code, text)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            HttpResponse::build(status).insert_header(("cache-control", "no-store")).json(match shape {
                Shape::Metadata => json!({"error": code, "error_description": text}),
                Shape::AppService => json!({"statusCode": status.as_u16(), "message": text}),
            })
        }
    }
}

async fn issue(
    request: &HttpRequest,
    service: &Service,
    identities: &ManagedIdentities,
    shape: Shape,
) -> Result<Value, Refused> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    if !header("host").is_some_and(is_an_address) {
        return Err(bad("The request's host is not an address."));
    }
    if header("x-forwarded-for").is_some() || header("forwarded").is_some() {
        return Err(bad("The request was forwarded: only programs on this machine are answered."));
    }
    match shape {
        Shape::Metadata if !header("metadata").is_some_and(|value| value.eq_ignore_ascii_case("true")) => {
            return Err(bad("Required metadata header not specified"));
        }
        Shape::AppService => {
            let same = |a: &str, b: &str| Sha256::digest(a) == Sha256::digest(b);
            // Not 404: SDKs would try that again and again.
            let expected = identities.header.as_deref().ok_or_else(|| bad("This shape is turned off here."))?;
            if !header("x-identity-header").is_some_and(|given| same(given, expected)) {
                return Err(Refused(401, "unauthorized", "The header X-IDENTITY-HEADER is missing or wrong.".into()));
            }
        }
        Shape::Metadata => {}
    }
    if request.method() != actix_web::http::Method::GET {
        return Err(Refused(405, "method_not_allowed", "Only GET is answered here.".into()));
    }
    let parameter =
        |name: &str| crate::call::query_parameter(request.query_string(), name).filter(|value| !value.is_empty());
    let (oldest, version) = match shape {
        Shape::Metadata => ("2018-02-01", parameter("api-version")),
        Shape::AppService => ("2019-08-01", parameter("api-version")),
    };
    if version.as_deref().is_none_or(|version| version < oldest || !is_a_day(version)) {
        return Err(bad(format!("The parameter 'api-version' is missing or not supported: use {oldest}.")));
    }
    let resource = parameter("resource").ok_or_else(|| bad("Required parameter 'resource' not specified"))?;
    service.node().gate().check().await.map_err(|_| unavailable())?;
    let origin = service.config.clouds.iter().find_map(|cloud| {
        let origin = Origin { cloud, port: None };
        origin.resource(&resource).is_some().then_some(origin)
    });
    let origin = origin.ok_or_else(|| {
        let text = format!("AADSTS500011: The resource principal named {resource} was not found.");
        Refused(400, "invalid_resource", text)
    })?;
    let application = chosen(service, identities, &parameter)?;
    let more = [("xms_mirid", json!(resource_id(&application)))];
    let made = application_token(service, &origin, &application, &resource, "2", &more).map_err(|_| unavailable())?;
    // An application that another node has just removed gets none.
    service.node().gate().settle().await.map_err(|_| unavailable())?;
    Ok(json!({
        "access_token": made.token,
        "client_id": application.app.guid(),
        "expires_in": LIFE.to_string(),
        "expires_on": made.expires.to_string(),
        "ext_expires_in": LIFE.to_string(),
        "not_before": made.not_before.to_string(),
        "resource": resource,
        "token_type": "Bearer",
    }))
}

/// The resource id of an application as an identity: there are no such resources, so that its last part is the name.
fn resource_id(application: &Application) -> String {
    format!(
        "/subscriptions/{}/resourcegroups/claviger/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{}",
        Id128([0; 16]).guid(),
        application.display_name
    )
}

/// The application that a request names, or the one that it need not name.
fn chosen(
    service: &Service,
    identities: &ManagedIdentities,
    parameter: &impl Fn(&str) -> Option<String>,
) -> Result<Application, Refused> {
    let names = ["client_id", "object_id", "principal_id", "msi_res_id", "mi_res_id"];
    let given: Vec<(&str, String)> =
        names.into_iter().filter_map(|name| parameter(name).map(|value| (name, value))).collect();
    let not_found = || bad("Identity not found");
    let all = service.node().view(|view| read::applications(view)).map_err(|_| unavailable())?;
    let named = |app: Id128| match &identities.user {
        Assigned::These(these) => these.contains(&app),
        Assigned::Any => true,
    };
    let mut here = all.into_iter().filter(|found| found.has_principal);
    match given.as_slice() {
        [] => {
            let only = match &identities.user {
                Assigned::These(these) if these.len() == 1 => these.first().copied(),
                _ => None,
            };
            let meant = identities.system.or(only).ok_or_else(not_found)?;
            here.find(|found| found.app == meant).ok_or_else(not_found)
        }
        [(name, value)] => {
            let fits = |found: &Application| match *name {
                "client_id" => found.app.guid().eq_ignore_ascii_case(value),
                "object_id" | "principal_id" => found.oid.guid().eq_ignore_ascii_case(value),
                _ => value.rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case(&found.display_name)),
            };
            let mut found = here.filter(|found| named(found.app) && fits(found));
            let one = found.next().ok_or_else(not_found)?;
            match found.next() {
                Some(_) => Err(bad("More than one identity has this resource id: name it by its client id.")),
                None => Ok(one),
            }
        }
        _ => Err(bad(format!("At most one of {} may be given.", names.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address() {
        for good in ["127.0.0.1", "127.0.0.1:8446", "169.254.169.254", "[::1]:8446", "[::1]", "LocalHost:1"] {
            assert!(is_an_address(good), "{good}");
        }
        for bad in ["", "evil.test", "evil.test:8446", "127.0.0.1.evil.test", "localhost.evil.test", "[evil.test]"] {
            assert!(!is_an_address(bad), "{bad}");
        }
    }

    #[test]
    fn a_version_is_a_day() {
        for (version, want) in
            [("2018-02-01", true), ("2018-2-1", false), ("zzzzzzzzzz", false), ("2018-02-01x", false)]
        {
            assert_eq!(is_a_day(version), want, "{version}");
        }
    }
}
