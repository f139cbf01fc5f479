//! The half of every node: what it may answer by itself.

use crate::{Ballot, Broken, LeaseAck, LeaseMessage, Nanos};
use std::collections::VecDeque;

/// How long the rates of two clocks are watched before they are judged, in nanoseconds.
const BASELINE: Nanos = 2_000_000_000;

/// What was heard of the past and may wait for its index to be applied; the oldest is dropped.
const HEARD_MAX: usize = 64;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was of an older leader: nothing happened, there is no answer.
    Old,
    /// It was taken in; to be answered.
    Answer(LeaseAck),
}

/// What one node holds.
#[derive(Debug, Clone)]
pub struct Holder {
    life: u64,
    broken: Broken,
    /// Highest ballot heard of in a message.
    seen: Ballot,
    lease: Option<(Ballot, Nanos)>,
    visible: u64,
    /// No leases any more: the process is about to end, or its state is not to be trusted.
    resigned: bool,
    /// No leases before this time: the clock was found wrong.
    alarmed_until: Nanos,
    alarms: u64,
    rates: Option<Rates>,
    /// Indexes, and when everything acknowledged before was up to there, on this node's clock.
    heard: VecDeque<(u64, Nanos)>,
}

/// Two clocks, compared by what one shows when it hears of the other.
#[derive(Debug, Clone, Copy)]
struct Rates {
    ballot: Ballot,
    /// Here and there, when the comparison began.
    start: (Nanos, Nanos),
    /// Smallest difference in the first [`BASELINE`]: the fastest message, and so the nearest to the truth.
    base: i128,
}

impl Holder {
    /// A node that has just started. `life` is random.
    pub fn new(life: u64) -> Self {
        Self {
            life,
            broken: Broken::Nothing,
            seen: Ballot::default(),
            lease: None,
            visible: 0,
            resigned: false,
            alarmed_until: 0,
            alarms: 0,
            rates: None,
            heard: VecDeque::new(),
        }
    }

    /// Switches a rule off; only in tests.
    pub fn break_rule(&mut self, rule: Broken) {
        self.broken = rule;
    }

    /// Takes a message in and answers it. `last` is the end of this node's log, `applied` what it has applied.
    pub fn receive(
        &mut self,
        message: &LeaseMessage,
        last: u64,
        applied: u64,
        checkpoint: Option<(u64, [u8; 32])>,
        next_life: u64,
        now: Nanos,
    ) -> Taken {
        if message.ballot < self.seen {
            return Taken::Old;
        }
        if message.ballot > self.seen {
            self.seen = message.ballot;
            self.lease = None;
        }
        self.visible = self.visible.max(message.visible);
        if self.compare(message, now) {
            self.alarms += 1;
            self.alarmed_until = now + message.params.freeze();
            self.drop_lease(next_life);
        }
        if message.give_back {
            self.drop_lease(next_life);
        }
        if let Some(grant) = message.grant.filter(|grant| grant.life == self.life) {
            let from = if self.broken == Broken::Stamp { now } else { grant.stamp };
            let end = from.saturating_add(grant.duration);
            // A node that has lost the end of its log is not fenced, whatever it once had acknowledged.
            let fenced = last >= message.visible;
            if end > now && now >= self.alarmed_until && !self.resigned && !message.give_back {
                if message.complete {
                    // The leader's proof is at least so new: the grant ends a lease time after it.
                    self.heard(message.visible, end.saturating_sub(message.params.lease));
                }
                if fenced && !message.loose {
                    let before = self.lease.filter(|(ballot, _)| *ballot == message.ballot).map_or(0, |(_, e)| e);
                    self.lease = Some((message.ballot, end.max(before)));
                }
            }
        }
        let gave_back = self.resigned || message.give_back || now < self.alarmed_until;
        Taken::Answer(LeaseAck {
            ballot: message.ballot,
            seq: message.seq,
            life: self.life,
            stamp: now,
            applied,
            gave_back,
            checkpoint,
        })
    }

    /// Whether this node's clock has fallen behind the leader's more than the promise allows.
    fn compare(&mut self, message: &LeaseMessage, now: Nanos) -> bool {
        let difference = i128::from(now) - i128::from(message.sent);
        let rates = match &mut self.rates {
            Some(rates) if rates.ballot == message.ballot => rates,
            rates => {
                *rates = Some(Rates { ballot: message.ballot, start: (now, message.sent), base: difference });
                return false;
            }
        };
        if now.saturating_sub(rates.start.0) < BASELINE && message.sent.saturating_sub(rates.start.1) < 2 * BASELINE {
            rates.base = rates.base.min(difference);
            return false;
        }
        let elapsed = message.sent.saturating_sub(rates.start.1);
        let allowed = elapsed - message.params.shorter(elapsed) + message.params.lease / 4;
        let wrong = difference + i128::from(allowed) < rates.base;
        if wrong {
            self.rates = None;
        }
        wrong
    }

    fn drop_lease(&mut self, next_life: u64) {
        self.lease = None;
        self.life = next_life;
    }

    /// This node leads now, or hears that another does: leases of older ballots end.
    pub fn follow(&mut self, ballot: Ballot) {
        if ballot > self.seen {
            self.seen = ballot;
            self.lease = None;
        }
    }

    /// Gives the lease back for good (R6), and says so in every answer; `next_life` is random. Answers what to tell the
    /// leader.
    pub fn resign(&mut self, next_life: u64, now: Nanos) -> LeaseAck {
        let life = self.life;
        self.drop_lease(next_life);
        self.resigned = true;
        LeaseAck { ballot: self.seen, seq: 0, life, stamp: now, applied: 0, gave_back: true, checkpoint: None }
    }

    /// Until when the lease lasts; 0 without one.
    pub fn lease_end(&self) -> Nanos {
        self.lease.map_or(0, |(_, end)| end)
    }

    /// Whatever was acknowledged before `since`, on this node's clock, is up to `index`.
    pub fn heard(&mut self, index: u64, since: Nanos) {
        self.heard.push_back((index, since));
        if self.heard.len() > HEARD_MAX {
            self.heard.pop_front();
        }
    }

    /// How far a state is behind at most, in which everything up to `applied` is applied; `None` when nothing is known.
    pub fn behind(&self, applied: u64, now: Nanos) -> Option<Nanos> {
        let known = self.heard.iter().filter(|(index, _)| *index <= applied).map(|(_, since)| *since).max();
        known.map(|since| now.saturating_sub(since))
    }

    /// Everything up to here is visible, as far as this node has heard.
    pub fn visible(&self) -> u64 {
        self.visible
    }

    /// The leader, or this node as leader, says so.
    pub fn heard_visible(&mut self, visible: u64) {
        self.visible = self.visible.max(visible);
    }

    /// The highest ballot heard of.
    pub fn seen(&self) -> Ballot {
        self.seen
    }

    /// Times that the clock was found wrong.
    pub fn alarms(&self) -> u64 {
        self.alarms
    }
}
