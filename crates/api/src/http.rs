//! The edge: from an HTTP request to a plane and back.
//!
//! Order of checks on the data plane (contract section 4): vault, token (before anything of the request is looked at, for
//! clients send their first request bare), api-version, route, body size, read gate, name, permission, body, existence,
//! state.

use crate::call::{query_parameter, Call, Reply};
use crate::domain::{self, Origin, Plane, Resource};
use crate::error::{Caller, ServiceError, TokenFault};
use crate::pause::{self, Point};
use crate::service::{fresh_id, Service};
use crate::tokens::Principal;
use crate::version::ApiVersion;
use crate::wire::Renderer;
use crate::{graph, identity, management, ops, route};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::{web, HttpRequest, HttpResponse, HttpResponseBuilder};
use claviger_node::NodeError;
use claviger_state_machine::read;
use claviger_state_machine::records::Vault;
use claviger_types::name::{Id128, VaultName};
use futures::StreamExt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Largest body but for restore: a secret of the largest size with every character escaped, and room for tags.
const BODY_BYTES_MAX: usize = 512 * 1024;

/// Time for a client to send its body.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Answers every request.
pub(crate) async fn handle(request: HttpRequest, payload: web::Payload, service: web::Data<Service>) -> HttpResponse {
    let host = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or("");
    let Ok(_place) = service.requests.try_acquire() else {
        let mut response = error_response(&ServiceError::Throttled, None);
        if let Some((origin, Plane::Vault(_))) = domain::resolve(&service.config.clouds, host) {
            Exchange { request: &request, service: &service, origin }.add_headers(response.headers_mut());
        }
        return response;
    };
    let started = Instant::now();
    let (operation, response) = match domain::resolve(&service.config.clouds, host) {
        Some((origin, Plane::Vault(label))) => {
            let exchange = Exchange { request: &request, service: &service, origin };
            exchange.vault(&label, payload).await
        }
        Some((origin, Plane::Login)) => ("Token", identity::handle(&request, payload, &service, &origin).await),
        Some((origin, Plane::Management)) => {
            ("Management", management::handle(&request, payload, &service, &origin).await)
        }
        Some((origin, Plane::Graph)) => ("Graph", graph::handle(&request, payload, &service, &origin).await),
        None => ("Health", health(&request, &service).await),
    };
    let mut response = response;
    if service.is_draining() {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    let elapsed = started.elapsed();
    let status = response.status();
    service.metrics.requests.with_label_values(&[operation, status.as_str()]).inc();
    service.metrics.seconds.with_label_values(&[operation]).observe(elapsed.as_secs_f64());
    tracing::debug!(
        target: "claviger::request",
        operation,
        status = status.as_u16(),
        elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        host,
        path = request.path(),
        "request"
    );
    response
}

/// Health and nothing else, for hosts that are no part of the service: load balancers ask by address.
pub(crate) async fn health(request: &HttpRequest, service: &Service) -> HttpResponse {
    let text = |status: StatusCode, text: &'static str| {
        HttpResponse::build(status).content_type("text/plain; charset=utf-8").body(text)
    };
    match request.path() {
        "/healthz/live" => text(StatusCode::OK, "live\n"),
        "/healthz/ready" if service.is_ready().await => text(StatusCode::OK, "ready\n"),
        "/healthz/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        _ => text(StatusCode::MISDIRECTED_REQUEST, "this host name is no part of the service\n"),
    }
}

/// One request on the data plane.
struct Exchange<'a> {
    request: &'a HttpRequest,
    service: &'a Service,
    origin: Origin<'a>,
}

/// What headers tell of an answer beside what it says.
#[derive(Default)]
struct Seen {
    /// The role assignment that let the caller in.
    assignment: Option<Id128>,
    /// The log index that the answer was decided at, for audit.
    index: Option<u64>,
    /// How far behind it may be, where the read mode lets it.
    behind_ms: Option<u64>,
}

/// What an evaluation was.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// A look at the state: good only if the gate confirms it.
    Looked,
    /// A proposal, and the log index that it was decided at, where it was: an outcome is as it is.
    Proposed(Option<u64>),
}

/// How long a request waits in the gate, observed when the request ends.
struct Held<'a> {
    service: &'a Service,
    time: Duration,
}

