//! Whether a history of reads and writes is linearizable, given the order of the writes.
//!
//! The order of the writes is the log's, so the question is easy (unlike the general one). The state after index `q` is
//! known for every `q`. A write takes place at its own index. A read must be given some `q` at which the state was, in all
//! parts that it saw, what it showed: that is a range from the newest entry that it showed to the last before the next that
//! it did not. If `a` returned before `b` was invoked, `b`'s `q` must not be less than `a`'s, and more if `b` is a write.
//! Giving each operation, in order of invocation, the least `q` that is left finds an assignment if there is one.

use crate::raft::{Body, Entry};
use crate::state::{bits, touched, Parts, Shown};

/// One operation of a client. Times are numbers of events.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    pub(crate) node: usize,
    pub(crate) invoked: u64,
    pub(crate) returned: Option<u64>,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Write,
    Read { parts: Parts, shown: Shown, way: &'static str },
}

impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { node, invoked, returned, .. } = self;
        match &self.what {
            What::Write => write!(f, "a write")?,
            What::Read { parts, shown, way } => write!(f, "a read ({way}) of {parts:#b} that shows {shown:?}")?,
        }
        write!(f, " at node {node} in {invoked}..{returned:?}")
    }
}

/// What is wrong with a history, if anything.
pub(crate) fn check(ops: &[Op], committed: &[Entry]) -> Result<(), String> {
    let end = committed.len() as u64;
    // For every part the indexes that changed it, ascending.
    let mut changes = vec![Vec::new(); crate::state::COUNT];
    let mut index_of = vec![None; ops.len()];
    for (index, entry) in (1..).zip(committed) {
        for part in bits(touched(entry)) {
            changes[part].push(index);
        }
        if let Body::Write(op, _) = entry.body {
            index_of[op] = Some(index);
        }
    }
    let range = |op: usize| -> Result<Option<(u64, u64)>, String> {
        match &ops[op].what {
            Write => match index_of[op] {
                Some(index) => Ok(Some((index, index))),
                None if ops[op].returned.is_some() => Err(format!("lost, though acknowledged: {}", ops[op])),
                None => Ok(None),
            },
            Read { .. } if ops[op].returned.is_none() => Ok(None),
            Read { parts, shown, .. } => {
                let mut range = (0, end);
                for part in bits(*parts) {
                    let (changes, shown) = (&changes[part], shown[part]);
                    let next = changes.partition_point(|index| *index <= shown);
                    if shown != 0 && changes[next.wrapping_sub(1)] != shown {
                        return Err(format!("never committed: {}", ops[op]));
                    }
                    range.0 = range.0.max(shown);
                    range.1 = range.1.min(changes.get(next).map_or(end, |next| next - 1));
                }
                Ok(Some(range))
            }
        }
    };
    use What::{Read, Write};
    let mut by_invocation = Vec::new();
    for op in 0..ops.len() {
        if let Some(range) = range(op)? {
            by_invocation.push((op, range));
        }
    }
    by_invocation.sort_by_key(|(op, _)| ops[*op].invoked);
    // When each operation returned, where it was put. Those that never did bind nobody.
    let mut returns = std::collections::BTreeMap::new();
    let mut floor = (0, usize::MAX);
    for (op, (low, high)) in by_invocation {
        while let Some(first) = returns.first_entry().filter(|first| *first.key() < ops[op].invoked) {
            floor = floor.max(first.remove());
        }
        let write = matches!(ops[op].what, Write);
        let least = low.max(floor.0);
        if least > high || write && floor.0 >= low {
            let before = ops.get(floor.1).map_or_else(String::new, Op::to_string);
            return Err(format!("{} belongs into {low}..={high}, after {before}, which is at {}", ops[op], floor.0));
        }
        if let Some(returned) = ops[op].returned {
            returns.insert(returned, (least, op));
        }
    }
    Ok(())
}
