//! The leader's half: who may hold a lease until when, and what is visible.

use crate::{Ballot, Broken, Grant, LeaseAck, LeaseMessage, Nanos, Params};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A node that lacks committed entries for longer than this gets no lease: nobody shall wait for a slow disk. In
/// nanoseconds.
const LAG_MAX: Nanos = 150_000_000;

/// How long a node that was left out has to keep up before it is let in again: the first time, and each time that follows
/// within [`FORGIVEN`]. In nanoseconds.
const PROBATION: [Nanos; 6] =
    [250_000_000, 2_000_000_000, 4_000_000_000, 8_000_000_000, 30_000_000_000, 60_000_000_000];

/// After this time without being left out, a node starts with a clean record.
const FORGIVEN: Nanos = 60_000_000_000;

/// Who counts: openraft's membership, reduced to what matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// The voters of every configuration in force, one or, in joint consensus, two: committed and not yet committed ones
    /// alike, for elections may go by either.
    pub configs: Vec<BTreeSet<u64>>,
    /// All nodes, learners too, of committed and not yet committed membership.
    pub nodes: BTreeSet<u64>,
    /// The nodes of both the committed membership and the newest one: who may get a lease. Who is about to be removed may
    /// not, whoever proposed that.
    pub committed: BTreeSet<u64>,
}

/// What the leader knows of one other node.
#[derive(Debug, Clone, Default)]
struct Peer {
    /// Newest send time of an append that it accepted.
    acked: Option<Nanos>,
    /// Its log is ours up to here.
    matched: u64,
    /// No lease of ours is valid there after this.
    hold_end: Nanos,
    /// Its life, its stamp, and when that arrived here.
    stamp: Option<(u64, Nanos, Nanos)>,
    /// The life that it has resigned: no stamp of it counts any more.
    ended: Option<u64>,
    /// Number of the newest message that it answered: then it had dropped all leases of earlier leaders.
    answered: u64,
    /// Number of the newest message with a lease, and the life that it was for.
    granted: Option<(u64, u64)>,
    /// An index that it lacked, and since when.
    behind: Option<(u64, Nanos)>,
    /// Left out since it fell behind; when it caught up.
    left_out: Option<Option<Nanos>>,
    strikes: usize,
    last_strike: Nanos,
    /// It is to be removed: no more leases.
    retiring: bool,
}

/// One leader's term of office. Created when the node finds itself leading, dropped when it finds that it does not.
#[derive(Debug, Clone)]
pub struct Leader {
    ballot: Ballot,
    broken: Broken,
    since: Nanos,
    /// The first index of this term that was seen applied.
    floor: Option<u64>,
    visible: u64,
    members: Arc<Members>,
    peers: BTreeMap<u64, Peer>,
    /// How long before its vote each voter had last accepted an append.
    ages: BTreeMap<u64, Nanos>,
    seq: u64,
    /// How many messages had been sent when every node had answered one.
    all_answered: Option<u64>,
    /// Something was done in this office: votes that come now were perhaps given after it began.
    used: bool,
    evictions: u64,
}

impl Leader {
    /// The office of `ballot`, seen at `now`. `visible` is what this node heard to be visible before.
    pub fn new(ballot: Ballot, members: Arc<Members>, visible: u64, now: Nanos) -> Self {
        Self {
            ballot,
            broken: Broken::Nothing,
            since: now,
            floor: None,
            visible,
            members,
            peers: BTreeMap::new(),
            ages: BTreeMap::new(),
            seq: 0,
            all_answered: None,
            used: false,
            evictions: 0,
        }
    }

    /// Switches a rule off; only in tests.
    pub fn break_rule(&mut self, rule: Broken) {
        self.broken = rule;
    }

    /// Whose office it is.
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Everything up to here is visible.
    pub fn visible(&self) -> u64 {
        self.visible
    }

    /// Nodes that were left out for being slow, counted.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Who the members are now; empty when that is not known, and then nothing is given and nothing becomes visible by
    /// shortcut.
    pub fn set_members(&mut self, members: Arc<Members>) {
        self.members = members;
    }

