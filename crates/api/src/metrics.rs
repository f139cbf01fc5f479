//! Every metric, in one place. Labels come from closed sets, never from names that users choose.

use crate::service::Service;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Buckets in seconds: from a cached read to a slow key creation.
const SECONDS: &[f64] = &[0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The metrics of one node.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: IntCounterVec,
    pub(crate) seconds: HistogramVec,
    pub(crate) scheduled: IntCounterVec,
    role: IntGaugeVec,
    term: IntGauge,
    last: IntGauge,
    committed: IntGauge,
    applied: IntGauge,
    snapshot: IntGauge,
    purged: IntGauge,
    members: IntGauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect("a constant name is well-formed");
            registry.register(Box::new(gauge.clone())).expect("each name is registered once");
            gauge
        };
        let requests = IntCounterVec::new(
            Opts::new("claviger_http_requests_total", "Requests answered, by operation and status."),
            &["operation", "status"],
        )
        .expect("a constant name is well-formed");
        let seconds = HistogramVec::new(
            HistogramOpts::new("claviger_http_request_duration_seconds", "Time to answer, by operation.")
                .buckets(SECONDS.to_vec()),
            &["operation"],
        )
        .expect("a constant name is well-formed");
        let scheduled = IntCounterVec::new(
            Opts::new("claviger_scheduled_total", "What the service did with keys by itself, by kind and outcome."),
            &["what", "outcome"],
        )
        .expect("a constant name is well-formed");
        registry.register(Box::new(scheduled.clone())).expect("each name is registered once");
        let role = IntGaugeVec::new(Opts::new("claviger_raft_role", "1 for the node's present role."), &["role"])
            .expect("a constant name is well-formed");
        registry.register(Box::new(requests.clone())).expect("each name is registered once");
        registry.register(Box::new(seconds.clone())).expect("each name is registered once");
        registry.register(Box::new(role.clone())).expect("each name is registered once");
        Self {
            requests,
            seconds,
            scheduled,
            role,
            term: gauge("claviger_raft_term", "Current term."),
            last: gauge("claviger_raft_last_index", "Last entry in the log."),
            committed: gauge("claviger_raft_committed_index", "Last entry known to be committed."),
            applied: gauge("claviger_raft_applied_index", "Last entry applied."),
            snapshot: gauge("claviger_raft_snapshot_index", "Last entry in the newest snapshot."),
            purged: gauge("claviger_raft_purged_index", "Last entry removed from the log."),
            members: gauge("claviger_raft_members", "Members of the cluster."),
            registry,
        }
    }

    /// The text form of all metrics.
    pub(crate) fn render(&self, service: &Service) -> String {
        let status = service.node.status();
        let as_gauge = |index: u64| i64::try_from(index).unwrap_or(i64::MAX);
        self.role.reset();
        self.role.with_label_values(&[status.role.as_str()]).set(1);
        self.term.set(as_gauge(status.term));
        self.last.set(as_gauge(status.last_index));
        self.committed.set(as_gauge(status.committed));
        self.applied.set(as_gauge(status.applied));
        self.snapshot.set(as_gauge(status.snapshot));
        self.purged.set(as_gauge(status.purged));
        self.members.set(i64::try_from(status.members.len()).unwrap_or(i64::MAX));
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be rendered");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}
