//! The hash of a set of rows by itself.

use claviger_log::LtHash;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Rows = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

fn hash_of(rows: &Rows) -> LtHash {
    let mut hash = LtHash::new();
    for ((table, key), value) in rows {
        hash.add(&format!("t{table}"), key, value);
    }
    hash
}

proptest! {
    /// Rows that come, change and go in any order leave the hash of what is there.
    #[test]
    fn a_hash_follows_its_set(steps in prop::collection::vec((key(), prop::option::of(value())), 0..40)) {
        let (mut rows, mut hash) = (Rows::new(), LtHash::new());
        for (row, value) in steps {
            let table = format!("t{}", row.0);
            if let Some(old) = rows.remove(&row) {
                hash.remove(&table, &row.1, &old);
            }
            if let Some(value) = value {
                hash.add(&table, &row.1, &value);
                rows.insert(row, value);
            }
        }
        prop_assert_eq!(&hash, &hash_of(&rows));
        prop_assert_eq!(&LtHash::from_bytes(&hash.to_bytes()), &hash);
        for ((table, key), value) in &rows {
            hash.remove(&format!("t{table}"), key, value);
        }
        prop_assert_eq!(hash, LtHash::new());
    }

    #[test]
    fn different_sets_have_different_hashes(a in rows(), b in rows()) {
        prop_assert_eq!(hash_of(&a) == hash_of(&b), a == b);
    }
}

fn key() -> impl Strategy<Value = (u8, Vec<u8>)> {
    (0u8..3, prop::collection::vec(0u8..4, 0..3))
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..70)
}

fn rows() -> impl Strategy<Value = Rows> {
    // Small, so that equal ones happen.
    prop::collection::btree_map(
        (0u8..2, prop::collection::vec(0u8..2, 0..2)),
        prop::collection::vec(0u8..2, 0..2),
        0..3,
    )
}

#[test]
fn where_a_row_is_cut_counts() {
    let one = |table: &str, key: &[u8], value: &[u8]| {
        let mut hash = LtHash::new();
        hash.add(table, key, value);
        hash
    };
    assert_ne!(one("ab", b"c", b"d"), one("a", b"bc", b"d"));
    assert_ne!(one("a", b"bc", b"d"), one("a", b"b", b"cd"));
    assert_ne!(one("a", b"", b""), LtHash::new());
}

#[test]
fn the_stored_form_is_what_it_was() {
    let mut hash = LtHash::new();
    hash.add("objects", b"key", b"value");
    hash.add("objects", b"kez", &[7; 3000]);
    let bytes = hash.to_bytes();
    assert_eq!(bytes[..8], [55, 119, 122, 145, 159, 74, 115, 39]);
    assert_eq!(
        blake3::hash(&bytes).to_hex().as_str(),
        "8f2d5c52bbcceb873851047330d5cf9791a7db24bd1ab4f557a1aa521c2aba00"
    );
    // The element is BLAKE3's output for the parts, each after its length.
    let mut framed = Vec::new();
    for part in [b"objects".as_slice(), b"key", b"value"] {
        framed.extend((part.len() as u64).to_le_bytes());
        framed.extend(part);
    }
    let mut expected = [0; 512];
    blake3::Hasher::new().update(&framed).finalize_xof().fill(&mut expected);
    let mut one = LtHash::new();
    one.add("objects", b"key", b"value");
    assert_eq!(one.to_bytes(), expected);
}