    /// A voter had accepted its last append `age` before it voted for this ballot, or had itself led until then, or started:
    /// whatever was last. For this node, that long before the office began.
    ///
    /// To be told right after [`Leader::new`]; later it is not heard. A vote that was given after the office began says how
    /// old everything was *then*: that is not how old it was when the freeze began.
    pub fn voted(&mut self, voter: u64, age: Nanos) {
        if !self.used || self.broken == Broken::LateVotes {
            self.ages.insert(voter, age);
        }
    }

    /// A node accepted an append of this ballot that was sent at `sent`: its log is ours up to `matched`.
    pub fn accepted(&mut self, from: u64, sent: Nanos, matched: u64) {
        self.used = true;
        let peer = self.peers.entry(from).or_default();
        peer.acked = peer.acked.max(Some(sent));
        peer.matched = peer.matched.max(matched);
    }

    /// The newest instant of which it is certain that a quorum still followed this ballot (design B1, evidence): no other
    /// leader was elected before it.
    pub fn evidence(&self, now: Nanos) -> Option<Nanos> {
        if self.broken == Broken::Evidence {
            return Some(now);
        }
        let acked = |id: &u64| if *id == self.ballot.node { Some(now) } else { self.peers.get(id)?.acked };
        self.quorum_of(acked)
    }

    /// The largest value that a quorum of every configuration has reached.
    fn quorum_of(&self, value: impl Fn(&u64) -> Option<Nanos>) -> Option<Nanos> {
        let of_config = |config: &BTreeSet<u64>| {
            let mut values: Vec<Nanos> = config.iter().filter_map(&value).collect();
            values.sort_unstable_by(|a, b| b.cmp(a));
            values.get(config.len() / 2).copied()
        };
        let each: Option<Vec<Nanos>> = self.members.configs.iter().map(of_config).collect();
        each?.into_iter().min()
    }

    /// Until when this node itself may answer, as long as it leads (R2); `None` before an entry of its own is applied.
    pub fn own_lease(&self, params: &Params, now: Nanos) -> Option<Nanos> {
        self.floor?;
        self.evidence(now).map(|evidence| evidence + params.shorter(params.lease))
    }

    /// When the leases of earlier leaders have surely ended (R5). `params` are those of the longest lease ever used,
    /// `None` if there were none.
    pub fn frozen_until(&self, params: Option<&Params>) -> Nanos {
        let Some(params) = params else { return self.since };
        if self.broken == Broken::Freeze || self.all_dropped() {
            return self.since;
        }
        let age = self.quorum_of(|id| self.ages.get(id).copied()).unwrap_or(0);
        self.since + params.freeze().saturating_sub(params.shorter(age))
    }

    /// Whether no lease of an earlier leader is left (R5b): every node has answered a message that was sent after every node
    /// had answered one.
    ///
    /// One answer each is not enough. A node drops what it holds, starts again and, knowing nothing, takes a lease of an
    /// earlier leader that has not answered yet. After the first answers nobody gives such leases any more; the second ones
    /// say that nobody holds one.
    fn all_dropped(&self) -> bool {
        let first = if self.broken == Broken::OneRound { Some(0) } else { self.all_answered };
        // No members: who they are is not known at this moment.
        let known = self.floor.is_some() && !self.members.nodes.is_empty();
        known && first.is_some_and(|first| self.have_answered(first))
    }

    /// Whether every node has answered a message after this one.
    fn have_answered(&self, seq: u64) -> bool {
        let answered = |id: &u64| self.peers.get(id).is_some_and(|peer| peer.answered > seq);
        self.members.nodes.iter().all(|id| *id == self.ballot.node || answered(id))
    }

