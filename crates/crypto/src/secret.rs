//! Secret bytes that wipe themselves and cannot be printed or copied by accident.
//!
//! A newtype rather than a bare `Zeroizing<Vec<u8>>`, because `Zeroizing` derives `Debug` and `Clone`: one `{:?}` in a
//! log line would publish a key, and every silent clone is one more copy to lose.

use zeroize::Zeroizing;

/// Bytes that are wiped when dropped, have no `Clone`, and print as `SecretBytes(..)`.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes ownership, so that no second copy stays behind in the caller.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes; the name makes every reading place easy to find in a review.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::SecretBytes;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", SecretBytes::new(b"hunter2".to_vec())), "SecretBytes(..)");
    }
}
