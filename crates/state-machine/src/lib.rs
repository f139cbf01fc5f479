//! Commands to outcomes: the replicated state machine, pure and deterministic.
//!
//! This crate knows neither openraft nor RocksDB, neither HTTP nor tokio. State is reached through [`Kv`]; time arrives in
//! the entry; nothing is random. Two replicas that apply the same entries hold the same bytes, row by row.
//!
//! Invariants: a business refusal is an outcome and changes nothing but the bookkeeping of the entry itself; an error is
//! this node's own trouble (disk, corruption, a command it does not know) and stops the node; every applied entry extends
//! the audit chain (design C6).

mod access;
mod apply;
mod directory;
mod keys;
pub mod kv;
mod manage;
mod policy;
pub mod read;
pub mod records;
pub mod rotation;
mod touches;

pub use access::{allowed, allowed_in, may_change_directory, Access, Subject};
pub use apply::{apply, ApplyError, PURGE_ROWS_MAX};
pub use keys::READS;
pub use kv::{Kv, MemKv, Read, StoreError, Table};
pub use policy::{required_permission, Need, Required, SECRET_UPDATE};
pub use touches::{touches, ConflictKey};

#[cfg(test)]
mod tests;
