//! Rules that matter only when several things coincide, each in the shortest story that needs it: told twice, with the rule
//! and without. The model (`tests/model`) meets some of these once in thousands of seeds.

use claviger_lease::{Ballot, Broken, Holder, Leader, LeaseAck, LeaseMessage, Members, Nanos, Params, Taken};
use std::collections::BTreeSet;
use std::sync::Arc;

const MS: Nanos = 1_000_000;
const PARAMS: Params = Params { lease: 1_000 * MS, rho_ppm: 1_000, eps: MS };

/// A leader of nodes 1, 2 and 3.
fn leader(term: u64, node: u64, rule: Broken, now: Nanos) -> Leader {
    let voters = BTreeSet::from([1, 2, 3]);
    let members = Members { configs: vec![voters.clone()], nodes: voters.clone(), committed: voters };
    let mut leader = Leader::new(Ballot { term, node }, Arc::new(members), 0, now);
    leader.break_rule(rule);
    leader
}

fn message(leader: &mut Leader, to: u64, applied: u64, now: Nanos) -> LeaseMessage {
    leader.message(to, &PARAMS, true, false, applied, now)
}

/// The answer of a node that has everything up to `last`.
fn receive(holder: &mut Holder, message: &LeaseMessage, last: u64, next_life: u64, now: Nanos) -> LeaseAck {
    match holder.receive(message, last, last, None, next_life, now) {
        Taken::Answer(ack) => ack,
        Taken::Old => panic!("the message is of an older leader"),
    }
}

fn advance(leader: &mut Leader, term: u64, applied: u64, now: Nanos) {
    leader.advance(&PARAMS, Some(&PARAMS), applied, term, now);
}

/// A leader at node 1 whose entry 5 is applied, which node 2 has too.
fn settled(term: u64, rule: Broken, now: Nanos) -> Leader {
    let mut leader = leader(term, 1, rule, now);
    leader.accepted(2, now, 5);
    advance(&mut leader, term, 5, now);
    leader
}

#[test]
fn a_vote_that_was_given_after_the_office_began_does_not_shorten_the_freeze() {
    let until = |rule| {
        // Node 2 led until it voted; node 1 has not heard of it for long.
        let mut leader = leader(2, 1, rule, 1_000 * MS);
        leader.voted(1, 900 * MS);
        leader.voted(2, 0);
        advance(&mut leader, 2, 5, 1_000 * MS);
        // Node 3 votes at 1,100 ms, by the same clock, and had heard of node 2 until 500 ms. So node 2 had proof of a quorum
        // at 500 ms, and leases of it last until 1,500 ms.
        leader.voted(3, 600 * MS);
        leader.frozen_until(Some(&PARAMS))
    };
    assert!(until(Broken::Nothing) >= 1_500 * MS);
    assert!(until(Broken::LateVotes) < 1_500 * MS, "the story does not need the rule");
}

#[test]
fn a_node_that_starts_again_after_it_answered_holds_no_older_lease_when_the_freeze_ends() {
    // Node 3 leads in term 1; node 1 is elected in term 2, with node 2's vote, and node 3 has not heard of it.
    let story = |rule| {
        let mut old = leader(1, 3, Broken::Nothing, 0);
        old.accepted(2, 90 * MS, 4);
        advance(&mut old, 1, 4, 90 * MS);
        let mut new = settled(2, rule, 100 * MS);
        let (mut at_2, mut at_3) = (Holder::new(20), Holder::new(30));
        // Node 2 hears of the new leader, drops what it had, and starts again: it remembers nothing.
        let first = message(&mut new, 2, 5, 101 * MS);
        new.answered(2, &receive(&mut at_2, &first, 5, 21, 102 * MS), 103 * MS);
        at_2 = Holder::new(22);
        // The old leader gives it a lease, which is on its way when the old leader hears of the new one.
        let asked = message(&mut old, 2, 4, 104 * MS);
        old.answered(2, &receive(&mut at_2, &asked, 4, 23, 105 * MS), 106 * MS);
        let given = message(&mut old, 2, 4, 107 * MS);
        let heard = message(&mut new, 3, 5, 107 * MS);
        new.answered(3, &receive(&mut at_3, &heard, 4, 31, 108 * MS), 109 * MS);
        drop(old);
        receive(&mut at_2, &given, 4, 24, 110 * MS);
        // The new leader may have more to ask, of node 3 for one.
        let again = message(&mut new, 3, 5, 111 * MS);
        new.answered(3, &receive(&mut at_3, &again, 4, 32, 112 * MS), 113 * MS);
        advance(&mut new, 2, 5, 114 * MS);
        (at_2.lease_end() > 114 * MS, new.visible())
    };
    assert_eq!(story(Broken::Nothing), (true, 0), "the freeze goes on, for node 2 holds a lease");
    assert_eq!(story(Broken::OneRound), (true, 5), "the story does not need the rule");
}

#[test]
fn the_freeze_ends_when_everyone_has_answered_twice() {
    let mut new = settled(2, Broken::Nothing, 100 * MS);
    let mut holders = [(2, Holder::new(20)), (3, Holder::new(30))];
    for round in 0..2 {
        for (id, holder) in &mut holders {
            assert_eq!(new.visible(), 0);
            let asked = message(&mut new, *id, 5, (101 + round) * MS);
            new.answered(*id, &receive(holder, &asked, 5, 99, (101 + round) * MS), (101 + round) * MS);
            advance(&mut new, 2, 5, (101 + round) * MS);
        }
    }
    assert_eq!(new.visible(), 5);
}

