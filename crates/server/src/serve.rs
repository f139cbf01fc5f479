//! Wiring of a node: what `claviger server` runs, and the parts that `dev` shares.

use crate::config::{identity_header, AuthorityFile, Config, ManagedIdentitySection};
use crate::harden::{self, DirLock};
use crate::world::World;
use anyhow::{anyhow, Context, Result};
use claviger_api::attestation::Authority;
use claviger_api::domain::Cloud;
use claviger_api::sealing::Sealer;
use claviger_api::{
    fresh_id, run_scheduler, serve, serve_admin, serve_managed_identities, Assigned, Clock, ManagedIdentities,
    ServeConfig, Service, ServiceConfig,
};
use claviger_crypto::provider::default_provider;
use claviger_crypto::selftest;
use claviger_node::{peer, run_erasure, run_timers, Identity, Node, NodeConfig, Peers, Storage};
use claviger_types::command::SetReads;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{signal, SignalKind};

/// A world's own key is called by the purpose in the data directory.
pub(crate) fn listen(address: SocketAddr, what: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on `{address}` ({what})"))?;
    listener.set_nonblocking(true).context("cannot set up the listener")?;
    Ok(listener)
}

/// TLS for clients: 1.2 and 1.3 (contract section 1).
pub(crate) fn server_tls(chain_pem: &[u8], key_pem: &[u8]) -> Result<rustls::ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(chain_pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|e| anyhow!("the certificate is not PEM: {e}"))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| anyhow!("the key is not a PEM private key"))?;
    rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the certificate and its key do not go together")
}

/// Refuses to start on a processor or a build that computes wrongly.
pub(crate) fn self_test() -> Result<()> {
    selftest::run().context("the cryptographic self-test failed; this machine must not serve keys")
}

/// How long a stopping node goes on answering, each answer closing its connection: a busy client has sent its next request
/// by then.
const DRAIN: Duration = Duration::from_millis(500);

/// Waits for SIGTERM or SIGINT.
pub(crate) async fn stop_signal() -> Result<()> {
    let mut term = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// Opens the stores off the runtime: recovery reads from disk.
pub(crate) async fn open_storage(dir: &Path) -> Result<Storage> {
    let dir = dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || Storage::open(&dir)).await.context("opening the stores")?;
    opened.context("cannot open the stores")
}

/// Starts the work that the service does by itself; it ends with the value.
pub(crate) fn start_timers(service: &Arc<Service>) -> tokio::task::JoinSet<()> {
    let node = service.node().clone();
    let for_timers = service.clone();
    let mut timers = tokio::task::JoinSet::new();
    // Without randomness there is no request id, and the same id would be a retry: the next tick tries again.
    timers.spawn(run_timers(node.clone(), move || for_timers.now_ms(), || fresh_id().ok()));
    timers.spawn(run_erasure(node));
    timers.spawn(run_scheduler(service.clone()));
    timers
}

