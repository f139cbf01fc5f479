//! `claviger dev`: one node, nothing to configure.
//!
//! Below the data directory: `world.key` (everything else is sealed under it), `ca.pem` for clients, `dev.sealed` (the
//! authority's and the server's keys, and the first application's credentials), `node/` with the stores, `az/` for `az`, and,
//! while a server runs, `run.json` with its addresses.

use crate::cli::{say, DevArgs};
use crate::harden::{self, DirLock};
use crate::pki::{self, Authority, Usage};
use crate::serve::{authorities, listen, open_storage, self_test, server_tls, start_timers, stop_signal};
use crate::world::{self, Protection, Unseal, World};
use crate::{connect_proxy, exec, issuers};
use anyhow::{bail, ensure, Context, Result};
use claviger_api::domain::Cloud;
use claviger_api::sealing::Sealer;
use claviger_api::{
    fresh_id, serve, serve_admin, serve_managed_identities, Assigned, Clock, ManagedIdentities, ServeConfig, Service,
    ServiceConfig, Welcome,
};
use claviger_crypto::provider::default_provider;
use claviger_node::{Node, NodeConfig, Peers};
use claviger_types::command::SetReads;
use claviger_types::name::{Id128, VaultName};
use claviger_types::reads::{ReadMode, ReadTiming};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use zeroize::Zeroizing;

/// Region name in answers.
const REGION: &str = "local";

/// What the sealed file is sealed as.
const SEALED_AS: &str = "dev";

/// Connections at once: a laptop's test suite opens dozens.
const CONNECTIONS_MAX: usize = 1024;

/// What a running server tells `exec`; nothing secret.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Process id.
    pub(crate) pid: u32,
    /// HTTPS.
    pub(crate) listen: SocketAddr,
    /// The CONNECT endpoint.
    pub(crate) proxy: SocketAddr,
    /// Health and metrics, plain HTTP.
    pub(crate) admin: SocketAddr,
    /// Managed identities, plain HTTP, where they are on.
    #[serde(default)]
    pub(crate) managed_identity: Option<SocketAddr>,
}

/// The file with the header of the App Service shape, made anew at each start.
const IDENTITY_HEADER: &str = "identity-header";

/// What the sealed file holds.
#[derive(Serialize, Deserialize)]
struct Sealed {
    authority_pem: String,
    authority_key_pem: Zeroizing<String>,
    server_chain_pem: String,
    server_key_pem: Zeroizing<String>,
    /// The first tenant, application and vaults.
    welcome: Welcome,
    /// Whether they are made; a start that was cut off goes on from the same plan.
    set_up: bool,
}

/// Where everything is kept unless said otherwise.
pub(crate) fn default_dir() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = match (set("XDG_DATA_HOME"), set("HOME")) {
        (Some(data), _) => data,
        (None, Some(home)) => home.join(".local/share"),
        (None, None) => bail!("no home directory: say where with --data-dir"),
    };
    Ok(base.join("claviger").join("dev"))
}

/// The files of one dev server.
struct Files {
    dir: PathBuf,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn world(&self) -> Result<World> {
        let path = self.path("world.key");
        if path.exists() {
            World::open(&path, &Unseal::File)
        } else {
            ensure!(
                !self.path("node").exists(),
                "`{}` is missing: without it this data cannot be read",
                path.display()
            );
            world::create(&path, REGION, &Protection::File)
        }
    }

    fn read_sealed(&self, sealer: &Sealer) -> Result<Option<Sealed>> {
        let path = self.path("dev.sealed");
        if !path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let plain = sealer.open_own(SEALED_AS, SEALED_AS, &bytes);
        let plain = plain.with_context(|| format!("`{}` does not belong to this world key", path.display()))?;
        serde_json::from_slice(plain.expose()).map(Some).context("`dev.sealed` is of another release")
    }

    fn write_sealed(&self, sealer: &Sealer, sealed: &Sealed) -> Result<()> {
        let plain = Zeroizing::new(serde_json::to_vec(sealed)?);
        let bytes = sealer.seal_own(SEALED_AS, SEALED_AS, &plain)?;
        replace(&self.path("dev.sealed"), &bytes)
    }
}

