//! Parsed private keys, kept because parsing one costs half a signature and more (design, crypto section 1).
//!
//! A key is looked up only after the state has said that its version exists and may be used; material never changes under
//! a version's id, so that the id is all the cache needs to know. Evicted keys are wiped by the library that holds them.

use claviger_crypto::provider::LoadedKey;
use claviger_types::name::Id128;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

/// Keys kept: an RSA-4096 key costs 11 KB, so this is 110 MB at worst.
const KEYS: usize = 10_000;

type Keys = LruCache<(Id128, Id128), Arc<dyn LoadedKey>>;

/// The cache of one node.
pub(crate) struct KeyCache(Mutex<Keys>);

impl Default for KeyCache {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(NonZeroUsize::new(KEYS).unwrap_or(NonZeroUsize::MIN))))
    }
}

impl KeyCache {
    pub(crate) fn get(&self, vault: Id128, version: Id128) -> Option<Arc<dyn LoadedKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&(vault, version)).cloned()
    }

    pub(crate) fn put(&self, vault: Id128, version: Id128, key: Arc<dyn LoadedKey>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put((vault, version), key);
    }
}