/// `claviger server`.
pub(crate) async fn run(config: Config) -> Result<()> {
    self_test()?;
    harden::private_dir(&config.node.data_dir)?;
    let _lock = DirLock::acquire(&config.node.data_dir)?;
    let world = World::open(&config.world.file, &config.world.unseal)?;
    let chain = std::fs::read(&config.api.certificate).context("cannot read the API certificate")?;
    let tls = server_tls(&chain, &harden::read_private(&config.api.key)?)?;
    let api = listen(config.api.listen, "api.listen")?;
    let admin = listen(config.admin.listen, "admin.listen")?;
    let managed = config.managed_identity.as_ref();
    let managed = managed.map(|section| listen(section.listen, "managed_identity.listen")).transpose()?;
    let peer_listener = tokio::net::TcpListener::from_std(listen(config.peer.listen, "peer.listen")?)?;
    let identity = identity(&config)?;

    let storage = open_storage(&config.node.data_dir).await?;
    let peers = Peers::new(world.id, config.node.id, config.node.name.clone(), Some(identity.clone()));
    let node = Node::start(node_config(&config, &world), storage, peers).await.context("cannot start the node")?;
    let clock = Clock::default();
    let for_node = clock.clone();
    node.set_clock(move || for_node.now_ms());
    let service_config = ServiceConfig {
        clouds: vec![Cloud::own(&config.api.domain)],
        region: world.region.clone(),
        hsm_in_software: false,
        authorities: authorities(&config.attestation.authorities)?,
        clock,
        policies_where_rbac_is_asked: config.api.policies_where_rbac_is_asked,
        approvers: config.emergency.load()?,
        reads: SetReads { mode: config.read.mode, timing: config.read.timing },
        sign_in_base: None,
        issuers: config.identity.issuers.clone(),
    };
    let service =
        Arc::new(Service::new(node.clone(), Sealer::new(world.id, world.key), default_provider(), service_config));
    let for_admin = service.clone();
    node.set_service(move |request| {
        let service = for_admin.clone();
        async move { service.admin(&request).await }
    });
    let peer_task = tokio::spawn(peer::serve(peer_listener, identity, node.clone()));
    let mut timers = start_timers(&service);
    let workers = match config.api.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let connections_max = config.api.max_connections;
    let https = serve(service.clone(), ServeConfig { listener: api, tls, workers, connections_max })?;
    let http = serve_admin(service.clone(), admin)?;
    let managed = match (&config.managed_identity, managed) {
        (Some(section), Some(listener)) => {
            Some(serve_managed_identities(service.clone(), identities(section)?, listener)?)
        }
        _ => None,
    };
    let managed_handle = managed.as_ref().map(actix_web::dev::Server::handle);
    let managed = managed.map(tokio::spawn);
    let (https_handle, http_handle) = (https.handle(), http.handle());
    let https = tokio::spawn(https);
    let http = tokio::spawn(http);
    node.elect_if_alone().await.context("cannot start the node")?;
    tracing::info!(
        node_id = config.node.id,
        api = %config.api.listen,
        peer = %config.peer.listen,
        admin = %config.admin.listen,
        world = %world.id.guid(),
        "serving"
    );
    crate::cli::say(&format!("ready  node {} on {}  domain {}", config.node.id, config.api.listen, config.api.domain));

    let result = tokio::select! {
        stopped = stop_signal() => stopped,
        why = node.stopped() => Err(anyhow!("the node has stopped taking part: {why}")),
    };
    // Leadership and lease first, so that others write while we drain and nobody waits for us; then time for balancers and clients to go elsewhere.
    service.drain();
    node.step_down().await;
    node.resign().await;
    tokio::time::sleep(DRAIN).await;
    https_handle.stop(true).await;
    http_handle.stop(false).await;
    if let Some(handle) = managed_handle {
        handle.stop(false).await;
    }
    timers.abort_all();
    node.shutdown().await;
    peer_task.abort();
    https.await.ok();
    http.await.ok();
    if let Some(managed) = managed {
        managed.await.ok();
    }
    result
}

/// Who programs on this machine may be.
fn identities(section: &ManagedIdentitySection) -> Result<ManagedIdentities> {
    let header = section.header_file.as_deref().map(identity_header).transpose();
    let header = header.context("`managed_identity.header_file` cannot be used")?;
    Ok(ManagedIdentities { system: section.system, user: Assigned::These(section.user.clone()), header })
}

/// The attestation authorities of the configuration, with their keys.
pub(crate) fn authorities(named: &[AuthorityFile]) -> Result<Vec<Authority>> {
    let load = |named: &AuthorityFile| {
        let what = || format!("cannot use `{}` as the keys of `{}`", named.jwks.display(), named.issuer);
        let jwks = std::fs::read(&named.jwks).with_context(what)?;
        Authority::from_jwks(&named.issuer, &jwks).map_err(|why| anyhow!(why)).with_context(what)
    };
    named.iter().map(load).collect()
}

/// The node's certificate among its peers.
pub(crate) fn identity(config: &Config) -> Result<Identity> {
    let authority = std::fs::read(&config.peer.ca).context("cannot read `peer.ca`")?;
    let certificate = std::fs::read(&config.peer.certificate).context("cannot read `peer.certificate`")?;
    let key = harden::read_private(&config.peer.key)?;
    Identity::from_pem(&authority, &certificate, &key).context("the peer certificate cannot be used")
}

fn node_config(config: &Config, world: &World) -> NodeConfig {
    NodeConfig {
        id: config.node.id,
        name: config.node.name.clone(),
        advertise: config.peer.advertise.as_str().to_owned(),
        world: world.id,
        heartbeat_ms: config.raft.heartbeat_ms,
        election_min_ms: config.raft.election_min_ms,
        election_max_ms: config.raft.election_max_ms,
        snapshot_entries: config.raft.snapshot_entries,
        keep_entries: config.raft.keep_entries,
    }
}