/// Replaces a file's contents, durably and at once.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let what = || format!("cannot write `{}`", path.display());
    let fresh = path.with_extension("new");
    // What a start that was cut off has left over.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(what),
        _ => {}
    }
    harden::write_new(&fresh, 0o600, bytes)?;
    std::fs::rename(&fresh, path).with_context(what)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).with_context(what)
}

fn new_sealed(vaults: &[VaultName]) -> Result<Sealed> {
    let authority = Authority::create("Claviger dev")?;
    let (names, addresses) = pki::dev_names();
    let issued = authority.issue(&names, &addresses, Usage::Server)?;
    Ok(Sealed {
        authority_pem: authority.certificate_pem().to_owned(),
        authority_key_pem: authority.expose_key_pem(),
        server_chain_pem: issued.chain_pem,
        server_key_pem: issued.key_pem,
        welcome: Service::plan(vaults).map_err(service_error)?,
        set_up: false,
    })
}

/// A new server certificate where the old one has less than a month to live, or lacks names that this release serves.
fn renew(sealed: &mut Sealed) -> Result<bool> {
    let (names, addresses) = pki::dev_names();
    let inspected = pki::inspect(&sealed.server_chain_pem)?;
    let month = 30 * 86_400;
    let now = i64::try_from(claviger_api::now_ms() / 1000).unwrap_or(i64::MAX);
    if inspected.not_after - now > month && names.iter().all(|name| inspected.names.contains(name)) {
        return Ok(false);
    }
    let authority = Authority::load(&sealed.authority_pem, &sealed.authority_key_pem)?;
    let issued = authority.issue(&names, &addresses, Usage::Server)?;
    sealed.server_chain_pem = issued.chain_pem;
    sealed.server_key_pem = issued.key_pem;
    Ok(true)
}

