//! The one error type of the crate.
//!
//! It is coarse on purpose: an error that told padding from integrity from length apart would be an oracle
//! (Bleichenbacher 1998, Manger 2001), so whatever comes out of a private-key operation collapses to
//! [`CryptoError::Failed`].

/// Why an operation was refused or failed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CryptoError {
    /// The key material does not parse, is inconsistent, or is not the kind of key it was said to be.
    #[error("the key material is malformed or inconsistent")]
    BadKey,
    /// The input is too long or too short for this key and algorithm.
    #[error("the input has the wrong length for this key and algorithm")]
    BadLength,
    /// An initialization vector, tag or additional data is missing, unwanted, or has the wrong length.
    #[error("an initialization vector, tag or additional data is missing, unwanted or has the wrong length")]
    BadParameter,
    /// Decryption, unwrapping, opening or token verification failed; every cause looks alike.
    #[error("the operation failed")]
    Failed,
    /// The algorithm does not go with this key, or this provider does not offer it.
    #[error("the algorithm does not go with this key")]
    Unsupported,
    /// A library failed where it should not, for instance because the random generator gave nothing.
    #[error("internal failure: {0}")]
    Internal(&'static str),
}
