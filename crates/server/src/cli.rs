//! The command line.

use crate::identity::IdentityCommand;
use crate::world::PassphraseSource;
use crate::{cluster, config, dev, exec, harden, logging, serve, throwaway, world};
use anyhow::{bail, Context, Result};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A highly available key-management service that speaks the Azure Key Vault REST API.
///
/// On a laptop: `claviger dev`, then `claviger exec -- python program.py`. Three nodes: see cluster-config/README.md.
#[derive(Parser)]
#[command(
    name = "claviger",
    version,
    about = "A highly available key-management service that speaks the Azure Key Vault REST API",
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Top,
}

#[derive(Subcommand)]
enum Top {
    /// One node, nothing to configure: makes keys, a tenant, an application and a vault, and serves.
    Dev(DevArgs),
    /// Run a program against the dev server, in the environment that Azure clients look at.
    Exec(ExecArgs),
    /// A node of a cluster.
    Server(ConfigArg),
    /// The security world: the key that everything is sealed under.
    #[command(subcommand)]
    World(WorldCommand),
    /// The members of a cluster.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Vaults of a cluster.
    #[command(subcommand)]
    Vault(VaultCommand),
    /// Applications, users and groups of a cluster.
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// A node's configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Args)]
pub(crate) struct DevArgs {
    /// Where everything is kept [default: a folder of its own under the user's data directory].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where HTTPS is served.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443")]
    pub(crate) listen: SocketAddr,
    /// A vault to make; may be repeated [default: demo].
    #[arg(long = "vault", value_name = "NAME")]
    pub(crate) vaults: Vec<String>,
    /// Give new vaults access policies although role-based access is asked for: az 2.61 and later ask for that, and
    /// then refuse `az keyvault set-policy`. The other way is `--enable-rbac-authorization false`.
    #[arg(long)]
    pub(crate) policies_where_rbac_is_asked: bool,
    /// Believe an attestation authority about environments that keys are released to, by a file with its signing keys
    /// (JWKS); may be repeated.
    #[arg(long = "attestation-authority", value_name = "URL=FILE", value_parser = config::AuthorityFile::parse)]
    pub(crate) authorities: Vec<config::AuthorityFile>,
    /// Believe other issuers of tokens, by a file with an `[[issuers]]` table for each, whose members are those of
    /// identity.issuers in `claviger config default`.
    #[arg(long, value_name = "FILE")]
    pub(crate) issuers: Option<PathBuf>,
    /// Give tokens to every program on this machine, without credentials: the first application's to those that name
    /// none, another application's to those that name it. See `claviger exec --managed-identity`.
    #[arg(long)]
    pub(crate) managed_identity: bool,
    /// Log level: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "warn", value_parser = config::LEVELS.to_vec())]
    pub(crate) log_level: String,
    /// Stop when standard input ends: how `claviger exec` ties its server to itself.
    #[arg(long, hide = true)]
    pub(crate) until_stdin_ends: bool,
    /// Days by which the clock is ahead: how tests see what the service does months from now. There is no way back for
    /// a data directory, whose time never runs backwards.
    #[arg(long, hide = true, value_name = "DAYS", default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(0..=36_500))]
    pub(crate) clock_ahead_days: u64,
}

#[derive(Args)]
struct ExecArgs {
    /// The dev server's directory. Without a running server there, one is started for the time of the command; without
    /// this option and without a running server in the default place, a throw-away one is.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Give the program a managed identity in place of a client secret, as a virtual machine has one (`imds`) or App
    /// Service (`app-service`).
    #[arg(long, value_name = "SHAPE", num_args = 0..=1, default_missing_value = "imds", require_equals = true)]
    managed_identity: Option<exec::Shape>,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Args)]
