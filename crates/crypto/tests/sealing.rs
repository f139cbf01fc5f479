//! Properties of sealing: what goes in comes out, nothing else opens, and no two descriptions of a record look alike.

use claviger_crypto::seal::{passphrase_key, sealed_with, Aad, SealKey, OVERHEAD};
use claviger_crypto::secret::SecretBytes;
use claviger_crypto::CryptoError;
use proptest::collection::vec;
use proptest::prelude::*;

type Description = (String, Vec<(String, Vec<u8>)>);

fn build((kind, fields): &Description) -> Aad {
    fields.iter().fold(Aad::new(kind), |aad, (name, value)| aad.field(name, value))
}

/// Descriptions over a tiny alphabet that contains the bytes a naive encoding would trip over.
fn description() -> impl Strategy<Value = Description> {
    let text = "[a\u{0}\u{1}]{0,3}";
    (text, vec((text, vec(0u8..2, 0..4)), 0..3))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn different_descriptions_have_different_bytes(a in description(), b in description()) {
        prop_assert_eq!(a == b, build(&a).as_bytes() == build(&b).as_bytes());
    }

    #[test]
    fn opening_gives_back_what_was_sealed(
        id: [u8; 16],
        key: [u8; 32],
        what in description(),
        plain in vec(any::<u8>(), 0..300),
    ) {
        let key = SealKey::from_parts(id, SecretBytes::new(key.to_vec())).unwrap();
        let sealed = key.seal(&build(&what), &plain).unwrap();
        prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD);
        prop_assert_eq!(sealed_with(&sealed), Some(id));
        let opened = key.open(&build(&what), &sealed).unwrap();
        prop_assert_eq!(opened.expose(), plain.as_slice());
    }

    #[test]
    fn another_description_does_not_open(a in description(), b in description()) {
        prop_assume!(a != b);
        let key = SealKey::generate().unwrap();
        let sealed = key.seal(&build(&a), b"secret").unwrap();
        prop_assert_eq!(key.open(&build(&b), &sealed).unwrap_err(), CryptoError::Failed);
    }

    #[test]
    fn any_byte_string_is_handled(bytes in vec(any::<u8>(), 0..200)) {
        let key = SealKey::from_parts([1; 16], SecretBytes::new(vec![1; 32])).unwrap();
        prop_assert!(key.open(&Aad::new("x"), &bytes).is_err());
    }

    #[test]
    fn sub_keys_differ(
        label_a in "[ab]{0,2}",
        context_a in vec(0u8..2, 0..3),
        label_b in "[ab]{0,2}",
        context_b in vec(0u8..2, 0..3),
    ) {
        let key = SealKey::from_parts([1; 16], SecretBytes::new(vec![1; 32])).unwrap();
        let a = key.derive(&label_a, &context_a).unwrap();
        let b = key.derive(&label_b, &context_b).unwrap();
        let same = label_a == label_b && context_a == context_b;
        prop_assert_eq!(a.expose() == b.expose(), same);
        prop_assert_eq!(a.id() == b.id(), same);
        prop_assert_ne!(a.expose(), key.expose());
    }
}

/// Exhaustive, not sampled: every bit of a record.
#[test]
fn every_flipped_bit_is_noticed() {
    let key = SealKey::generate().unwrap();
    let aad = Aad::new("key").field("name", b"k1");
    let sealed = key.seal(&aad, b"0123456789").unwrap();
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut changed = sealed.clone();
            changed[at] ^= 1 << bit;
            assert_eq!(key.open(&aad, &changed).unwrap_err(), CryptoError::Failed, "byte {at} bit {bit}");
        }
    }
    for length in 0..sealed.len() {
        assert_eq!(key.open(&aad, &sealed[..length]).unwrap_err(), CryptoError::Failed);
    }
    assert_eq!(key.open(&aad, &[sealed.as_slice(), &[0]].concat()).unwrap_err(), CryptoError::Failed);
}

#[test]
fn another_key_with_the_same_id_does_not_open() {
    let aad = Aad::new("key");
    let one = SealKey::from_parts([7; 16], SecretBytes::new(vec![1; 32])).unwrap();
    let two = SealKey::from_parts([7; 16], SecretBytes::new(vec![2; 32])).unwrap();
    let sealed = one.seal(&aad, b"secret").unwrap();
    assert_eq!(two.open(&aad, &sealed).unwrap_err(), CryptoError::Failed);
    assert_ne!(sealed, one.seal(&aad, b"secret").unwrap(), "salts must differ");
}

#[test]
fn keys_of_another_length_are_refused() {
    for length in [0, 16, 31, 33] {
        let refused = SealKey::from_parts([0; 16], SecretBytes::new(vec![0; length])).err();
        assert_eq!(refused, Some(CryptoError::BadKey));
    }
}

#[test]
fn debug_shows_no_key() {
    let key = SealKey::from_parts([0xab; 16], SecretBytes::new(vec![0xcd; 32])).unwrap();
    assert_eq!(format!("{key:?}"), format!("SealKey({}, ..)", "ab".repeat(16)));
}

#[test]
fn passphrases() {
    let key = |text: &str, salt: u8| passphrase_key(&SecretBytes::new(text.as_bytes().to_vec()), &[salt; 16]).unwrap();
    let sealed = key("open sesame", 1).seal(&Aad::new("root"), b"root key").unwrap();
    assert_eq!(key("open sesame", 1).open(&Aad::new("root"), &sealed).unwrap().expose(), b"root key");
    assert_eq!(key("open sesamf", 1).open(&Aad::new("root"), &sealed).unwrap_err(), CryptoError::Failed);
    assert_eq!(key("open sesame", 2).open(&Aad::new("root"), &sealed).unwrap_err(), CryptoError::Failed);
}
