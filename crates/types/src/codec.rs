//! The one binary codec of stored and sent bytes: bincode 2, little-endian, fixed-width integers, with a limit.
//!
//! Fixed-width integers are chosen over varints because a golden file then shows at a glance which field moved. Every
//! *stored* form carries a format number of its own in front ([`to_versioned`]), so that a successor of bincode (its
//! maintenance has ended, RUSTSEC-2025-0141) can come in as a new format.

use serde::{de::DeserializeOwned, Serialize};

/// Largest value that is decoded, in bytes. A snapshot manifest is the largest thing that goes through here.
pub const DECODE_LIMIT: usize = 64 * 1024 * 1024;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<DECODE_LIMIT>()
}

/// Why bytes could not be turned into a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes are not an encoding of the type, or bytes are left over.
    #[error("malformed bytes: {0}")]
    Malformed(String),
    /// The format number is not one that this binary knows.
    #[error("unknown format number {0}")]
    UnknownFormat(u8),
}

/// Encodes a value without a format number: for parts of an envelope that has one.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    bincode::serde::encode_to_vec(value, config()).map_err(|e| CodecError::Malformed(e.to_string()))
}

/// Decodes what [`encode`] made; every byte must be used.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, config()).map_err(|e| CodecError::Malformed(e.to_string()))?;
    if used != bytes.len() {
        return Err(CodecError::Malformed(format!("{} bytes left over", bytes.len() - used)));
    }
    Ok(value)
}

/// Encodes a stored row: one byte of format number, then the value.
pub fn to_versioned<T: Serialize>(format: u8, value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![format];
    bytes.extend(encode(value)?);
    Ok(bytes)
}

/// Decodes a stored row of exactly this format number.
pub fn from_versioned<T: DeserializeOwned>(format: u8, bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        Some((&found, rest)) if found == format => decode(rest),
        Some((&found, _)) => Err(CodecError::UnknownFormat(found)),
        None => Err(CodecError::Malformed("empty row".into())),
    }
}