/// Runs until a signal.
pub(crate) async fn run(args: DevArgs) -> Result<()> {
    self_test()?;
    let vaults: Vec<VaultName> = match args.vaults.is_empty() {
        true => vec![VaultName::parse("demo").context("the default name")?],
        false => args
            .vaults
            .iter()
            .map(|name| {
                VaultName::parse(name).ok().with_context(|| {
                    format!(
                        "`{name}` is not a vault's name: 3 to 24 letters, digits and dashes, a letter first, no `--`"
                    )
                })
            })
            .collect::<Result<_>>()?,
    };
    let dir = match args.data_dir {
        Some(dir) => dir,
        None => default_dir()?,
    };
    harden::private_dir(&dir)?;
    let dir = dir.canonicalize().with_context(|| format!("cannot find `{}`", dir.display()))?;
    let _lock = DirLock::acquire(&dir)?;
    let files = Files { dir: dir.clone() };
    let world = files.world()?;
    let sealer = Sealer::new(world.id, world.key);
    let mut sealed = match files.read_sealed(&sealer)? {
        Some(mut sealed) => {
            if renew(&mut sealed)? {
                files.write_sealed(&sealer, &sealed)?;
            }
            sealed
        }
        None => {
            let sealed = new_sealed(&vaults)?;
            files.write_sealed(&sealer, &sealed)?;
            sealed
        }
    };
    replace(&files.path("ca.pem"), sealed.authority_pem.as_bytes())?;

    let tls = server_tls(sealed.server_chain_pem.as_bytes(), sealed.server_key_pem.as_bytes())?;
    let api = listen(args.listen, "--listen")?;
    let api_address = api.local_addr()?;
    let loopback = |port: u16| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let admin = listen(loopback(0), "health and metrics")?;
    let admin_address = admin.local_addr()?;
    let proxy = tokio::net::TcpListener::from_std(listen(loopback(0), "the CONNECT endpoint")?)?;
    let proxy_address = proxy.local_addr()?;

    let managed = args.managed_identity.then(|| listen(loopback(0), "managed identities")).transpose()?;
    let managed_address = managed.as_ref().map(std::net::TcpListener::local_addr).transpose()?;
    let issuers = match &args.issuers {
        Some(path) => issuers::from_file(path)?,
        None => Vec::new(),
    };

    let storage = open_storage(&files.path("node")).await?;
    let peers = Peers::new(world.id, 1, "dev".into(), None);
    let node = Node::start(node_config(&world.id), storage, peers).await.context("cannot start the node")?;
    let clock = Clock::default();
    clock.forward(Duration::from_secs(args.clock_ahead_days * 86_400));
    let for_node = clock.clone();
    node.set_clock(move || for_node.now_ms());
    let config = ServiceConfig {
        clouds: vec![Cloud::public(), Cloud::china(), Cloud::us_government(), Cloud::own("localhost")],
        region: REGION.into(),
        hsm_in_software: true,
        authorities: authorities(&args.authorities)?,
        clock,
        policies_where_rbac_is_asked: args.policies_where_rbac_is_asked,
        approvers: Vec::new(),
        reads: SetReads { mode: ReadMode::Lease, timing: ReadTiming::default() },
        sign_in_base: Some(format!("https://login.localhost:{}", api_address.port())),
        issuers,
    };
    let service = Arc::new(Service::new(node.clone(), sealer, default_provider(), config));
    if !node.is_initialized().await.context("cannot start the node")? {
        node.initialize().await.context("cannot start the node")?;
    }
    node.elect_if_alone().await.context("cannot start the node")?;
    node.gate().check().await.context("cannot start the node")?;
    if sealed.set_up {
        service.ensure_vaults(&vaults, &sealed.welcome.client_id).await.map_err(service_error)?;
    } else {
        service.set_up(&sealed.welcome).await.map_err(service_error)?;
        sealed.set_up = true;
        let bytes = service.seal_own(SEALED_AS, &Zeroizing::new(serde_json::to_vec(&sealed)?))?;
        replace(&files.path("dev.sealed"), &bytes)?;
    }
    let first = Id128::parse_guid(&sealed.welcome.client_id).ok().context("`dev.sealed` is damaged")?;
    drop(sealed);

    let mut timers = start_timers(&service);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let https = serve(service.clone(), ServeConfig { listener: api, tls, workers, connections_max: CONNECTIONS_MAX })?;
    let http = serve_admin(service.clone(), admin)?;
    let managed = match managed {
        Some(listener) => {
            let header = Zeroizing::new(fresh_id()?.hex());
            replace(&files.path(IDENTITY_HEADER), header.as_bytes())?;
            let identities = ManagedIdentities { system: Some(first), user: Assigned::Any, header: Some(header) };
            Some(serve_managed_identities(service, identities, listener)?)
        }
        None => None,
    };
    let managed_handle = managed.as_ref().map(actix_web::dev::Server::handle);
    let managed = managed.map(tokio::spawn);
    let (https_handle, http_handle) = (https.handle(), http.handle());
    let https = tokio::spawn(https);
    let http = tokio::spawn(http);
    let target = match api_address.ip().is_unspecified() {
        true => loopback(api_address.port()),
        false => api_address,
    };
    let (stop_proxy, proxy_stopped) = tokio::sync::oneshot::channel::<()>();
    let proxy_task = tokio::spawn(connect_proxy::serve(proxy, target, async {
        proxy_stopped.await.ok();
    }));
    let running = Running {
        pid: std::process::id(),
        listen: api_address,
        proxy: proxy_address,
        admin: admin_address,
        managed_identity: managed_address,
    };
    replace(&files.path("run.json"), &serde_json::to_vec_pretty(&running)?)?;
    greet(&dir, &running, &vaults);

    let stdin_ends = async {
        if args.until_stdin_ends {
            let mut byte = [0];
            while matches!(tokio::io::stdin().read(&mut byte).await, Ok(read) if read > 0) {}
        } else {
            std::future::pending::<()>().await;
        }
    };
    let result = tokio::select! {
        stopped = stop_signal() => stopped,
        () = stdin_ends => Ok(()),
        why = node.stopped() => Err(anyhow::anyhow!("the node has stopped: {why}")),
    };
    std::fs::remove_file(files.path("run.json")).ok();
    https_handle.stop(!args.until_stdin_ends).await;
    stop_proxy.send(()).ok();
    http_handle.stop(false).await;
    if let Some(handle) = managed_handle {
        handle.stop(false).await;
    }
    timers.abort_all();
    node.shutdown().await;
    https.await.ok();
    http.await.ok();
    proxy_task.await.ok();
    if let Some(managed) = managed {
        managed.await.ok();
    }
    result
}

