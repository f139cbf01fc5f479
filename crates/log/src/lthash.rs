//! LtHash16 with 256 lanes: a hash of a set of rows that follows the set as rows come and go.
//!
//! Each row is stretched to 512 bytes by BLAKE3 and read as 256 numbers of 16 bits; the hash of a set is the sum of its rows,
//! lane by lane, modulo 2^16. So a row is taken out by subtracting it, the order of changes does not matter, and what a change
//! costs does not depend on the size of the set. The construction is that of Lewi, Kim, Maykov and Weis ("Securing Update
//! Propagation with Homomorphic Hashing", ePrint 2019/227).
//!
//! *How strong it is.* Two different sets with one sum are rows and signs that add up to nothing in a group of
//! 2^(16 * 256) = 2^4096 elements. By chance that does not happen. On purpose, Wagner's generalized birthday attack (CRYPTO
//! 2002) finds them in about 2^(2 * sqrt(4096)) = 2^128 steps with as many rows; eliminating one bit of all lanes after the
//! other needs 257^16, which is 2^128 rows again. The paper's 1,024 lanes raise that to 2^256 and are meant for receivers who
//! trust nothing but the hash. Here it has to find errors, and whoever can write to a node's files can write its hash as
//! well; a quarter of the lanes costs a quarter, which counts on processors without AVX-512, where BLAKE3 stretches block by
//! block. It breaks for a row that is added 2^16 times, which cannot happen: a key is in its table once.
//!
//! Written here because it is forty lines: the crates that have it bring pairing-friendly curves with them.

use std::fmt;

/// Numbers of 16 bits in a hash; see above for why so many.
const LANES: usize = 256;

/// Length of a hash in bytes.
pub const LTHASH_BYTES: usize = 2 * LANES;

/// The hash of a set of rows.
#[derive(Clone, PartialEq, Eq)]
pub struct LtHash {
    lanes: Box<[u16; LANES]>,
}

impl LtHash {
    /// The hash of no rows.
    pub fn new() -> Self {
        Self { lanes: Box::new([0; LANES]) }
    }

    /// Puts a row in. The caller knows that it is not there.
    pub fn add(&mut self, table: &str, key: &[u8], value: &[u8]) {
        self.each(&element(table, key, value), u16::wrapping_add);
    }

    /// Takes a row out. The caller knows that it is there.
    pub fn remove(&mut self, table: &str, key: &[u8], value: &[u8]) {
        self.each(&element(table, key, value), u16::wrapping_sub);
    }

    /// The lanes, each little-endian: what is stored.
    pub fn to_bytes(&self) -> [u8; LTHASH_BYTES] {
        let mut bytes = [0; LTHASH_BYTES];
        for (pair, lane) in bytes.chunks_exact_mut(2).zip(self.lanes.iter()) {
            pair.copy_from_slice(&lane.to_le_bytes());
        }
        bytes
    }

    /// What [`LtHash::to_bytes`] made.
    pub fn from_bytes(bytes: &[u8; LTHASH_BYTES]) -> Self {
        let mut this = Self::new();
        this.each(bytes, u16::wrapping_add);
        this
    }

    fn each(&mut self, element: &[u8; LTHASH_BYTES], change: impl Fn(u16, u16) -> u16) {
        for (lane, pair) in self.lanes.iter_mut().zip(element.chunks_exact(2)) {
            *lane = change(*lane, u16::from_le_bytes([pair[0], pair[1]]));
        }
    }
}

impl Default for LtHash {
    fn default() -> Self {
        Self::new()
    }
}

// Five hundred bytes help nobody who reads a message.
impl fmt::Debug for LtHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LtHash({})", blake3::hash(&self.to_bytes()))
    }
}

/// One row, stretched. Every part is preceded by its length, so that no two rows read the same.
fn element(table: &str, key: &[u8], value: &[u8]) -> [u8; LTHASH_BYTES] {
    let mut hash = blake3::Hasher::new();
    for part in [table.as_bytes(), key, value] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut bytes = [0; LTHASH_BYTES];
    hash.finalize_xof().fill(&mut bytes);
    bytes
}
