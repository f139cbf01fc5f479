//! `claviger exec -- COMMAND`: runs a program in an environment in which the official names lead to the dev server.
//!
//! The variables are those that the clients of the contract read (contract/identity.md section 8, az-cli.md section 1).
//! A JVM is not served: it takes authorities from a key store of its own and not from a PEM file; its options are the
//! caller's to give. Nothing is written to the caller's home.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;

use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

/// Variables that would lead a client past the ones that are set: other credentials and other proxies.
const REMOVED: &[&str] = &[
    "AZURE_TOKEN_CREDENTIALS",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD",
    "AZURE_USERNAME",
    "AZURE_PASSWORD",
    "AZURE_FEDERATED_TOKEN_FILE",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "MSI_ENDPOINT",
    "MSI_SECRET",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    "ALL_PROXY",
    "all_proxy",
];

/// Signals on their way to the child at once; more are the same ones again.
const SIGNALS_MAX: usize = 16;

/// What a program signs in with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignIn {
    /// The application's secret.
    Secret,
    /// A managed identity.
    Managed(Shape),
}

/// Where programs look for a managed identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// The instance metadata service of a virtual machine.
    Imds,
    /// App Service.
    AppService,
}

/// Where the program finds its managed identity.
pub(crate) struct ManagedIdentity {
    /// How it asks.
    pub(crate) shape: Shape,
    /// Whom.
    pub(crate) endpoint: SocketAddr,
    /// What it shows, in the shape of App Service.
    pub(crate) header: Zeroizing<String>,
}

/// What a program needs to know to meet the dev server.
pub(crate) struct Environment {
    /// The CONNECT endpoint.
    pub(crate) proxy: SocketAddr,
    /// The authority that the dev server's certificate comes from, PEM; absolute, for the program may change directory.
    pub(crate) ca_bundle: PathBuf,
    /// The tenant's GUID.
    pub(crate) tenant: String,
    /// The application's GUID.
    pub(crate) client_id: String,
    /// The application's secret.
    pub(crate) client_secret: Zeroizing<String>,
    /// The subscription's GUID.
    pub(crate) subscription: String,
    /// The vault's name.
    pub(crate) vault: String,
    /// Where `az` keeps its profile and tokens, so that the caller's own log-in stays as it is. Given to the program
    /// unless the caller has set `AZURE_CONFIG_DIR`.
    pub(crate) az_config_dir: Option<PathBuf>,
    /// In place of the application's id and secret.
    pub(crate) identity: Option<ManagedIdentity>,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("proxy", &self.proxy).field("vault", &self.vault).finish_non_exhaustive()
    }
}

impl Environment {
    /// The variables, in the order in which they are worth reading. They hold the client secret.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let proxy = format!("http://{}", self.proxy);
        // What the program has of its own on this machine stays reachable.
        let direct = "127.0.0.1,localhost,::1";
        let bundle = self.ca_bundle.display().to_string();
        let pairs: [(&str, &str); 17] = [
            ("HTTPS_PROXY", &proxy),
            // curl and Python read the small form first.
            ("https_proxy", &proxy),
            ("NO_PROXY", direct),
            ("no_proxy", direct),
            // requests: az, MSAL and the synchronous Python SDKs.
            ("REQUESTS_CA_BUNDLE", &bundle),
            ("CURL_CA_BUNDLE", &bundle),
            // OpenSSL: aiohttp, Go, .NET, Ruby, Rust.
            ("SSL_CERT_FILE", &bundle),
            ("NODE_EXTRA_CA_CERTS", &bundle),
            // Node from 24 on honours the proxy variables if this is set.
            ("NODE_USE_ENV_PROXY", "1"),
            ("AZURE_TENANT_ID", &self.tenant),
            ("AZURE_CLIENT_ID", &self.client_id),
            ("AZURE_CLIENT_SECRET", &self.client_secret),
            ("AZURE_SUBSCRIPTION_ID", &self.subscription),
            ("KEY_VAULT_NAME", &self.vault),
            // The names that the SDKs' own samples read.
            ("VAULT_URL", &format!("https://{}.vault.azure.net/", self.vault)),
            ("AZURE_KEYVAULT_URL", &format!("https://{}.vault.azure.net/", self.vault)),
            // Else az tries to report to dc.services.visualstudio.com at the end of every command.
            ("AZURE_CORE_COLLECT_TELEMETRY", "0"),
        ];
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let Some(identity) = &self.identity else { return pairs.map(own).into() };
        // With an id or a secret in the environment, credentials would take those.
        let mut all: Vec<_> =
            pairs.into_iter().filter(|(name, _)| !name.starts_with("AZURE_CLIENT_")).map(own).collect();
        let base = format!("http://{}", identity.endpoint);
        match identity.shape {
            Shape::Imds => all.push(own(("AZURE_POD_IDENTITY_AUTHORITY_HOST", &base))),
            Shape::AppService => {
                all.push(own(("IDENTITY_ENDPOINT", &format!("{base}{}", claviger_api::APP_SERVICE))));
                all.push(own(("IDENTITY_HEADER", &identity.header)));
            }
        }
        all
    }
}