pub(crate) struct ConfigArg {
    /// The node's configuration.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Subcommand)]
enum WorldCommand {
    /// Make a new world: its key, and certificates for nodes and API. Nothing that exists is overwritten.
    Init {
        /// Where to write.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Region name that answers show.
        #[arg(long, default_value = "local")]
        region: String,
        /// Domain below which `vault`, `login`, `management` and `graph` lie.
        #[arg(long, default_value = "kms.localhost")]
        domain: String,
        /// A node to make a certificate for; repeat.
        #[arg(long = "node", value_name = "NAME", required = true)]
        nodes: Vec<String>,
        /// Seal the world key under the passphrase in this environment variable.
        #[arg(long, value_name = "NAME")]
        passphrase_env: Option<String>,
        /// Seal the world key under the passphrase in this file.
        #[arg(long, value_name = "FILE", conflicts_with = "passphrase_env")]
        passphrase_file: Option<PathBuf>,
        /// Seal the world key under a passphrase from standard input.
        #[arg(long, conflicts_with_all = ["passphrase_env", "passphrase_file"])]
        passphrase_stdin: bool,
    },
    /// Make certificates from a world's authorities: for another node, or in place of those that end. Nothing that exists is
    /// overwritten.
    Certificate {
        /// Where `world init` wrote: `peer-ca.pem` and `peer-ca.key`, `api-ca.pem` and `api-ca.key`.
        #[arg(long, value_name = "DIR")]
        secrets: PathBuf,
        /// Where to write.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// A node to make a certificate for; repeat.
        #[arg(long = "node", value_name = "NAME", required_unless_present = "domain")]
        nodes: Vec<String>,
        /// The domain of the API to make a certificate for.
        #[arg(long)]
        domain: Option<String>,
    },
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// Make the cluster: this node becomes its first member. Once, on one node. Prints the first credentials as JSON.
    Init {
        #[command(flatten)]
        config: ConfigArg,
        /// A vault to make; repeat.
        #[arg(long = "vault", value_name = "NAME", default_value = "demo")]
        vaults: Vec<String>,
    },
    /// Add this node to the cluster that its seeds belong to, and wait until it votes.
    Join(ConfigArg),
    /// Show every node: role, term, indexes, audit chain.
    Status {
        #[command(flatten)]
        config: ConfigArg,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove a node.
    Remove {
        #[command(flatten)]
        config: ConfigArg,
        /// Its id.
        #[arg(long, value_name = "ID")]
        node: u64,
    },
    /// Hand the leadership to a node.
    TransferLeader {
        #[command(flatten)]
        config: ConfigArg,
        /// Its id.
        #[arg(long, value_name = "ID")]
        to: u64,
    },
    /// Change how reads are made, for the world or for one vault.
    ReadMode {
        #[command(flatten)]
        config: ConfigArg,
        /// `lease`, `read_index` or `bounded`; for a vault also `world`.
        mode: String,
        /// How far behind an answer may be, in milliseconds, for `bounded`.
        #[arg(long, value_name = "MS")]
        bound_ms: Option<u32>,
        /// How long a lease is, in milliseconds.
        #[arg(long, value_name = "MS")]
        lease_ms: Option<u32>,
        /// How much the rates of two clocks may differ, in millionths.
        #[arg(long, value_name = "PPM")]
        rho_ppm: Option<u32>,
        /// Allowance for reading clocks, in milliseconds.
        #[arg(long, value_name = "MS")]
        eps_ms: Option<u32>,
        /// Only this vault, which may be stricter than the world.
        #[arg(long, value_name = "NAME", conflicts_with_all = ["lease_ms", "rho_ppm", "eps_ms"])]
        vault: Option<String>,
    },
    /// Let this node answer reads without a majority, late by a bound: first without files, which prints the statement that
    /// an approver has to sign (`openssl dgst -sha256 -sign approver.key FILE | base64 -w0`), then with both.
    Emergency {
        #[command(flatten)]
        config: ConfigArg,
        /// How far behind an answer may be, in milliseconds.
        #[arg(long, value_name = "MS", default_value_t = 3_600_000)]
        bound_ms: u64,
        /// For how long.
        #[arg(long, value_name = "MINUTES", default_value_t = 60)]
        minutes: u64,
        /// The statement, as it was signed.
        #[arg(long, value_name = "FILE", requires = "signature")]
        statement: Option<PathBuf>,
        /// The signature, in base64.
        #[arg(long, value_name = "FILE", requires = "statement")]
        signature: Option<PathBuf>,
        /// End an emergency.
        #[arg(long, conflicts_with = "statement")]
        end: bool,
    },
    /// Build a snapshot on this node, so that its log can be purged.
    Snapshot(ConfigArg),
}

#[derive(Subcommand)]
enum VaultCommand {
    /// Make a vault that an application may do everything in.
    Create {
        #[command(flatten)]
        config: ConfigArg,
        /// Its name.
        #[arg(long)]
        name: String,
        /// The application's client id.
        #[arg(long)]
        client_id: String,
        /// Days between delete and purge: 7 to 90.
        #[arg(long, default_value_t = claviger_api::RETENTION_DAYS)]
        retention_days: u16,
        /// Leave purge to the end of the retention.
        #[arg(long)]
        purge_protection: bool,
        /// The standard SKU: no hardware-protected kinds.
        #[arg(long)]
        standard: bool,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check a configuration and the files that it names; all problems at once.
    Check {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print a configuration with every field, its default and its meaning.
    Default,
}

/// Prints to standard output; a reader that has gone is no error of ours.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
}

pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Top::Exec(args) => {
            // Not hardened: the program would inherit it.
            let how = args.managed_identity.map_or(exec::SignIn::Secret, exec::SignIn::Managed);
            let code = runtime(2)?.block_on(throwaway::exec(args.data_dir, how, &args.command))?;
            Ok(ExitCode::from(code))
        }
        Top::Dev(args) => {
            harden::process()?;
            let _log = logging::start(config::LogFormat::Text, &args.log_level)?;
            runtime(cores())?.block_on(dev::run(args)).map(|()| ExitCode::SUCCESS)
        }
        Top::Server(ConfigArg { config }) => {
            harden::process()?;
            let config = load(&config)?;
            let _log = logging::start(config.log.format, config.log.level)?;
            runtime(cores())?.block_on(serve::run(config)).map(|()| ExitCode::SUCCESS)
        }
        Top::World(WorldCommand::Init {
            out,
            region,
            domain,
            nodes,
            passphrase_env,
            passphrase_file,
            passphrase_stdin,
        }) => {
            harden::process()?;
            let source = match (passphrase_env, passphrase_file, passphrase_stdin) {
                (Some(name), _, _) => Some(PassphraseSource::Env(name)),
                (_, Some(file), _) => Some(PassphraseSource::File(file)),
                (_, _, true) => Some(PassphraseSource::Stdin),
                _ => None,
            };
            let protection = match source {
                Some(source) => world::Protection::Passphrase(source.read_new()?),
                None => world::Protection::File,
            };
            cluster::world_init(&out, &region, &domain, &nodes, &protection)?;
            Ok(ExitCode::SUCCESS)
        }
        Top::World(WorldCommand::Certificate { secrets, out, nodes, domain }) => {
            harden::process()?;
            cluster::certificates(&secrets, &out, &nodes, domain.as_deref())?;
            Ok(ExitCode::SUCCESS)
        }
        Top::Cluster(command) => {
            harden::process()?;
            runtime(2)?.block_on(run_cluster(command)).map(|()| ExitCode::SUCCESS)
        }
        Top::Vault(VaultCommand::Create { config, name, client_id, retention_days, purge_protection, standard }) => {
            harden::process()?;
            let command = claviger_api::AdminCommand::CreateVault {
                name,
                client_id,
                retention_days: Some(retention_days),
                purge_protection,
                standard,
            };
            runtime(2)?.block_on(cluster::service(&load(&config.config)?, &command)).map(|()| ExitCode::SUCCESS)
        }
        Top::Identity(command) => {
            harden::process()?;
            let Some((config, command)) = command.request()? else { return Ok(ExitCode::SUCCESS) };
            runtime(2)?.block_on(cluster::service(&load(&config.config)?, &command)).map(|()| ExitCode::SUCCESS)
        }
        Top::Config(ConfigCommand::Default) => {
            say(config::render_default().trim_end());
            Ok(ExitCode::SUCCESS)
        }
        Top::Config(ConfigCommand::Check { file }) => {
            load(&file)?;
            say(&format!("{}: no problems", file.display()));
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn run_cluster(command: ClusterCommand) -> Result<()> {
    match command {
        ClusterCommand::Init { config, vaults } => cluster::init(&load(&config.config)?, vaults).await,
        ClusterCommand::Join(config) => cluster::join(&load(&config.config)?).await,
        ClusterCommand::Status { config, json } => cluster::status(&load(&config.config)?, json).await,
        ClusterCommand::Remove { config, node } => cluster::remove(&load(&config.config)?, node).await,
        ClusterCommand::TransferLeader { config, to } => cluster::transfer_leader(&load(&config.config)?, to).await,
        ClusterCommand::ReadMode { config, mode, bound_ms, lease_ms, rho_ppm, eps_ms, vault } => {
            let command = claviger_api::AdminCommand::SetReads { mode, bound_ms, lease_ms, rho_ppm, eps_ms, vault };
            cluster::service(&load(&config.config)?, &command).await
        }
        ClusterCommand::Emergency { config, bound_ms, minutes, statement, signature, end } => {
            let read = |file: &Path| {
                std::fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))
            };
            let config = load(&config.config)?;
            match (statement, signature, end) {
                (_, _, true) => cluster::service(&config, &claviger_api::AdminCommand::EndEmergency).await,
                (Some(statement), Some(signature), _) => {
                    let (statement, signature) = (read(&statement)?, read(&signature)?);
                    let command = claviger_api::AdminCommand::BeginEmergency { statement, signature };
                    cluster::service(&config, &command).await
                }
                _ => cluster::emergency_statement(&config, bound_ms, minutes).await,
            }
        }
        ClusterCommand::Snapshot(config) => cluster::snapshot(&load(&config.config)?).await,
    }
}

/// A checked configuration, or all its problems.
fn load(file: &Path) -> Result<config::Config> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    let base = file.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let base = std::path::absolute(base).with_context(|| format!("cannot find `{}`", base.display()))?;
    match config::check(&text, &base) {
        Ok(config) => Ok(config),
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(|problem| format!("  {problem}")).collect();
            bail!("`{}` has {} problem(s):\n{}", file.display(), lines.len(), lines.join("\n"))
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The runtime of consensus, peers and timers; HTTP workers have their own, so that cryptography there holds up nothing
/// here.
fn runtime(threads: usize) -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.clamp(2, 8))
        .thread_name("claviger")
        .enable_all()
        .build()
        .context("cannot start the runtime")
}