    /// Looks whether more is visible (R3): to be called when something was applied or accepted and when time has passed.
    /// `term` is that of the last applied entry, `longest` as in [`Leader::frozen_until`].
    pub fn advance(&mut self, params: &Params, longest: Option<&Params>, applied: u64, term: u64, now: Nanos) -> bool {
        self.used = true;
        if term != self.ballot.term {
            return false;
        }
        self.floor.get_or_insert(applied);
        if now < self.frozen_until(longest) {
            return false;
        }
        let waited_for = self.peers.values().filter(|peer| holds(peer, params, now));
        let v = match self.broken {
            Broken::Barrier => applied,
            _ => waited_for.map(|peer| peer.matched).fold(applied, u64::min),
        };
        let more = v > self.visible;
        self.visible = self.visible.max(v);
        more
    }

    /// Which nodes hold up what is applied, if any do.
    pub fn blockers(&self, params: &Params, applied: u64, now: Nanos) -> Vec<u64> {
        let blocks = |peer: &Peer| holds(peer, params, now) && peer.matched < applied;
        self.peers.iter().filter(|(_, peer)| blocks(peer)).map(|(id, _)| *id).collect()
    }

    /// Whether any node may hold a lease, of this leader or an earlier one.
    pub fn has_holders(&self, params: &Params, longest: Option<&Params>, now: Nanos) -> bool {
        now < self.frozen_until(longest) || self.peers.values().any(|peer| holds(peer, params, now))
    }

    /// When [`Leader::advance`] is worth another look although nothing happens: a freeze or a lease ends.
    pub fn next_end(&self, params: &Params, longest: Option<&Params>, now: Nanos) -> Option<Nanos> {
        let leases = self.peers.values().map(|peer| peer.hold_end + params.eps + 1);
        leases.chain([self.frozen_until(longest)]).filter(|end| *end > now).min()
    }

    /// Whether [`Leader::visible`] covers all that earlier leaders acknowledged.
    pub fn is_complete(&self) -> bool {
        self.floor.is_some_and(|floor| self.visible >= floor)
    }

    /// The message for a node. `leases` says whether leases are given, `loose` whether promises are, for reads that may be
    /// stale (then nobody waits for whoever has one).
    pub fn message(
        &mut self,
        to: u64,
        params: &Params,
        leases: bool,
        loose: bool,
        applied: u64,
        now: Nanos,
    ) -> LeaseMessage {
        self.used = true;
        self.seq += 1;
        let evidence = self.evidence(now);
        let keeps_up = self.keeps_up(to, applied, now);
        let may_hold = leases && keeps_up && self.may_hold(to);
        let fresh = params.lease / 4;
        let broken = self.broken;
        let peer = self.peers.entry(to).or_default();
        let mut grant = None;
        if let (Some(evidence), Some((life, stamp, seen))) = (evidence, peer.stamp) {
            let end = evidence + params.lease;
            if (may_hold || loose) && end > now && end > seen && now < seen + fresh {
                if !loose {
                    // Before the message leaves: from now on the node may believe it.
                    peer.hold_end = peer.hold_end.max(end);
                    peer.granted = Some((self.seq, life));
                }
                let from = if broken == Broken::Stamp { now } else { seen };
                grant = Some(Grant { life, stamp, duration: params.shorter(end - from) });
            }
        }
        LeaseMessage {
            ballot: self.ballot,
            seq: self.seq,
            visible: self.visible,
            complete: self.floor.is_some_and(|floor| self.visible >= floor),
            sent: now,
            params: *params,
            grant,
            give_back: peer.retiring,
            wrong: false,
            loose,
        }
    }

    /// R1, all but the evidence.
    fn may_hold(&self, id: u64) -> bool {
        let Some(floor) = self.floor else { return false };
        let floor = if self.broken == Broken::Floor { 0 } else { floor };
        self.members.committed.contains(&id)
            && self.peers.get(&id).is_some_and(|peer| !peer.retiring && peer.matched >= self.visible.max(floor))
    }

