//! Hashes of client secrets and operator passwords.
//!
//! Argon2id (RFC 9106) in PHC string form with 19 MiB, 2 passes, one lane: the first setting of the OWASP password
//! storage sheet, chosen so that a log-in costs tens of milliseconds and several can run at once. Parameters and salt
//! travel in the string, so raising them later leaves old hashes valid.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};

use crate::{random, CryptoError};

const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Most memory that a stored hash may ask for when verified, so that a doctored string cannot exhaust the process.
const MAX_MEMORY_KIB: u32 = 1024 * 1024;

/// Hashes a secret with a fresh salt.
pub fn hash(secret: &str) -> Result<String, CryptoError> {
    let internal = CryptoError::Internal("password hash");
    let Ok(params) = Params::new(MEMORY_KIB, PASSES, LANES, None) else { return Err(internal) };
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let salt: [u8; 16] = random::bytes()?;
    match argon2.hash_password_with_salt(secret.as_bytes(), &salt) {
        Ok(hash) => Ok(hash.to_string()),
        Err(_) => Err(internal),
    }
}

/// Whether `secret` is what `phc` was made from. A malformed string is simply no match; the final comparison takes
/// constant time.
pub fn verify(secret: &str, phc: &str) -> bool {
    let Ok(parsed) = PasswordHash::new(phc) else { return false };
    let affordable = Params::try_from(&parsed).is_ok_and(|params| params.m_cost() <= MAX_MEMORY_KIB);
    // Algorithm, version and parameters are taken from the string, not from this default object.
    affordable && Argon2::default().verify_password(secret.as_bytes(), &parsed).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{hash, verify};

    #[test]
    fn right_and_wrong() {
        let phc = hash("correct horse").unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(verify("correct horse", &phc));
        assert!(!verify("correct horsf", &phc));
        assert!(!verify("", &phc));
        assert_ne!(phc, hash("correct horse").unwrap(), "salts must differ");
    }

    #[test]
    fn other_implementations_hash_is_accepted_and_rubbish_is_not() {
        // Argon2id test vector of the reference implementation: password "password", salt "somesalt", t=2, m=64 MiB.
        let reference = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert!(verify("password", reference));
        assert!(!verify("Password", reference));
        for rubbish in [
            "",
            "$",
            "password",
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ",
            "$argon2id$v=19$m=9999999,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        ] {
            assert!(!verify("password", rubbish), "{rubbish}");
        }
    }
}
