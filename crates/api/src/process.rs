//! What the process takes from the machine, under the names that Prometheus gives it everywhere.

use prometheus::{Counter, Gauge, IntGauge, Registry};
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Clock ticks per second in `/proc`: the same on every Linux that is built today.
const TICKS: f64 = 100.0;

/// Memory, processor time, threads and open files of this process.
pub(crate) struct Process {
    memory: IntGauge,
    cpu: Counter,
    threads: IntGauge,
    files: IntGauge,
}

impl Process {
    pub(crate) fn new(registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect("a constant name is well-formed");
            registry.register(Box::new(gauge.clone())).expect("each name is registered once");
            gauge
        };
        let cpu = Counter::new("process_cpu_seconds_total", "Processor time, in seconds.")
            .expect("a constant name is well-formed");
        registry.register(Box::new(cpu.clone())).expect("each name is registered once");
        let start = Gauge::new("process_start_time_seconds", "When the process started, in seconds since 1970.")
            .expect("a constant name is well-formed");
        registry.register(Box::new(start.clone())).expect("each name is registered once");
        start.set(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64()));
        Self {
            cpu,
            memory: gauge("process_resident_memory_bytes", "Memory in use, in bytes."),
            threads: gauge("process_threads", "Threads."),
            files: gauge("process_open_fds", "Open files and connections."),
        }
    }

    /// Looks again. What cannot be read stays as it was.
    pub(crate) fn look(&self) {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| -> Option<i64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        if let Some(kilobytes) = field("VmRSS:") {
            self.memory.set(kilobytes * 1024);
        }
        if let Some(threads) = field("Threads:") {
            self.threads.set(threads);
        }
        if let Some(seconds) = cpu_seconds() {
            self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            self.files.set(i64::try_from(files.count()).unwrap_or(i64::MAX));
        }
    }
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th fields after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}
