//! `claviger exec`: finds the dev server to run a program against, or starts one for the time of the program.

use crate::exec::SignIn;
use crate::{dev, exec};
use anyhow::{bail, Context, Result};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Time for a server to start: a hundred times what it takes.
const START: Duration = Duration::from_secs(30);

/// Time for a server to stop before it is killed.
const STOP: Duration = Duration::from_secs(10);

/// Runs a program; its exit code.
pub(crate) async fn exec(data_dir: Option<PathBuf>, how: SignIn, command: &[OsString]) -> Result<u8> {
    if let Some(dir) = data_dir {
        return match dev::running(&dir)? {
            Some(running) => run(&dir, &running, how, command).await,
            None => with_server(&dir, how, command).await,
        };
    }
    let dir = dev::default_dir()?;
    if let Some(running) = dev::running(&dir)? {
        return run(&dir, &running, how, command).await;
    }
    let scratch = Scratch::new()?;
    with_server(&scratch.0, how, command).await
}

async fn run(dir: &Path, running: &dev::Running, how: SignIn, command: &[OsString]) -> Result<u8> {
    let environment = dev::environment(dir, running, how)?;
    match exec::run(command, &environment).await {
        Ok(code) => Ok(code),
        Err(error) => {
            let code = error.exit_code();
            let text = format!("claviger: {:#}\n", anyhow::Error::new(error));
            let _ = std::io::stderr().write_all(text.as_bytes());
            Ok(code)
        }
    }
}

/// A directory that goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let name = format!("claviger-exec-{}-{}", std::process::id(), claviger_api::now_ms());
        let dir = std::env::temp_dir().join(name);
        crate::harden::private_dir(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

async fn with_server(dir: &Path, how: SignIn, command: &[OsString]) -> Result<u8> {
    let mut server = start(dir, how).await?;
    let running = dev::running(dir)?.context("the server is not there")?;
    let result = run(dir, &running, how, command).await;
    // The server stops when its standard input ends, also when we are killed.
    drop(server.stdin.take());
    if timeout(STOP, server.wait()).await.is_err() {
        server.kill().await.ok();
    }
    result
}

async fn start(dir: &Path, how: SignIn) -> Result<Child> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut server = Command::new(program)
        .args(["dev", "--until-stdin-ends", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir)
        .args(matches!(how, SignIn::Managed(_)).then_some("--managed-identity"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start a dev server")?;
    let output = server.stdout.take().context("the server has no output")?;
    let mut lines = BufReader::new(output).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await? {
            if line.starts_with("ready") {
                return Ok(true);
            }
        }
        std::io::Result::Ok(false)
    };
    match timeout(START, ready).await {
        Ok(Ok(true)) => {}
        Ok(_) => bail!("the dev server did not start"),
        Err(_) => bail!("the dev server did not start within {} s", START.as_secs()),
    }
    // Whatever else it says is read, so that it never waits for us.
    tokio::spawn(async move { while matches!(lines.next_line().await, Ok(Some(_))) {} });
    Ok(server)
}
