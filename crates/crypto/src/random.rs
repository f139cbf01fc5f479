//! Random bytes, from AWS-LC's generator (CTR_DRBG seeded by the operating system, per thread, fork-safe).
//!
//! One source for the whole crate: keys, salts and padding of both providers draw from it, so there is one place to
//! audit. The `rsa` and elliptic-curve crates reach it through `LibraryRng`, but for RSA blinding and padding, where
//! the `rsa` crate asks the operating system itself.

use rsa::rand_core::{TryCryptoRng, TryRng};

use crate::CryptoError;

/// Fills `out` with random bytes.
pub fn fill(out: &mut [u8]) -> Result<(), CryptoError> {
    aws_lc_rs::rand::fill(out).map_err(|_| CryptoError::Internal("random generator"))
}

/// `N` random bytes.
pub fn bytes<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut out = [0u8; N];
    fill(&mut out)?;
    Ok(out)
}

/// Adapter that lets the RustCrypto crates draw from [`fill`].
pub(crate) struct LibraryRng;

impl TryRng for LibraryRng {
    type Error = CryptoError;

    fn try_next_u32(&mut self) -> Result<u32, CryptoError> {
        Ok(u32::from_le_bytes(bytes()?))
    }

    fn try_next_u64(&mut self) -> Result<u64, CryptoError> {
        Ok(u64::from_le_bytes(bytes()?))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), CryptoError> {
        fill(out)
    }
}

impl TryCryptoRng for LibraryRng {}

#[cfg(test)]
mod tests {
    #[test]
    fn two_draws_differ() {
        assert_ne!(super::bytes::<32>(), super::bytes::<32>());
    }
}
