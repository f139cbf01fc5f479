//! Authenticated encryption of records at rest.
//!
//! Every sealed record has its own key: `HKDF-SHA-256(key, salt, info)` (RFC 5869) over 32 random bytes of salt gives
//! an AES-256-GCM key (NIST SP 800-38D) and a 32-byte commitment. The GCM key encrypts exactly one message, so the
//! nonce is a constant zero: there is no nonce to repeat, no counter to persist, and no limit on the number of records,
//! even with many writers and restored snapshots; a collision would need two equal 256-bit salts.
//!
//! The commitment is there because GCM does not commit to its key: one ciphertext can be built that opens under two
//! keys. It is a second output of the same HKDF, stored in the open and compared in constant time before GCM runs, so
//! that a record opens under one key only.
//!
//! Layout, with everything before the ciphertext also authenticated:
//!
//! | bytes | content |
//! |---|---|
//! | 1 | format, 1 |
//! | 16 | id of the sealing key (public) |
//! | 32 | salt |
//! | 32 | commitment |
//! | n + 16 | ciphertext and tag |
//!
//! What a record *is* (cluster, vault, name, version) goes into the [`Aad`], so that a record moved or relabelled does
//! not open. An older copy of the same record does open: freshness is the business of the replicated log.

use aws_lc_rs::aead::{Aad as GcmAad, LessSafeKey, Nonce, UnboundKey, AES_256_GCM, NONCE_LEN};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{digest, SHA256};
use aws_lc_rs::hkdf::{KeyType, Salt, HKDF_SHA256};
use zeroize::Zeroizing;

use crate::random;
use crate::secret::SecretBytes;
use crate::CryptoError;

/// First byte of every sealed record.
const FORMAT: u8 = 1;
const ID_LEN: usize = 16;
const SALT_LEN: usize = 32;
const COMMITMENT_LEN: usize = 32;
const TAG_LEN: usize = 16;
const KEY_LEN: usize = 32;
const SALT_AT: usize = 1 + ID_LEN;
const COMMITMENT_AT: usize = SALT_AT + SALT_LEN;
/// Length of what precedes the ciphertext.
const HEADER_LEN: usize = COMMITMENT_AT + COMMITMENT_LEN;

/// Bytes that sealing adds to a plaintext.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

const RECORD_INFO: &[u8] = b"claviger record v1";
const DERIVE_SALT: &[u8] = b"claviger derive v1";

/// Memory of the passphrase hash in KiB: 64 MiB, the second recommendation of RFC 9106 section 4.
const PASSPHRASE_MEMORY_KIB: u32 = 64 * 1024;
/// Passes of the passphrase hash (RFC 9106 section 4).
const PASSPHRASE_PASSES: u32 = 3;

/// What a record is, in a canonical form: a kind and named fields, each length-prefixed, in the order given.
///
/// Two different sequences never give the same bytes: every part is preceded by its length in 8 bytes, so parts can
/// neither merge nor move over a border.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aad(Vec<u8>);

impl Aad {
    /// Starts with the kind of the record.
    pub fn new(kind: &str) -> Self {
        Self(Vec::new()).part(kind.as_bytes())
    }

    /// Adds a field. The name is authenticated too, so that equal values of different fields cannot stand in for each
    /// other.
    #[must_use]
    pub fn field(self, name: &str, value: &[u8]) -> Self {
        self.part(name.as_bytes()).part(value)
    }

    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn part(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }
}

/// A 256-bit sealing key with a public id, by which a record names the key that opens it.
pub struct SealKey {
    id: [u8; ID_LEN],
    key: Zeroizing<[u8; KEY_LEN]>,
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealKey({:032x}, ..)", u128::from_be_bytes(self.id))
    }
}

impl SealKey {
    /// A fresh key with a fresh random id.
    pub fn generate() -> Result<Self, CryptoError> {
        let mut key = Zeroizing::new([0u8; KEY_LEN]);
        random::fill(key.as_mut_slice())?;
        Ok(Self { id: random::bytes()?, key })
    }