fn service_error(error: claviger_api::error::ServiceError) -> anyhow::Error {
    anyhow::anyhow!("{}", error.to_wire().1.error.message)
}

fn greet(dir: &Path, running: &Running, vaults: &[VaultName]) {
    let names: Vec<&str> = vaults.iter().map(VaultName::as_str).collect();
    let exec = match default_dir().ok().and_then(|default| default.canonicalize().ok()) {
        Some(default) if default == dir => "claviger exec".to_owned(),
        _ => format!("claviger exec --data-dir {}", dir.display()),
    };
    // In one piece: whoever waits for the first line has the others, too.
    say(&format!(
        "ready  https://{}  vaults {}  data {}\n\
         next   {exec} -- python your_program.py    (vault URL https://{}.vault.azure.net)\n\
         note   for development: one node, and -HSM kinds of keys are held in software",
        running.listen,
        names.join(", "),
        dir.display(),
        names.first().copied().unwrap_or_default()
    ));
}

fn node_config(world: &claviger_types::name::Id128) -> NodeConfig {
    NodeConfig {
        id: 1,
        name: "dev".into(),
        advertise: "127.0.0.1:0".into(),
        world: *world,
        heartbeat_ms: 50,
        election_min_ms: 150,
        election_max_ms: 300,
        snapshot_entries: 50_000,
        keep_entries: 10_000,
    }
}

/// The running server of a directory, if there is one.
pub(crate) fn running(dir: &Path) -> Result<Option<Running>> {
    if !dir.join("run.json").exists() {
        return Ok(None);
    }
    // Whoever holds the lock runs; a file without a lock is what a killed server left.
    if DirLock::acquire(dir).is_ok() {
        return Ok(None);
    }
    let bytes = std::fs::read(dir.join("run.json")).context("cannot read `run.json`")?;
    serde_json::from_slice(&bytes).map(Some).context("`run.json` is malformed")
}

/// The environment for programs that meet the running server of a directory.
pub(crate) fn environment(dir: &Path, running: &Running, how: exec::SignIn) -> Result<exec::Environment> {
    let files = Files { dir: dir.canonicalize().context("cannot find the data directory")? };
    let world = files.world()?;
    let sealer = Sealer::new(world.id, world.key);
    let sealed = files.read_sealed(&sealer)?.context("the data directory is not set up")?;
    let welcome = &sealed.welcome;
    Ok(exec::Environment {
        proxy: running.proxy,
        ca_bundle: files.path("ca.pem"),
        tenant: welcome.tenant_id.clone(),
        client_id: welcome.client_id.clone(),
        client_secret: Zeroizing::new(welcome.client_secret.clone()),
        subscription: welcome.subscription_id.clone(),
        vault: welcome.vaults.first().cloned().unwrap_or_default(),
        az_config_dir: Some(files.path("az")),
        identity: match how {
            exec::SignIn::Secret => None,
            exec::SignIn::Managed(shape) => {
                let endpoint = running.managed_identity.context(
                    "this dev server has no managed identities: start it with `claviger dev --managed-identity`",
                )?;
                let header = harden::read_private(&files.path(IDENTITY_HEADER))?;
                let header = std::str::from_utf8(&header).context("`identity-header` is damaged")?;
                Some(exec::ManagedIdentity { shape, endpoint, header: Zeroizing::new(header.to_owned()) })
            }
        },
    })
}