/// A holder at node 2 that has a lease, and its leader.
fn held(rule: Broken) -> (Leader, Holder, Nanos) {
    let mut leader = settled(1, rule, 0);
    let mut holder = Holder::new(20);
    let mut now = 0;
    for _ in 0..2 {
        now += 10 * MS;
        leader.accepted(2, now, 5);
        let asked = message(&mut leader, 2, 5, now);
        leader.answered(2, &receive(&mut holder, &asked, 5, 21, now), now);
    }
    assert!(holder.lease_end() > now);
    (leader, holder, now)
}

/// Until when the leader believes that node 2 has a lease, from now.
fn known(leader: &Leader, now: Nanos) -> Nanos {
    leader.holders(now).find(|(id, _)| *id == 2).map_or(0, |(_, span)| span)
}

#[test]
fn an_old_answer_takes_no_newer_lease_away() {
    let story = |rule| {
        let (mut leader, mut holder, mut now) = held(rule);
        // Node 2 is to be removed, gives its lease back, and stays after all; that it gave back is told twice.
        leader.retire(2, true);
        let asked = message(&mut leader, 2, 5, now);
        let gave_back = receive(&mut holder, &asked, 5, 22, now);
        assert!(gave_back.gave_back && holder.lease_end() == 0);
        leader.answered(2, &gave_back, now);
        assert_eq!(known(&leader, now), 0);
        leader.retire(2, false);
        for life in 23..25 {
            now += MS;
            leader.accepted(2, now, 5);
            let asked = message(&mut leader, 2, 5, now);
            leader.answered(2, &receive(&mut holder, &asked, 5, life, now), now);
        }
        assert!(holder.lease_end() > now);
        leader.answered(2, &gave_back, now);
        known(&leader, now)
    };
    assert!(story(Broken::Nothing) > 0);
    assert_eq!(story(Broken::LateAnswers), 0, "the story does not need the rule");
}

#[test]
fn a_process_that_resigned_takes_no_lease_of_the_next_one_away() {
    let story = |rule| {
        let (mut leader, mut holder, mut now) = held(rule);
        let resigned = holder.resign(22, now);
        let mut holder = Holder::new(30);
        for life in 31..33 {
            now += MS;
            leader.accepted(2, now, 5);
            let asked = message(&mut leader, 2, 5, now);
            leader.answered(2, &receive(&mut holder, &asked, 5, life, now), now);
        }
        assert!(holder.lease_end() > now);
        leader.answered(2, &resigned, now);
        known(&leader, now)
    };
    assert!(story(Broken::Nothing) > 0);
    assert_eq!(story(Broken::LateAnswers), 0, "the story does not need the rule");
}

#[test]
fn a_lease_that_is_given_back_ends_at_once() {
    let (mut leader, mut holder, now) = held(Broken::Nothing);
    leader.answered(2, &holder.resign(22, now), now);
    assert_eq!((known(&leader, now), holder.lease_end()), (0, 0));
    assert!(leader.is_free(2, &PARAMS, None, now));
    // What it holds no more is not given again, whatever arrives late.
    let asked = message(&mut leader, 2, 5, now);
    assert_eq!(asked.grant, None);
    let ack = receive(&mut holder, &asked, 5, 23, now);
    assert!(ack.gave_back);
    leader.answered(2, &ack, now);
    assert_eq!(known(&leader, now), 0);
}

#[test]
fn a_node_that_has_lost_its_clocks_trust_gets_leases_again() {
    let (mut leader, mut holder, now) = held(Broken::Nothing);
    // Answers that it gave before it held its tongue come after those that it gives now: they are not heard.
    let asked = message(&mut leader, 2, 5, now);
    let mut old = receive(&mut holder, &asked, 5, 21, now);
    old.gave_back = true;
    let asked = message(&mut leader, 2, 5, now);
    leader.answered(2, &receive(&mut holder, &asked, 5, 21, now), now);
    leader.answered(2, &old, now);
    assert!(message(&mut leader, 2, 5, now).grant.is_some());
}

#[test]
fn a_process_that_resigned_does_not_shut_the_next_one_out() {
    let (mut leader, mut holder, now) = held(Broken::Nothing);
    let slow = message(&mut leader, 2, 5, now);
    let fast = message(&mut leader, 2, 5, now);
    holder.resign(22, now);
    let gave_back = receive(&mut holder, &fast, 5, 23, now);
    // The next process answers the older message, and is heard first.
    let mut holder = Holder::new(30);
    leader.answered(2, &receive(&mut holder, &slow, 5, 31, now), now);
    leader.answered(2, &gave_back, now);
    let asked = message(&mut leader, 2, 5, now);
    leader.answered(2, &receive(&mut holder, &asked, 5, 32, now), now);
    assert!(message(&mut leader, 2, 5, now).grant.is_some());
}

#[test]
fn before_its_first_entry_is_applied_a_leader_calls_nobody_free() {
    let mut leader = leader(2, 1, Broken::Nothing, 0);
    // Later than any lease that it knows of: but what it has applied may not say how long they were.
    let later = 10_000 * MS;
    assert!(!leader.is_free(2, &PARAMS, None, later));
    advance(&mut leader, 2, 5, later);
    assert!(leader.is_free(2, &PARAMS, None, later));
}
