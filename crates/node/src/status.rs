//! What a node says of itself, for operators and metrics.

use crate::lease::LeaseView;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A node's part in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Not a member yet, or no longer.
    Outside,
    /// Receives the log, does not vote.
    Learner,
    /// Votes.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Orders the log.
    Leader,
}

impl Role {
    /// The name in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Outside => "outside",
            Role::Learner => "learner",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
        }
    }
}

/// One node's view at one moment. Indexes are log indexes, 0 for "none".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub peer: String,
    /// Release of its binary.
    pub version: String,
    /// Its part.
    pub role: Role,
    /// Current term.
    pub term: u64,
    /// The leader it knows.
    pub leader: Option<u64>,
    /// Last entry in its log.
    pub last_index: u64,
    /// Last entry it knows to be committed.
    pub committed: u64,
    /// Last entry it applied.
    pub applied: u64,
    /// Last entry in its newest snapshot.
    pub snapshot: u64,
    /// Last entry removed from its log.
    pub purged: u64,
    /// Head of the audit chain after `applied`, in hex: equal on replicas that applied the same entries.
    pub chain: String,
    /// Its wall clock in milliseconds since 1970, 0 when it has none: what cannot be undone waits for a majority's.
    pub wall_ms: u64,
    /// How reads are made.
    pub read_mode: String,
    /// Whether operators have it answer from a state that may be old.
    pub emergency: bool,
    /// What it may answer by itself, and, at the leader, who holds what.
    pub lease: LeaseStatus,
    /// All members: id, name, address, whether it votes.
    pub members: Vec<MemberStatus>,
    /// Why the node has stopped, if it has.
    pub stopped: Option<String>,
    /// Why it does not serve although it takes part: its state is not the others'.
    pub fault: Option<String>,
}

/// One member as a node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub peer: String,
    /// Whether it votes.
    pub voter: bool,
}

/// A node's lease and, at the leader, those of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// Whether the node may answer by itself.
    pub valid: bool,
    /// For how long, in milliseconds.
    pub remaining_ms: u64,
    /// Everything up to this index is visible, as far as the node knows.
    pub visible: u64,
    /// Entries in its log that are not yet applied and visible.
    pub pending: u64,
    /// At the leader: how long each other node's lease lasts, in milliseconds.
    pub holders: BTreeMap<u64, u64>,
    /// At the leader: nodes that hold up visibility now.
    pub blocked_by: Vec<u64>,
    /// At the leader: age of its proof that a quorum follows it, in milliseconds.
    pub evidence_age_ms: Option<u64>,
    /// At the leader: how long it still waits for leases of earlier leaders, in milliseconds.
    pub freeze_ms: u64,
    /// Times that the node's clock was found wrong.
    pub clock_alarms: u64,
}

impl From<LeaseView> for LeaseStatus {
    fn from(view: LeaseView) -> Self {
        Self {
            valid: view.valid,
            remaining_ms: view.remaining_ms,
            visible: view.visible,
            pending: view.pending as u64,
            holders: view.holders,
            blocked_by: view.blocked_by,
            evidence_age_ms: view.evidence_age_ms,
            freeze_ms: view.freeze_ms,
            clock_alarms: view.clock_alarms,
        }
    }
}