/// Why a program was not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    /// No words after `--`.
    #[error("no command given: write `claviger exec -- COMMAND`")]
    NoCommand,
    /// The program is not in the search path, or its path leads nowhere.
    #[error("`{0}`: command not found")]
    NotFound(String),
    /// The program is there but cannot be executed.
    #[error("`{0}`: cannot be executed")]
    NotExecutable(String, #[source] io::Error),
    /// Anything else, on our side.
    #[error("cannot run `{0}`")]
    Other(String, #[source] io::Error),
}

impl ExecError {
    /// The exit code for it, as shells have it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NoCommand => 2,
            Self::NotFound(_) => 127,
            Self::NotExecutable(..) => 126,
            Self::Other(..) => 125,
        }
    }
}

/// Runs a command with our standard streams until it ends; its exit code, or 128 and the signal's number if it was
/// killed.
///
/// SIGTERM and SIGHUP to this process go on to the child. SIGINT and SIGQUIT do too, unless they come from a terminal
/// whose foreground we share with the child: then it has got them already, and would get them twice. The child is
/// killed if the future is dropped.
pub(crate) async fn run(command: &[OsString], environment: &Environment) -> Result<u8, ExecError> {
    let name = || command.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
    // Before the child is there, so that no signal falls between.
    let signals = forwarded_signals().map_err(|error| ExecError::Other(name(), error))?;
    run_with(command, environment, signals).await
}

async fn run_with(
    command: &[OsString],
    environment: &Environment,
    mut signals: mpsc::Receiver<Signal>,
) -> Result<u8, ExecError> {
    let (program, arguments) = command.split_first().ok_or(ExecError::NoCommand)?;
    let name = || program.to_string_lossy().into_owned();
    let mut child = spawn(program, arguments, environment).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ExecError::NotFound(name()),
        io::ErrorKind::PermissionDenied => ExecError::NotExecutable(name(), error),
        // A text file without `#!`, or a binary of another machine.
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            ExecError::NotExecutable(name(), error)
        }
        _ => ExecError::Other(name(), error),
    })?;
    loop {
        tokio::select! {
            status = child.wait() => {
                return status.map(exit_code).map_err(|error| ExecError::Other(name(), error));
            }
            Some(signal) = signals.recv() => forward(&child, signal),
        }
    }
}

fn spawn(program: &OsStr, arguments: &[OsString], environment: &Environment) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    let replaced: &[&str] =
        if environment.identity.is_some() { &["AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"] } else { &[] };
    for name in REMOVED.iter().chain(replaced) {
        command.env_remove(name);
    }
    command.envs(environment.variables());
    if let (Some(dir), None) = (&environment.az_config_dir, std::env::var_os("AZURE_CONFIG_DIR")) {
        command.env("AZURE_CONFIG_DIR", dir);
    }
    command.spawn()
}

fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// To the child, if it still is our child: the id of one that was waited for may be somebody else's.
fn forward(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended meanwhile, which `wait` is about to tell.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Catches the signals from now on; the receiver gets those that are the child's.
fn forwarded_signals() -> io::Result<mpsc::Receiver<Signal>> {
    use tokio::signal::unix::{signal, SignalKind};
    let (sender, receiver) = mpsc::channel(SIGNALS_MAX);
    let kinds = [
        (SignalKind::terminate(), Signal::TERM),
        (SignalKind::hangup(), Signal::HUP),
        (SignalKind::interrupt(), Signal::INT),
        (SignalKind::quit(), Signal::QUIT),
    ];
    for (kind, number) in kinds {
        let mut caught = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while caught.recv().await.is_some() {
                let from_terminal = matches!(number, Signal::INT | Signal::QUIT) && in_foreground();
                if !from_terminal && sender.send(number).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}

/// Whether the terminal, if there is one, sends its signals to our process group, in which the child is too.
fn in_foreground() -> bool {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else { return false };
    rustix::termios::tcgetpgrp(&terminal).is_ok_and(|group| group == rustix::process::getpgrp())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn environment() -> Environment {
        Environment {
            proxy: "127.0.0.1:18080".parse().unwrap(),
            ca_bundle: "/data/ca.pem".into(),
            tenant: "t".to_owned(),
            client_id: "c".to_owned(),
            client_secret: Zeroizing::new("s3cret".to_owned()),
            subscription: "s".to_owned(),
            vault: "my-vault".to_owned(),
            az_config_dir: Some("/data/az".into()),
            identity: None,
        }
    }

    fn shell(script: &str) -> Vec<OsString> {
        ["/bin/sh", "-c", script].map(OsString::from).into()
    }

    async fn run_quietly(command: &[OsString]) -> Result<u8, ExecError> {
        let (_sender, signals) = mpsc::channel(1);
        run_with(command, &environment(), signals).await
    }

    async fn until_exists(path: &Path) {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn variables_are_these() {
        let text: String =
            environment().variables().into_iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        assert_eq!(text, include_str!("../golden/exec-variables.txt"));
    }

    #[test]
    fn a_managed_identity_is_instead_of_a_secret() {
        for (shape, want) in [
            (Shape::Imds, "AZURE_POD_IDENTITY_AUTHORITY_HOST=http://127.0.0.1:18081\n"),
            (Shape::AppService, "IDENTITY_ENDPOINT=http://127.0.0.1:18081/msi/token\nIDENTITY_HEADER=h\n"),
        ] {
            let endpoint = "127.0.0.1:18081".parse().unwrap();
            let identity = ManagedIdentity { shape, endpoint, header: Zeroizing::new("h".to_owned()) };
            let environment = Environment { identity: Some(identity), ..environment() };
            let text: String =
                environment.variables().into_iter().map(|(name, value)| format!("{name}={value}\n")).collect();
            assert!(text.ends_with(want), "{text}");
            assert!(!text.contains("AZURE_CLIENT_"), "{text}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        assert!(!format!("{:?}", environment()).contains("s3cret"));
    }

    #[tokio::test]
    async fn the_child_sees_the_variables() {
        let script = r#"test "$AZURE_CLIENT_SECRET" = s3cret && test "$https_proxy" = http://127.0.0.1:18080"#;
        assert_eq!(run_quietly(&shell(script)).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn exit_codes_are_the_childs() {
        assert_eq!(run_quietly(&shell("exit 0")).await.unwrap(), 0);
        assert_eq!(run_quietly(&shell("exit 42")).await.unwrap(), 42);
        assert_eq!(run_quietly(&shell("kill -TERM $$")).await.unwrap(), 128 + 15);
        assert_eq!(run_quietly(&shell("kill -KILL $$")).await.unwrap(), 128 + 9);
    }

    #[tokio::test]
    async fn what_cannot_run_has_the_shells_codes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "not a program").unwrap();
        let error = run_quietly(&[file.clone().into()]).await.unwrap_err();
        assert_eq!(error.exit_code(), 126, "{error}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).unwrap();
        let error = run_quietly(&[file.into()]).await.unwrap_err();
        assert_eq!(error.exit_code(), 126, "{error}");
        let error = run_quietly(&["no-such-command-here".into()]).await.unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (127, "`no-such-command-here`: command not found"));
        assert_eq!(run_quietly(&[]).await.unwrap_err().exit_code(), 2);
    }

    #[tokio::test]
    async fn signals_reach_the_child_and_its_answer_counts() {
        let dir = tempfile::tempdir().unwrap();
        let ready = dir.path().join("ready");
        let script = format!("trap 'exit 7' INT; : > {}; while :; do sleep 0.01; done", ready.display());
        let (sender, signals) = mpsc::channel(1);
        let command = shell(&script);
        let environment = environment();
        let (code, ()) = tokio::join!(run_with(&command, &environment, signals), async {
            until_exists(&ready).await;
            sender.send(Signal::INT).await.unwrap();
        });
        assert_eq!(code.unwrap(), 7);
    }

    /// The whole way, with a signal to this very process: its handler is there before the child is.
    #[tokio::test]
    async fn a_signal_to_us_is_the_childs() {
        let dir = tempfile::tempdir().unwrap();
        let ready = dir.path().join("ready");
        let script = format!("trap 'exit 9' TERM; : > {}; while :; do sleep 0.01; done", ready.display());
        let command = shell(&script);
        let environment = environment();
        let (code, ()) = tokio::join!(run(&command, &environment), async {
            until_exists(&ready).await;
            rustix::process::kill_process(rustix::process::getpid(), Signal::TERM).unwrap();
        });
        assert_eq!(code.unwrap(), 9);
    }
}
