//! The state as the state machine sees it: ordered tables of bytes.

use std::collections::BTreeMap;

/// A failure of the store below. It stops the node; it is never an answer to a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("state store: {0}")]
pub struct StoreError(pub String);

macro_rules! tables {
    ($($(#[$meta:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// The state tables; each is a column family in RocksDB. Names are stored.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Table { $($(#[$meta])* $name),+ }

        impl Table {
            /// Every table.
            pub const ALL: &'static [Table] = &[$(Table::$name),+];
            /// The stored name.
            pub fn name(self) -> &'static str { match self { $(Table::$name => $text),+ } }
        }
    };
}

tables! {
    /// World, clock, audit chain; the log's own bookkeeping (applied, membership).
    Meta = "meta",
    /// Vault id -> vault.
    Vaults = "vaults",
    /// Vault name -> vault id.
    VaultNames = "vault_names",
    /// (vault, tenant, oid) -> access policy.
    Policies = "policies",
    /// (vault, kind, name) -> head of a live object.
    Objects = "objects",
    /// (vault, kind, name) -> head of a soft-deleted object.
    Deleted = "deleted",
    /// (purge time, vault, kind, name) -> nothing: what the purge timer looks at.
    Due = "due",
    /// (vault, kind, name, version) -> version, without material.
    Versions = "versions",
    /// (vault, kind, name, version) -> sealed material: erasable, outside the chain.
    Material = "material",
    /// Applications and token keys.
    Identity = "identity",
    /// Resource groups, role assignments, custom roles, what is left of purged vaults.
    Resources = "resources",
    /// Log index -> what happened, with the chain hash.
    Events = "events",
    /// Request id -> outcome, for retries.
    Idempotency = "idempotency",
    /// (time, what, vault, kind, name) -> vault, name, version: what the scheduler looks at; and what was told already.
    Rotation = "rotation",
    /// Log index -> near-expiry event.
    Notices = "notices",
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Reading the state.
pub trait Read {
    /// One row.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Rows with `from <= key < to`, ascending, at most `limit`.
    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreError>;
}

/// Changing the state. Changes are buffered and become durable together, with the applied index.
pub trait Kv: Read {
    /// Sets a row.
    fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>);
    /// Removes a row.
    fn delete(&mut self, table: Table, key: Vec<u8>);
}

/// The state in memory: the model for tests and the store of the simulation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemKv {
    tables: BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl MemKv {
    /// Every row, ordered: for comparing replicas.
    pub fn rows(&self) -> impl Iterator<Item = (Table, &Vec<u8>, &Vec<u8>)> {
        self.tables.iter().flat_map(|(table, rows)| rows.iter().map(move |(k, v)| (*table, k, v)))
    }
}

impl Read for MemKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let rows = self.tables.get(&table).into_iter();
        Ok(rows
            .flat_map(|rows| rows.range(from.to_vec()..to.to_vec()))
            .take(limit)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect())
    }
}

impl Kv for MemKv {
    fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.tables.entry(table).or_default().insert(key, value);
    }

    fn delete(&mut self, table: Table, key: Vec<u8>) {
        if let Some(rows) = self.tables.get_mut(&table) {
            rows.remove(&key);
        }
    }
}