    /// Whether a node has what is applied here, or has lacked it for a short time only.
    fn keeps_up(&mut self, id: u64, applied: u64, now: Nanos) -> bool {
        let peer = self.peers.entry(id).or_default();
        if peer.behind.is_none_or(|(index, _)| peer.matched >= index) {
            peer.behind = (peer.matched < applied).then_some((applied, now));
        }
        let late = peer.behind.is_some_and(|(_, since)| now.saturating_sub(since) > LAG_MAX);
        match peer.left_out {
            None if late => {
                if now.saturating_sub(peer.last_strike) > FORGIVEN {
                    peer.strikes = 0;
                }
                peer.strikes += 1;
                peer.last_strike = now;
                peer.left_out = Some(None);
                self.evictions += 1;
                false
            }
            None => true,
            Some(_) if late => {
                peer.left_out = Some(None);
                false
            }
            Some(None) => {
                peer.left_out = Some(Some(now));
                false
            }
            Some(Some(since)) => {
                let probation = PROBATION.get(peer.strikes - 1).or(PROBATION.last()).copied().unwrap_or_default();
                let over = now.saturating_sub(since) >= probation;
                if over {
                    peer.left_out = None;
                }
                over
            }
        }
    }

    /// A node answered. Answers for another ballot say nothing, nor do answers that newer ones have overtaken.
    pub fn answered(&mut self, from: u64, ack: &LeaseAck, now: Nanos) {
        if ack.ballot != self.ballot {
            return;
        }
        let late = self.broken == Broken::LateAnswers;
        let peer = self.peers.entry(from).or_default();
        if ack.seq == 0 {
            // A node resigns, without having been asked. A lease of a later life is not meant: then this was long on its way.
            if ack.gave_back && (late || peer.granted.is_none_or(|(_, life)| life == ack.life)) {
                (peer.stamp, peer.ended, peer.hold_end) = (None, Some(ack.life), 0);
            }
            return;
        }
        if ack.seq <= peer.answered && !late {
            return;
        }
        peer.answered = peer.answered.max(ack.seq);
        if ack.gave_back {
            // Nor is a lease meant that was given after the question.
            if late || peer.granted.is_none_or(|(granted, _)| granted <= ack.seq) {
                (peer.stamp, peer.hold_end) = (None, 0);
            }
        } else if peer.ended != Some(ack.life) {
            let newer = peer.stamp.is_none_or(|(life, stamp, _)| life != ack.life || ack.stamp > stamp);
            if newer {
                peer.stamp = Some((ack.life, ack.stamp, now));
            }
        }
        if self.all_answered.is_none() && !self.members.nodes.is_empty() && self.have_answered(0) {
            self.all_answered = Some(self.seq);
        }
    }

    /// A node does not answer: it gets no lease until it does.
    pub fn lost(&mut self, from: u64) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.stamp = None;
        }
    }

    /// No more leases for a node that is to be removed (R7), or all as before.
    pub fn retire(&mut self, id: u64, retiring: bool) {
        self.peers.entry(id).or_default().retiring = retiring;
    }

    /// A node joins under an id that was removed in this office: nothing that the one before had or said counts for it, but
    /// the lease that it may still hold.
    pub fn renew(&mut self, id: u64) {
        let peer = self.peers.entry(id).or_default();
        *peer = Peer { hold_end: peer.hold_end, ..Peer::default() };
    }

    /// Whether a node holds no lease of this leader, nor one of an earlier one.
    pub fn is_free(&self, id: u64, params: &Params, longest: Option<&Params>, now: Nanos) -> bool {
        // Before an entry of its own is applied, it may not even know how long leases were.
        let older = self.floor.is_none() || now < self.frozen_until(longest);
        !older && self.peers.get(&id).is_none_or(|peer| !holds(peer, params, now))
    }

    /// Until when each other node may hold a lease, for operators: id and nanoseconds from now.
    pub fn holders(&self, now: Nanos) -> impl Iterator<Item = (u64, Nanos)> + '_ {
        self.peers.iter().map(move |(id, peer)| (*id, peer.hold_end.saturating_sub(now)))
    }
}

fn holds(peer: &Peer, params: &Params, now: Nanos) -> bool {
    peer.hold_end != 0 && now <= peer.hold_end + params.eps
}
