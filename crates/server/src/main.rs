//! The `claviger` binary: command line, configuration, wiring, start and stop.
//!
//! Only this crate reads files, environment and arguments, and starts the runtime.

mod cli;
mod cluster;
mod config;
mod connect_proxy;
mod dev;
mod exec;
mod harden;
mod identity;
mod issuers;
mod logging;
mod pki;
mod serve;
mod throwaway;
mod world;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli::run(cli) {
        Ok(code) => code,
        Err(error) => {
            // `{:#}` prints the chain of causes in one line.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("claviger: {error:#}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}
