//! Every metric, in one place. Labels come from closed sets, never from names that users choose.

use crate::process::Process;
use crate::service::Service;
use claviger_node::WriteStage;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Buckets in seconds: from a cached read to a slow key creation.
const SECONDS: &[f64] = &[0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Buckets for the gate, in seconds: from two clock readings to the longest wait.
const HOLD_SECONDS: &[f64] =
    &[0.000_005, 0.000_02, 0.000_1, 0.000_5, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The metrics of one node.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: IntCounterVec,
    pub(crate) seconds: HistogramVec,
    pub(crate) read_hold: Histogram,
    pub(crate) scheduled: IntCounterVec,
    write_wait: HistogramVec,
    rsa_keys_ready: IntGaugeVec,
    role: IntGaugeVec,
    term: IntGauge,
    last: IntGauge,
    committed: IntGauge,
    applied: IntGauge,
    snapshot: IntGauge,
    purged: IntGauge,
    members: IntGauge,
    fault: IntGauge,
    mode: IntGaugeVec,
    lease_valid: IntGauge,
    lease_remaining: Gauge,
    visible: IntGauge,
    pending: IntGauge,
    blocked_by: IntGaugeVec,
    holder: GaugeVec,
    freeze: Gauge,
    evidence_age: Gauge,
    alarms: IntCounter,
    evictions: IntCounter,
    reads: IntCounterVec,
    repeated: IntCounter,
    process: Process,
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
        let read_hold = Histogram::with_opts(
            HistogramOpts::new(
                "claviger_read_hold_seconds",
                "How long requests on vaults waited in the read gate: for a round trip to the leader, or for changes under \
                 way in what they read.",
            )
            .buckets(HOLD_SECONDS.to_vec()),
        )
        .expect("a constant name is well-formed");
        registry.register(Box::new(read_hold.clone())).expect("each name is registered once");
        let write_wait = HistogramVec::new(
            HistogramOpts::new(
                "claviger_write_wait_seconds",
                "At the leader, of each entry: commit until it is durable at a quorum and applied, visible from then on \
                 until every node that may hold a lease has it.",
            )
            .buckets(SECONDS.to_vec()),
            &["stage"],
        )
        .expect("a constant name is well-formed");
        registry.register(Box::new(write_wait.clone())).expect("each name is registered once");
        let scheduled = IntCounterVec::new(
            Opts::new("claviger_scheduled_total", "What the service did with keys by itself, by kind and outcome."),
            &["what", "outcome"],
        )
        .expect("a constant name is well-formed");
        registry.register(Box::new(scheduled.clone())).expect("each name is registered once");
        // From the start, so that the first one is seen as an increase.
        for what in ["rotate", "near_expiry"] {
            for outcome in ["done", "not_due", "failed"] {
                scheduled.with_label_values(&[what, outcome]);
            }
        }
        let role = IntGaugeVec::new(Opts::new("claviger_raft_role", "1 for the node's present role."), &["role"])
            .expect("a constant name is well-formed");
        registry.register(Box::new(requests.clone())).expect("each name is registered once");
        registry.register(Box::new(seconds.clone())).expect("each name is registered once");
        registry.register(Box::new(role.clone())).expect("each name is registered once");
        let seconds_gauge = |name: &str, help: &str| {
            let gauge = Gauge::new(name, help).expect("a constant name is well-formed");
            registry.register(Box::new(gauge.clone())).expect("each name is registered once");
            gauge
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).expect("a constant name is well-formed");
            registry.register(Box::new(counter.clone())).expect("each name is registered once");
            counter
        };
        let labelled = |name: &str, help: &str, label: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &[label]).expect("a constant name is well-formed");
            registry.register(Box::new(gauge.clone())).expect("each name is registered once");
            gauge
        };
        let reads = IntCounterVec::new(
            Opts::new(
                "claviger_reads_total",
                "Requests by the way through the read gate: local and held under a lease, round by a trip to the leader, \
                 stale in mode bounded, refused.",
            ),
            &["path"],
        )
        .expect("a constant name is well-formed");
        registry.register(Box::new(reads.clone())).expect("each name is registered once");
        let holder = GaugeVec::new(
            Opts::new("claviger_holder_remaining_seconds", "At the leader: how long another node's lease lasts."),
            &["node"],
        )
        .expect("a constant name is well-formed");
        registry.register(Box::new(holder.clone())).expect("each name is registered once");
        Self {
            process: Process::new(&registry),
            read_hold,
            write_wait,
            reads,
            holder,
            fault: gauge(
                "claviger_node_fault",
                "1 when the node has found its state different from the others' and serves no more.",
            ),
            mode: labelled("claviger_mode", "1 for the world's present read mode.", "mode"),
            lease_valid: gauge("claviger_lease_valid", "1 while this node may answer by itself."),
            lease_remaining: seconds_gauge("claviger_lease_remaining_seconds", "For how long it may."),
            visible: gauge("claviger_vis_index", "Everything up to this entry is visible, as far as this node knows."),
            pending: gauge(
                "claviger_fence_pending",
                "Entries in this node's log that are not applied and visible yet.",
            ),
            blocked_by: labelled(
                "claviger_visible_blocked_by",
                "At the leader: 1 for each node that writes wait for now.",
                "node",
            ),
            freeze: seconds_gauge(
                "claviger_leader_freeze_seconds",
                "At the leader: how long writes still wait for leases of earlier leaders.",
            ),
            evidence_age: seconds_gauge(
                "claviger_evidence_age_seconds",
                "At the leader: age of its proof that a quorum follows it.",
            ),
            alarms: counter("claviger_clock_alarm_total", "Times that this node's clock was found wrong."),
            evictions: counter(
                "claviger_holder_evictions_total",
                "At the leader: nodes that got no lease any more because they were slow.",
            ),
            repeated: counter(
                "claviger_validate_failures_total",
                "Answers that were made again: something had changed meanwhile, or the lease had ended.",
            ),
            requests,
            seconds,
            scheduled,
            rsa_keys_ready: labelled(
                "claviger_rsa_keys_ready",
                "RSA keys made ahead and not given out yet, by size in bits.",
                "bits",
            ),
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

    /// What a node tells how long the stages of writes took.
    pub(crate) fn write_times(&self) -> impl Fn(WriteStage, Duration) + Send + Sync + 'static {
        let stage = |name: &str| self.write_wait.with_label_values(&[name]);
        let (commit, visible) = (stage("commit"), stage("visible"));
        move |stage, took| {
            let histogram = match stage {
                WriteStage::Commit => &commit,
                WriteStage::Visible => &visible,
            };
            histogram.observe(took.as_secs_f64());
        }
    }

    fn render_lease(&self, service: &Service) {
        let as_gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let seconds = |ms: u64| ms as f64 / 1_000.0;
        let lease = service.node.lease().view();
        let gate = service.node.gate();
        self.fault.set(i64::from(service.node.status().fault.is_some()));
        self.mode.reset();
        self.mode.with_label_values(&[gate.mode(None).as_str()]).set(1);
        self.lease_valid.set(i64::from(lease.valid));
        self.lease_remaining.set(seconds(lease.remaining_ms));
        self.visible.set(as_gauge(lease.visible));
        self.pending.set(as_gauge(lease.pending as u64));
        self.blocked_by.reset();
        for node in &lease.blocked_by {
            self.blocked_by.with_label_values(&[&node.to_string()]).set(1);
        }
        self.holder.reset();
        for (node, left) in &lease.holders {
            self.holder.with_label_values(&[&node.to_string()]).set(seconds(*left));
        }
        self.freeze.set(seconds(lease.freeze_ms));
        self.evidence_age.set(seconds(lease.evidence_age_ms.unwrap_or(0)));
        let raise = |counter: &IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        raise(&self.alarms, lease.clock_alarms);
        raise(&self.evictions, lease.evictions);
        let counts = gate.counts();
        raise(&self.repeated, counts.repeated.load(Ordering::Relaxed));
        let ways = [
            ("local", &counts.local),
            ("held", &counts.held),
            ("round", &counts.round),
            ("stale", &counts.stale),
            ("refused", &counts.refused),
        ];
        for (way, count) in ways {
            raise(&self.reads.with_label_values(&[way]), count.load(Ordering::Relaxed));
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
        self.render_lease(service);
        self.process.look();
        for (bits, ready) in service.keygen.ready() {
            let gauge = self.rsa_keys_ready.with_label_values(&[bits.to_string()]);
            gauge.set(i64::try_from(ready).unwrap_or(i64::MAX));
        }
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be rendered");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}