    /// A key from storage; anything but 32 bytes is [`CryptoError::BadKey`].
    pub fn from_parts(id: [u8; ID_LEN], key: SecretBytes) -> Result<Self, CryptoError> {
        let mut own = Zeroizing::new([0u8; KEY_LEN]);
        if key.len() != KEY_LEN {
            return Err(CryptoError::BadKey);
        }
        own.copy_from_slice(key.expose());
        Ok(Self { id, key: own })
    }

    /// The public id.
    pub fn id(&self) -> [u8; ID_LEN] {
        self.id
    }

    /// The secret key, to be sealed under another.
    pub fn expose(&self) -> &[u8] {
        self.key.as_slice()
    }

    /// A sub-key for one purpose (backups, tokens, one vault). Its id is public and tells the same inputs apart.
    ///
    /// Salt and info differ from those of record keys, so a sub-key is never equal to a record key.
    pub fn derive(&self, label: &str, context: &[u8]) -> Result<SealKey, CryptoError> {
        let info = Aad::new("claviger derived key v1").field("label", label.as_bytes()).field("context", context);
        let mut key = Zeroizing::new([0u8; KEY_LEN]);
        expand(DERIVE_SALT, self.expose(), info.as_bytes(), key.as_mut_slice())?;
        let name = Aad::new("claviger derived key id v1")
            .field("parent", &self.id)
            .field("label", label.as_bytes())
            .field("context", context);
        Ok(Self { id: hash_id(name.as_bytes()), key })
    }

    /// Encrypts and authenticates `plaintext` together with `aad`.
    pub fn seal(&self, aad: &Aad, plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.seal_with_salt(aad, plaintext, &random::bytes()?)
    }

