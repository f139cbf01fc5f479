//! The log of this process: to standard error, never waiting for it.
//!
//! A reader that does not read must not hold up a request (a blocked log sink once hung every linearizable read of another
//! store, etcd issue 22214): lines that do not fit into the buffer are dropped and counted.

use crate::config::LogFormat;
use anyhow::{Context, Result};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that may wait to be written.
const LINES: usize = 16_384;

/// Starts the log; it is flushed when the guard goes. `level` may also be a list of directives.
pub(crate) fn start(format: LogFormat, level: &str) -> Result<WorkerGuard> {
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES).finish(std::io::stderr());
    // What these two say at `info` is of use to their own developers.
    let filter = EnvFilter::try_new(format!("{level},openraft=error,actix_server=warn"))
        .context("the log level is not known")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(guard)
}
