//! What the service does with keys by itself, and when (contract 10.4): rotation and near-expiry events.
//!
//! [`schedule`] is a pure function of an object's head and newest version, so that the rows of [`Table::Rotation`] can be
//! taken away before a change and put back after it without remembering anything. A row names the newest version that it
//! was made for: what is proposed for it is refused once there is a newer one, so that nothing happens twice.
//!
//! Near-expiry events stay in [`Table::Notices`] by log index until [`NOTICE_MS`] have passed: whoever delivers them reads
//! on from the last index that it has seen ([`crate::read::notices`]).
//!
//! A disabled newest version is left alone: a rotation would quietly bring a key back into use that somebody has switched
//! off. It falls due again when it is enabled.

use crate::keys;
use crate::kv::{Kv, Table};
use crate::read;
use crate::records::{Head, Notice, Notified, FORMAT};
use crate::ApplyError;
use claviger_types::codec;
use claviger_types::command::RotateTrigger;
use claviger_types::duration::IsoDuration;
use claviger_types::name::{Id128, Kind};
use claviger_types::outcome::ObjectVersion;

/// When near-expiry events are due unless the policy says otherwise (contract 10.4).
pub const NOTIFY_DEFAULT: &str = "P30D";

/// How long an event is kept, in milliseconds of state time: the longest retention, so that no delivery is that late.
const NOTICE_MS: u64 = 90 * 86_400_000;

/// Old events removed for each new one: more than one, so that the table shrinks after a burst.
const FORGET_PER_NOTICE: usize = 4;

/// What falls due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// A new version is to be made.
    Rotate,
    /// The newest version comes to its end soon.
    NearExpiry,
}

impl Due {
    /// The stored number.
    pub(crate) fn number(self) -> u8 {
        match self {
            Due::Rotate => 1,
            Due::NearExpiry => 2,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Due::Rotate, Due::NearExpiry].into_iter().find(|due| due.number() == number)
    }
}

/// When a key is rotated, in seconds; `None`: never.
pub fn rotation_time(head: &Head, newest: &ObjectVersion) -> Option<u64> {
    if !newest.attributes.enabled {
        return None;
    }
    match head.rotation.as_ref()?.rotate.as_ref()? {
        RotateTrigger::AfterCreate(text) => Some(IsoDuration::parse(text)?.after(newest.created)),
        RotateTrigger::BeforeExpiry(text) => Some(IsoDuration::parse(text)?.before(newest.attributes.expires?)),
    }
}

/// When the near-expiry event of the newest version is due, in seconds; `None`: never.
pub fn notice_time(head: &Head, newest: &ObjectVersion) -> Option<u64> {
    if !newest.attributes.enabled {
        return None;
    }
    let before = head.rotation.as_ref().map_or(NOTIFY_DEFAULT, |policy| &policy.notify_before_expiry);
    Some(IsoDuration::parse(before)?.before(newest.attributes.expires?))
}

/// Everything that is to happen to a key, and when.
fn schedule(head: &Head, newest: &ObjectVersion, notified: Option<&Notified>) -> Vec<(u64, Due)> {
    let told = notified.is_some_and(|told| *told == notified_of(newest));
    let rotate = rotation_time(head, newest).map(|time| (time, Due::Rotate));
    let notice = notice_time(head, newest).filter(|_| !told).map(|time| (time, Due::NearExpiry));
    rotate.into_iter().chain(notice).collect()
}

fn notified_of(newest: &ObjectVersion) -> Notified {
    Notified { version: newest.version, expires: newest.attributes.expires }
}

/// The rows of one live key as the state is now.
fn rows(kv: &impl Kv, vault: Id128, folded: &str) -> Result<Vec<(Vec<u8>, Id128)>, ApplyError> {
    let Some(head) = read::head(kv, vault, Kind::Key, folded)? else { return Ok(Vec::new()) };
    let Some(newest) = read::version(kv, vault, Kind::Key, folded, head.newest)? else { return Ok(Vec::new()) };
    let object = keys::object(vault, Kind::Key, folded);
    let notified = read::notified(kv, &object)?;
    let due = schedule(&head, &newest, notified.as_ref()).into_iter();
    Ok(due.map(|(time, due)| (keys::rotation(time, due.number(), &object), newest.version)).collect())
}

/// Takes away the rows of a key: before the key changes.
pub(crate) fn unschedule(kv: &mut impl Kv, vault: Id128, kind: Kind, folded: &str) -> Result<(), ApplyError> {
    if kind == Kind::Key {
        for (key, _) in rows(kv, vault, folded)? {
            kv.delete(Table::Rotation, key);
        }
    }
    Ok(())
}

/// Puts the rows of a key: after it has changed.
pub(crate) fn reschedule(kv: &mut impl Kv, vault: Id128, kind: Kind, folded: &str) -> Result<(), ApplyError> {
    if kind == Kind::Key {
        for (key, version) in rows(kv, vault, folded)? {
            kv.put(Table::Rotation, key, codec::to_versioned(FORMAT, &(vault, folded, version))?);
        }
    }
    Ok(())
}

/// Whether the event of this version and expiry was written already.
pub(crate) fn was_noticed(kv: &impl Kv, vault: Id128, newest: &ObjectVersion) -> Result<bool, ApplyError> {
    let object = keys::object(vault, Kind::Key, &newest.name.folded());
    Ok(read::notified(kv, &object)?.is_some_and(|told| told == notified_of(newest)))
}

/// Writes the event of a version that comes to its end, and forgets old ones.
pub(crate) fn notice(
    kv: &mut impl Kv,
    index: u64,
    now: u64,
    vault: Id128,
    newest: &ObjectVersion,
) -> Result<(), ApplyError> {
    let object = keys::object(vault, Kind::Key, &newest.name.folded());
    kv.put(Table::Rotation, keys::notified(&object), codec::to_versioned(FORMAT, &notified_of(newest))?);
    let notice = Notice {
        time: now,
        vault,
        kind: newest.kind,
        name: newest.name.clone(),
        version: newest.version,
        expires: newest.attributes.expires.unwrap_or(0),
    };
    kv.put(Table::Notices, keys::event(index), codec::to_versioned(FORMAT, &notice)?);
    for (key, value) in kv.scan(Table::Notices, &[], &keys::event(index), FORGET_PER_NOTICE)? {
        let old: Notice = codec::from_versioned(FORMAT, &value)?;
        if old.time.saturating_add(NOTICE_MS / 1000) < now {
            kv.delete(Table::Notices, key);
        }
    }
    Ok(())
}