    /// The deterministic part of [`SealKey::seal`]. Private: a repeated salt would repeat key and nonce.
    fn seal_with_salt(&self, aad: &Aad, plaintext: &[u8], salt: &[u8; SALT_LEN]) -> Result<Vec<u8>, CryptoError> {
        let (gcm, commitment) = self.record_key(salt)?;
        let mut sealed = Vec::with_capacity(OVERHEAD + plaintext.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&self.id);
        sealed.extend_from_slice(salt);
        sealed.extend_from_slice(commitment.as_slice());
        let gcm_aad = gcm_aad(&sealed, aad);
        sealed.extend_from_slice(plaintext);
        let body = sealed.get_mut(HEADER_LEN..).ok_or(CryptoError::Internal("sealing"))?;
        let tag = gcm
            .seal_in_place_separate_tag(zero_nonce(), GcmAad::from(gcm_aad), body)
            .map_err(|_| CryptoError::Internal("sealing"))?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Checks and decrypts. Another key, another `aad`, another format or any changed bit is [`CryptoError::Failed`].
    pub fn open(&self, aad: &Aad, sealed: &[u8]) -> Result<SecretBytes, CryptoError> {
        let (header, body) = sealed.split_at_checked(HEADER_LEN).ok_or(CryptoError::Failed)?;
        if body.len() < TAG_LEN || sealed_with(sealed) != Some(self.id) {
            return Err(CryptoError::Failed);
        }
        let salt: &[u8; SALT_LEN] =
            header.get(SALT_AT..COMMITMENT_AT).and_then(|bytes| bytes.try_into().ok()).ok_or(CryptoError::Failed)?;
        let stored = header.get(COMMITMENT_AT..).ok_or(CryptoError::Failed)?;
        let (gcm, commitment) = self.record_key(salt)?;
        verify_slices_are_equal(commitment.as_slice(), stored).map_err(|_| CryptoError::Failed)?;
        let mut buffer = Zeroizing::new(body.to_vec());
        let length = gcm
            .open_in_place(zero_nonce(), GcmAad::from(gcm_aad(header, aad)), &mut buffer)
            .map_err(|_| CryptoError::Failed)?
            .len();
        buffer.truncate(length);
        Ok(SecretBytes::new(std::mem::take(&mut *buffer)))
    }

    /// GCM key and commitment of the record with this salt.
    fn record_key(&self, salt: &[u8; SALT_LEN]) -> Result<(LessSafeKey, Zeroizing<[u8; COMMITMENT_LEN]>), CryptoError> {
        let mut output = Zeroizing::new([0u8; KEY_LEN + COMMITMENT_LEN]);
        expand(salt, self.expose(), RECORD_INFO, output.as_mut_slice())?;
        let (key, rest) = output.split_at(KEY_LEN);
        let mut commitment = Zeroizing::new([0u8; COMMITMENT_LEN]);
        commitment.copy_from_slice(rest);
        let unbound = UnboundKey::new(&AES_256_GCM, key).map_err(|_| CryptoError::Internal("AES key"))?;
        Ok((LessSafeKey::new(unbound), commitment))
    }
}

/// The id of the key that a sealed record asks for; `None` if the format is unknown or the record is too short.
pub fn sealed_with(sealed: &[u8]) -> Option<[u8; ID_LEN]> {
    match sealed.split_first() {
        Some((&FORMAT, rest)) => rest.get(..ID_LEN)?.try_into().ok(),
        _ => None,
    }
}

/// The key that a passphrase unseals with: Argon2id (RFC 9106) with 64 MiB, 3 passes, one lane.
///
/// About a tenth of a second and once per start, so guessing is dear while starting is not. The salt is stored next to
/// what it seals. The id depends on the salt alone and so says nothing about the passphrase; a wrong passphrase shows
/// as [`CryptoError::Failed`] when opening.
pub fn passphrase_key(passphrase: &SecretBytes, salt: &[u8; 16]) -> Result<SealKey, CryptoError> {
    let internal = |_| CryptoError::Internal("passphrase hash");
    let params = argon2::Params::new(PASSPHRASE_MEMORY_KIB, PASSPHRASE_PASSES, 1, Some(KEY_LEN)).map_err(internal)?;
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut key = Zeroizing::new([0u8; KEY_LEN]);
    argon2.hash_password_into(passphrase.expose(), salt, key.as_mut_slice()).map_err(internal)?;
    let name = Aad::new("claviger passphrase key id v1").field("salt", salt);
    Ok(SealKey { id: hash_id(name.as_bytes()), key })
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

/// The header has a fixed length, so header and fields cannot be shifted against each other.
fn gcm_aad(header: &[u8], aad: &Aad) -> Vec<u8> {
    [header, aad.as_bytes()].concat()
}

fn hash_id(input: &[u8]) -> [u8; ID_LEN] {
    let mut id = [0u8; ID_LEN];
    for (to, from) in id.iter_mut().zip(digest(&SHA256, input).as_ref()) {
        *to = *from;
    }
    id
}

/// Tells the library how many bytes to expand to.
struct OutputLen(usize);

impl KeyType for OutputLen {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(salt: &[u8], key: &[u8], info: &[u8], out: &mut [u8]) -> Result<(), CryptoError> {
    Salt::new(HKDF_SHA256, salt)
        .extract(key)
        .expand(&[info], OutputLen(out.len()))
        .and_then(|okm| okm.fill(out))
        .map_err(|_| CryptoError::Internal("HKDF"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn fixed() -> SealKey {
        SealKey::from_parts([0x11; 16], SecretBytes::new((0..32).collect())).unwrap()
    }

    /// The bytes on disk must never change under format 1. The expected value was computed with another implementation
    /// (Python `hmac`, `hashlib` and `cryptography`'s AESGCM) from the description above.
    #[test]
    fn golden_bytes() {
        let aad = Aad::new("test").field("name", b"k1");
        let sealed = fixed().seal_with_salt(&aad, b"attack at dawn", &[0x22; 32]).unwrap();
        assert_eq!(hex(&sealed), include_str!("../tests/golden/sealed-v1.hex").trim());
        assert_eq!(fixed().open(&aad, &sealed).unwrap().expose(), b"attack at dawn");
    }

    #[test]
    fn golden_derivation() {
        let sub = fixed().derive("backup", b"vault-1").unwrap();
        let text = format!("{} {}", hex(&sub.id()), hex(sub.expose()));
        assert_eq!(text, include_str!("../tests/golden/derived-v1.hex").trim());
    }
}
