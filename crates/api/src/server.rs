//! Starting the HTTP servers.

use crate::http::{handle, health};
use crate::service::Service;
use actix_web::dev::Server;
use actix_web::{web, App, HttpRequest, HttpResponse, HttpServer};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

/// Settings of the HTTPS server.
pub struct ServeConfig {
    /// Where it listens.
    pub listener: TcpListener,
    /// Certificate and key.
    pub tls: rustls::ServerConfig,
    /// Threads that serve; each runs short cryptography inline.
    pub workers: usize,
    /// Connections at once, over all workers.
    pub connections_max: usize,
}

/// How long an idle connection is kept: longer than the pools of SDKs keep theirs, so that they close first.
const KEEP_ALIVE: Duration = Duration::from_secs(120);

/// Time for a client to send the head of a request.
const HEAD: Duration = Duration::from_secs(10);

/// Time for requests under way when the server stops.
const DRAIN_SECONDS: u64 = 10;

/// The HTTPS server of all planes. Signals are the caller's.
pub fn serve(service: Arc<Service>, config: ServeConfig) -> io::Result<Server> {
    let data = web::Data::from(service);
    let workers = config.workers.max(1);
    let server = HttpServer::new(move || App::new().app_data(data.clone()).default_service(web::to(handle)))
        .workers(workers)
        .max_connections(config.connections_max.div_ceil(workers))
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD)
        .shutdown_timeout(DRAIN_SECONDS)
        .disable_signals()
        .listen_rustls_0_23(config.listener, config.tls)?;
    Ok(server.run())
}

/// The plain HTTP server for operators: health and metrics. For loopback, or a network of one's own.
pub fn serve_admin(service: Arc<Service>, listener: TcpListener) -> io::Result<Server> {
    async fn answer(request: HttpRequest, service: web::Data<Service>) -> HttpResponse {
        match request.path() {
            "/metrics" => HttpResponse::Ok()
                .content_type("text/plain; version=0.0.4; charset=utf-8")
                .body(service.metrics.render(&service)),
            path if path.starts_with("/healthz/") => health(&request, &service).await,
            #[cfg(feature = "pause-points")]
            path if path.starts_with("/pause/") => {
                let local = request.peer_addr().is_some_and(|peer| peer.ip().is_loopback());
                match path.strip_prefix("/pause/") {
                    Some(point) if local && crate::pause::arm(point) => HttpResponse::NoContent().finish(),
                    _ => HttpResponse::NotFound().finish(),
                }
            }
            _ => HttpResponse::NotFound().content_type("text/plain; charset=utf-8").body("no such path\n"),
        }
    }
    let data = web::Data::from(service);
    let server = HttpServer::new(move || App::new().app_data(data.clone()).default_service(web::to(answer)))
        .workers(1)
        .max_connections(64)
        .shutdown_timeout(1)
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}
