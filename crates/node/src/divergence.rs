//! Finding the node whose state is not the others' (design C5).
//!
//! Every node sends its newest checkpoint, index and root hash of its state, with its answers to the leader. At one index
//! all roots are equal; where they are not, the majority is right.

use std::collections::{BTreeMap, BTreeSet};

/// Indexes that are compared at once: nodes are seldom further apart, and an older checkpoint was compared already.
const INDEXES: usize = 16;

/// What nodes have said of their states.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    said: BTreeMap<u64, BTreeMap<u64, [u8; 32]>>,
}

/// Who is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nobody, as far as is known.
    Agreed,
    /// These nodes: a majority has another state.
    Wrong(BTreeSet<u64>),
    /// Nobody can tell: there is no majority for any state.
    Split,
}

impl Comparison {
    /// `node` has this root at `index`. `voters` are those whose majority decides.
    pub(crate) fn report(&mut self, node: u64, index: u64, root: [u8; 32], voters: &BTreeSet<u64>) -> Verdict {
        self.said.entry(index).or_default().insert(node, root);
        while self.said.len() > INDEXES {
            self.said.pop_first();
        }
        let Some(said) = self.said.get(&index) else { return Verdict::Agreed };
        if said.values().all(|said| *said == root) {
            return Verdict::Agreed;
        }
        let mut counts: BTreeMap<[u8; 32], usize> = BTreeMap::new();
        for (_, root) in said.iter().filter(|(node, _)| voters.contains(node)) {
            *counts.entry(*root).or_default() += 1;
        }
        let majority = voters.len() / 2 + 1;
        match counts.iter().find(|(_, count)| **count >= majority) {
            Some((right, _)) => {
                Verdict::Wrong(said.iter().filter(|(_, root)| *root != right).map(|(node, _)| *node).collect())
            }
            None if voters.iter().all(|voter| said.contains_key(voter)) => Verdict::Split,
            None => Verdict::Agreed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_majority_is_right() {
        let voters = BTreeSet::from([1, 2, 3]);
        let mut comparison = Comparison::default();
        let mut report = |node, index, byte| comparison.report(node, index, [byte; 32], &voters);
        assert_eq!(report(1, 256, 7), Verdict::Agreed);
        assert_eq!(report(2, 256, 8), Verdict::Agreed, "one against one: nobody knows");
        assert_eq!(report(3, 256, 7), Verdict::Wrong(BTreeSet::from([2])));
        assert_eq!(report(1, 512, 1), Verdict::Agreed);
        assert_eq!(report(3, 512, 1), Verdict::Agreed);
        // A learner is judged, but has no say.
        assert_eq!(report(4, 512, 2), Verdict::Wrong(BTreeSet::from([4])));
        assert_eq!(report(2, 768, 1), Verdict::Agreed);
        assert_eq!(report(1, 768, 2), Verdict::Agreed);
        assert_eq!(report(3, 768, 3), Verdict::Split);
    }

    #[test]
    fn old_indexes_are_forgotten() {
        let mut comparison = Comparison::default();
        for index in 0..100 {
            comparison.report(1, index * 256, [0; 32], &BTreeSet::from([1]));
        }
        assert_eq!(comparison.said.len(), INDEXES);
    }
}
