//! The key hierarchy: world key, vault keys, sealed material, backup blobs (architecture, "Key hierarchy").
//!
//! Plaintext material enters and leaves sealed form here and nowhere else. What a sealed record is (world, vault, kind,
//! name, version) is authenticated with it, so that a record that was moved or relabelled does not open.

use crate::error::ServiceError;
use claviger_crypto::seal::{Aad, SealKey};
use claviger_crypto::secret::SecretBytes;
use claviger_crypto::CryptoError;
use claviger_state_machine::records::Vault;
use claviger_types::name::{Id128, Kind};
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

/// Vault keys kept unsealed: opening one costs microseconds, holding one 50 bytes.
const VAULT_KEYS: usize = 4096;

/// First bytes of a backup blob: what it is, and its format.
const BACKUP_MAGIC: &[u8] = b"CLVB\x01";

/// Seals and opens under the world key.
pub struct Sealer {
    world: Id128,
    key: SealKey,
    vault_keys: Mutex<LruCache<Id128, Arc<SealKey>>>,
}

/// Which object version a sealed record belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Label<'a> {
    /// The vault.
    pub vault: Id128,
    /// Which collection.
    pub kind: Kind,
    /// Folded name.
    pub name: &'a str,
    /// The version.
    pub version: Id128,
}

impl Sealer {
    /// Over an unsealed world key.
    pub fn new(world: Id128, key: SealKey) -> Self {
        let size = NonZeroUsize::new(VAULT_KEYS).unwrap_or(NonZeroUsize::MIN);
        Self { world, key, vault_keys: Mutex::new(LruCache::new(size)) }
    }

    /// The world that everything is bound to.
    pub fn world(&self) -> Id128 {
        self.world
    }

    /// A fresh vault key, wrapped by the world key.
    pub fn new_vault_key(&self, vault: Id128) -> Result<Vec<u8>, CryptoError> {
        let key = SealKey::generate()?;
        let plain = SecretBytes::new([key.id().as_slice(), key.expose()].concat());
        self.key.seal(&self.vault_aad(vault), plain.expose())
    }

    fn vault_aad(&self, vault: Id128) -> Aad {
        Aad::new("claviger vault key v1").field("world", &self.world.0).field("vault", &vault.0)
    }

    /// The unsealed key of a vault.
    pub fn vault_key(&self, vault: &Vault) -> Result<Arc<SealKey>, CryptoError> {
        if let Some(key) = self.vault_keys.lock().unwrap_or_else(PoisonError::into_inner).get(&vault.id) {
            return Ok(key.clone());
        }
        let plain = self.key.open(&self.vault_aad(vault.id), &vault.wrapped_key)?;
        let (id, key) = plain.expose().split_at_checked(16).ok_or(CryptoError::BadKey)?;
        let id = id.try_into().map_err(|_| CryptoError::BadKey)?;
        let key = Arc::new(SealKey::from_parts(id, SecretBytes::new(key.to_vec()))?);
        self.vault_keys.lock().unwrap_or_else(PoisonError::into_inner).put(vault.id, key.clone());
        Ok(key)
    }

    fn object_aad(&self, label: Label<'_>) -> Aad {
        Aad::new("claviger object v1")
            .field("world", &self.world.0)
            .field("vault", &label.vault.0)
            .field("kind", &[label.kind.number()])
            .field("name", label.name.as_bytes())
            .field("version", &label.version.0)
    }

    /// Seals material under its vault's key.
    pub fn seal(&self, vault: &Vault, label: Label<'_>, plain: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.vault_key(vault)?.seal(&self.object_aad(label), plain)
    }

    /// Opens material.
    pub fn open(&self, vault: &Vault, label: Label<'_>, sealed: &[u8]) -> Result<SecretBytes, CryptoError> {
        self.vault_key(vault)?.open(&self.object_aad(label), sealed)
    }

    /// Seals something of the world's own: a token key by its kid, a server key by its name.
    pub fn seal_own(&self, what: &str, name: &str, plain: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.key.seal(&self.own_aad(what, name), plain)
    }

    /// Opens what [`Sealer::seal_own`] made.
    pub fn open_own(&self, what: &str, name: &str, sealed: &[u8]) -> Result<SecretBytes, CryptoError> {
        self.key.open(&self.own_aad(what, name), sealed)
    }

    /// What only this world can make of some text: for checking that something came from here.
    pub fn mark(&self, what: &str, text: &[u8]) -> Result<[u8; 32], CryptoError> {
        let derived = self.key.derive(what, text)?;
        derived.expose().try_into().map_err(|_| CryptoError::BadKey)
    }

    fn own_aad(&self, what: &str, name: &str) -> Aad {
        Aad::new("claviger own v1")
            .field("world", &self.world.0)
            .field("what", what.as_bytes())
            .field("name", name.as_bytes())
    }

    /// A backup blob: opens only in the same world and subscription (contract section 9).
    pub fn seal_backup(&self, subscription: Id128, kind: Kind, plain: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let sealed = self.key.derive("backup", &subscription.0)?.seal(&backup_aad(subscription, kind), plain)?;
        Ok([BACKUP_MAGIC, &sealed].concat())
    }

    /// Opens a backup blob; every cause of failure looks alike.
    pub fn open_backup(&self, subscription: Id128, kind: Kind, blob: &[u8]) -> Result<SecretBytes, ServiceError> {
        let corrupt = || ServiceError::BadParameter("Backup blob contains invalid or corrupt version.".into());
        let sealed = blob.strip_prefix(BACKUP_MAGIC).ok_or_else(corrupt)?;
        let key = self.key.derive("backup", &subscription.0)?;
        key.open(&backup_aad(subscription, kind), sealed).map_err(|_| corrupt())
    }
}

fn backup_aad(subscription: Id128, kind: Kind) -> Aad {
    Aad::new("claviger backup v1").field("subscription", &subscription.0).field("kind", &[kind.number()])
}