impl<'a> Held<'a> {
    fn new(service: &'a Service) -> Self {
        Self { service, time: Duration::ZERO }
    }

    /// Counts the time that `gate` takes.
    async fn during<T>(&mut self, gate: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let result = gate.await;
        self.time += started.elapsed();
        result
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.service.metrics.read_hold.observe(self.time.as_secs_f64());
    }
}

/// A request that was understood.
struct Request<'a> {
    label: &'a str,
    vault: Id128,
    principal: &'a Arc<Principal>,
    matched: &'a route::Match,
    query: &'a str,
    version: ApiVersion,
}

impl Exchange<'_> {
    async fn vault(&self, label: &str, payload: web::Payload) -> (&'static str, HttpResponse) {
        let mut operation = "None";
        let mut seen = Seen::default();
        let result = self.answer(label, payload, &mut operation, &mut seen).await;
        let mut response = match result {
            Ok(reply) => {
                let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                match reply.body {
                    Some(body) => json(HttpResponse::build(status)).body(body),
                    None => HttpResponse::build(status).finish(),
                }
            }
            Err((error, challenge)) => {
                let mut response = error_response(&error, challenge);
                // Whoever repeats it under the same id gets the first outcome.
                if matches!(error, ServiceError::OutcomeUnknown) && self.client_id().is_some() {
                    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                }
                response
            }
        };
        self.add_headers(response.headers_mut());
        let mut add = |name: &'static str, value: Option<HeaderValue>| {
            if let Some(value) = value {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        };
        let assignment = seen.assignment.and_then(|id| HeaderValue::from_str(&id.guid()).ok());
        add("x-ms-keyvault-rbac-assignment-id", assignment);
        add("x-claviger-index", seen.index.map(HeaderValue::from));
        add("x-claviger-staleness-ms", seen.behind_ms.map(HeaderValue::from));
        pause::reach(Point::Rendered);
        (operation, response)
    }

    /// The headers of every answer (contract section 3).
    fn add_headers(&self, headers: &mut HeaderMap) {
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        set("cache-control", "no-cache");
        set("pragma", "no-cache");
        set("expires", "-1");
        set("x-ms-keyvault-region", &self.service.config.region);
        set("x-ms-keyvault-service-version", "1.9.0.0");
        set("strict-transport-security", "max-age=31536000;includeSubDomains");
        set("x-content-type-options", "nosniff");
        if let Some(peer) = self.request.peer_addr() {
            let (kind, family) = match peer {
                std::net::SocketAddr::V4(_) => ("Ipv4", "InterNetwork"),
                std::net::SocketAddr::V6(_) => ("Ipv6", "InterNetworkV6"),
            };
            let info = format!("conn_type={kind};addr={};act_addr_fam={family};", peer.ip());
            set("x-ms-keyvault-network-info", &info);
        }
        if let Ok(id) = fresh_id() {
            set("x-ms-request-id", &id.guid());
        }
        if let Some(id) = self.client_id() {
            set("x-ms-client-request-id", id);
        }
    }

    /// The id that the client gave the request; SDKs repeat it when they repeat the request.
    fn client_id(&self) -> Option<&str> {
        self.request.headers().get("x-ms-client-request-id").and_then(|id| id.to_str().ok())
    }

    /// Which verb is meant: clients behind old proxies tunnel it (contract section 1).
    fn method(&self) -> String {
        let method = self.request.method().as_str();
        let header = |name| self.request.headers().get(name).and_then(|value| value.to_str().ok());
        match header("x-http-method-override").or_else(|| header("x-http-request")) {
            Some(tunnelled) if method == "POST" => tunnelled.trim().to_ascii_uppercase(),
            _ => method.to_owned(),
        }
    }

    async fn answer(
        &self,
        label: &str,
        payload: web::Payload,
        operation: &mut &'static str,
        seen: &mut Seen,
    ) -> Result<Reply, (ServiceError, Option<String>)> {
        let plain = |error| (error, None);
        let vault = self.find_vault(label).await.map_err(plain)?;
        let now_ms = self.service.now_ms();
        let principal = self.principal(&vault, now_ms / 1000).await.map_err(|fault| self.challenge(&vault, fault))?;
        let query = self.request.query_string();
        let version = ApiVersion::parse(query_parameter(query, "api-version").as_deref()).map_err(plain)?;
        let matched = route::find(&self.method(), self.request.path()).map_err(plain)?;
        *operation = matched.op.name();
        let (limit, _place) = match matched.op {
            route::Op::KeyRestore | route::Op::SecretRestore => {
                let place = self.service.restores.try_acquire().map_err(|_| plain(ServiceError::Throttled))?;
                (ops::backup::RESTORE_BYTES_MAX, Some(place))
            }
            _ => (BODY_BYTES_MAX, None),
        };
        let body = read_body(payload, limit).await.map_err(plain)?;
        let gate = self.service.node.gate();
        let parts = matched.depends_on(vault.id);
        let mut reading = gate.read(&parts, Some(vault.id));
        let mut held = Held::new(self.service);
        loop {
            held.during(reading.begin()).await.map_err(|error| plain(error.into()))?;
            pause::reach(Point::Begun);
            let request = Request { label, vault: vault.id, principal: &principal, matched: &matched, query, version };
            let (result, fate) = self.evaluate(&request, &body, now_ms, &mut seen.assignment).await;
            pause::reach(Point::Evaluated);
            // An outcome is as it is. Everything else holds only if nothing has changed under it: the last step.
            let good = match fate {
                Fate::Proposed(_) => true,
                Fate::Looked => held.during(reading.confirm()).await.map_err(|error| plain(error.into()))?,
            };
            if good {
                pause::reach(Point::Confirmed);
                // It was found by what this node had applied before the gate: the name may have gone to another vault since.
                if matches!(result, Err((ServiceError::VaultNotFound(_), _))) && self.find_vault(label).await.is_ok() {
                    return Err(plain(NodeError::Unavailable("the vault's name has passed on").into()));
                }
                seen.index = match fate {
                    Fate::Proposed(index) => index,
                    Fate::Looked => Some(reading.index()),
                };
                seen.behind_ms = reading.behind_ms();
                return result;
            }
        }
    }

    /// Answers from what is here, between the two halves of the gate.
    async fn evaluate(
        &self,
        request: &Request<'_>,
        body: &[u8],
        now_ms: u64,
        assignment: &mut Option<Id128>,
    ) -> (Result<Reply, (ServiceError, Option<String>)>, Fate) {
        let plain = |error| (error, None);
        #[expect(clippy::result_large_err, reason = "once per request, and errors are the rare case")]
        let prepare = || {
            // Looked up again behind the gate: policies and settings may have changed on another node.
            let vault = self.service.vault_by_id(request.vault).map_err(plain)?;
            let vault = vault.ok_or_else(|| plain(ServiceError::VaultNotFound(request.label.to_owned())))?;
            // And whom the token speaks for may be gone.
            if !self.service.node.view(|view| request.principal.is_alive(view)).map_err(|error| plain(error.into()))? {
                return Err(self.challenge(&vault, TokenFault::Revoked));
            }
            self.firewall(&vault, request.principal).map_err(plain)?;
            Ok(vault)
        };
        let vault = match prepare() {
            Ok(vault) => vault,
            Err(error) => return (Err(error), Fate::Looked),
        };
        let render = Renderer { origin: self.origin.clone(), vault: &vault, version: request.version };
        let principal = request.principal.clone();
        match Call::authorize(self.service, render, principal, request.matched, request.query, body, now_ms) {
            Ok(call) => {
                *assignment = call.assignment();
                let call = call.known_as(self.client_id(), &self.method(), self.request.path());
                let result = ops::run(&call).await;
                (result.map_err(plain), if call.has_proposed() { Fate::Proposed(call.decided()) } else { Fate::Looked })
            }
            Err(error) => (Err(plain(error)), Fate::Looked),
        }
    }

    /// The vault's network settings. The service's own address on the way is the client's: there is no proxy in front
    /// of it that could be believed.
    fn firewall(&self, vault: &Vault, principal: &Principal) -> Result<(), ServiceError> {
        let settings = &vault.settings;
        let admitted = |address| settings.network.as_ref().is_none_or(|network| network.admits(address));
        let address = self.request.peer_addr().map(|peer| peer.ip().to_canonical());
        let caller = || {
            Box::new(Caller { app: principal.app.clone(), oid: principal.oid.guid(), issuer: principal.issuer.clone() })
        };
        let (name, region) = (vault.name.to_string(), vault.location.clone());
        if !settings.public_network_access {
            return Err(ServiceError::ForbiddenByConnection { caller: caller(), vault: name, region });
        }
        match address {
            Some(address) if admitted(address) => Ok(()),
            None if settings.network.as_ref().is_none_or(|network| network.allow_by_default) => Ok(()),
            _ => {
                let address = address.map_or_else(String::new, |address| address.to_string());
                Err(ServiceError::ForbiddenByFirewall { caller: caller(), address, vault: name, region })
            }
        }
    }

    async fn find_vault(&self, label: &str) -> Result<Vault, ServiceError> {
        let missing = || ServiceError::VaultNotFound(label.to_owned());
        let name = VaultName::parse(label).map_err(|_| missing())?;
        let look = || {
            let found = self.service.node.view(|view| read::vault_by_name(view, &name));
            found.map(|vault| vault.filter(|vault| vault.deletion.is_none()))
        };
        if let Some(vault) = look()? {
            return Ok(vault);
        }
        // It may have been made on another node a moment ago.
        self.service.node.gate().check().await?;
        let found = look()?;
        self.service.node.gate().settle().await?;
        found.ok_or_else(missing)
    }

    async fn principal(&self, vault: &Vault, now: u64) -> Result<Arc<Principal>, TokenFault> {
        let header = self.request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let (scheme, token) = header.and_then(|header| header.split_once(' ')).ok_or(TokenFault::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
            return Err(TokenFault::Missing);
        }
        let principal = self.service.principal(token.trim(), now).await?;
        if principal.is_external() {
            // What its token is for was compared with what the operator says.
            if principal.tenant == vault.tenant {
                return Ok(principal);
            }
            let expected = self.origin.issuer(&vault.tenant.guid());
            return Err(TokenFault::Issuer { expected, found: principal.issuer.clone() });
        }
        if self.origin.resource(&principal.audience) != Some(Resource::Vault) {
            let (expected, found) = (self.origin.vault_resource(), principal.audience.clone());
            return Err(TokenFault::Audience { expected, found });
        }
        let expected = self.origin.issuer(&vault.tenant.guid());
        if principal.tenant != vault.tenant || principal.issuer != expected {
            return Err(TokenFault::Issuer { expected, found: principal.issuer.clone() });
        }
        Ok(principal)
    }

    /// The 401 with its challenge, in the exact grammar of contract section 2.
    fn challenge(&self, vault: &Vault, fault: TokenFault) -> (ServiceError, Option<String>) {
        // Another token would not help.
        if fault == TokenFault::KeysUnavailable {
            return (ServiceError::Token(fault), None);
        }
        let challenge = format!(
            "Bearer authorization=\"{}/{}\", resource=\"{}\"",
            self.origin.login_base(),
            vault.tenant.guid(),
            self.origin.vault_resource()
        );
        (ServiceError::Token(fault), Some(challenge))
    }
}

fn json(mut builder: HttpResponseBuilder) -> HttpResponseBuilder {
    builder.content_type("application/json; charset=utf-8");
    builder
}

/// The contract's error envelope.
pub(crate) fn error_response(error: &ServiceError, challenge: Option<String>) -> HttpResponse {
    let (status, envelope) = error.to_wire();
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut builder = json(HttpResponse::build(status));
    if let Some(seconds) = error.retry_after() {
        builder.insert_header(("retry-after", seconds.to_string()));
    }
    if let Some(challenge) = challenge {
        builder.insert_header(("www-authenticate", challenge));
    }
    builder.json(envelope)
}

/// Reads a body of bounded size in bounded time.
pub(crate) async fn read_body(
    mut payload: web::Payload,
    limit: usize,
) -> Result<zeroize::Zeroizing<Vec<u8>>, ServiceError> {
    let whole = async {
        let mut body = zeroize::Zeroizing::new(Vec::new());
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| ServiceError::MalformedBody)?;
            if body.len() + chunk.len() > limit {
                return Err(ServiceError::BodyTooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    };
    tokio::time::timeout(BODY_TIME, whole).await.unwrap_or(Err(ServiceError::MalformedBody))
}
