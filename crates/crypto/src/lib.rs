//! Cryptography of Claviger: key operations, import and transfer of keys, sealing at rest, passwords, signed tokens.
//!
//! Everything that touches secret bytes lives here, so that the rest of the service can be reviewed without thinking
//! about padding, nonces or wiping. Two independent implementations stand behind one trait ([`provider`]): `aws-lc-rs`
//! serves the hot path, the RustCrypto family fills its gaps (P-256K, RSNULL, 192-bit key wrap) and checks it in the
//! tests.
//!
//! Nothing here does I/O or knows of vaults, HTTP or replication; all of it is synchronous and the caller picks the
//! thread.

pub mod byok;
mod error;
pub mod jwk;
pub mod jwt;
pub mod password;
pub mod provider;
pub mod random;
pub mod seal;
pub mod secret;
pub mod selftest;

pub use error::CryptoError;
