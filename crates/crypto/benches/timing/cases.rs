//! Ciphertexts that fail for different reasons, made with the key so that each fails for exactly one.

use std::sync::Arc;

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::Aes256;
use claviger_crypto::provider::{CipherParams, CryptoProvider, RustCrypto};
use claviger_crypto::random;
use claviger_crypto::secret::SecretBytes;
use claviger_types::alg::{EncAlg, KeySpec, PublicKey};
use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// RSA without padding: block in, block out.
type Raw = Arc<dyn Fn(&[u8]) -> Vec<u8>>;

/// One input of `decrypt`.
#[derive(Clone)]
pub(crate) struct Input {
    pub(crate) ciphertext: Vec<u8>,
    pub(crate) iv: Option<Vec<u8>>,
    pub(crate) tag: Option<Vec<u8>>,
    pub(crate) aad: Option<Vec<u8>>,
}

impl Input {
    fn bare(ciphertext: Vec<u8>) -> Self {
        Self { ciphertext, iv: None, tag: None, aad: None }
    }
}

/// Why an input fails, and how to make any number of such inputs.
pub(crate) struct Class {
    pub(crate) name: &'static str,
    pub(crate) make: Box<dyn Fn() -> Input>,
}

fn class(name: &'static str, make: impl Fn() -> Input + 'static) -> Class {
    Class { name, make: Box::new(make) }
}

/// A private key, and the ways in which one algorithm fails on it.
pub(crate) struct Case {
    pub(crate) alg: EncAlg,
    pub(crate) spec: KeySpec,
    pub(crate) private: SecretBytes,
    pub(crate) classes: Vec<Class>,
}

/// Every case, with fresh keys.
pub(crate) fn cases() -> Vec<Case> {
    let rsa = RustCrypto.generate(KeySpec::Rsa { bits: 2048 }).expect("a key can be made");
    let PublicKey::Rsa { n, e } = rsa.public.clone() else { unreachable!("it is RSA") };
    let raw: Raw = Arc::new(move |block| raw_rsa(&n, &e, block));
    let oct: [u8; 32] = bytes();
    let rsa_case = |alg, classes| {
        let private = SecretBytes::new(rsa.private.expose().to_vec());
        Case { alg, spec: KeySpec::Rsa { bits: 2048 }, private, classes }
    };
    let oct_case =
        |alg, classes| Case { alg, spec: KeySpec::Oct { bits: 256 }, private: SecretBytes::new(oct.to_vec()), classes };
    vec![
        rsa_case(EncAlg::Rsa15, pkcs1(&raw)),
        rsa_case(EncAlg::RsaOaep, oaep::<Sha1>(&raw)),
        rsa_case(EncAlg::RsaOaep256, oaep::<Sha256>(&raw)),
        oct_case(EncAlg::A256CbcPad, cbc(&oct)),
        oct_case(EncAlg::A256Gcm, gcm(&oct)),
        oct_case(EncAlg::A256Kw, wrap(oct)),
        oct_case(EncAlg::CkmAesKeyWrapPad, wrap_padded(oct)),
    ]
}

/// Two classes that are the same.
pub(crate) fn control() -> [Class; 2] {
    ["the same", "the same again"].map(|name| class(name, || Input::bare(bytes::<256>().to_vec())))
}

fn bytes<const N: usize>() -> [u8; N] {
    random::bytes().expect("the system has randomness")
}

/// A random byte that is not zero.
fn not_zero() -> u8 {
    bytes::<16>().into_iter().find(|byte| *byte != 0).unwrap_or(1)
}

/// RSA without padding.
fn raw_rsa(n: &[u8], e: &[u8], block: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| BoxedUint::from_be_slice(bytes, n.len() as u32 * 8).expect("it fits");
    let modulus = Odd::new(number(n)).expect("a modulus is odd");
    let form = BoxedMontyForm::new(number(block), &BoxedMontyParams::new(modulus));
    let e = BoxedUint::from_be_slice(e, e.len() as u32 * 8).expect("it fits");
    form.pow(&e).retrieve().to_be_bytes().to_vec()
}

/// RFC 8017 section 7.2.2 step 3: `0 || 2 || eight or more that are not zero || 0 || message`.
fn pkcs1(raw: &Raw) -> Vec<Class> {
    let with = |name, change: fn(&mut [u8])| {
        let raw = raw.clone();
        class(name, move || {
            let mut block: Vec<u8> = (0..256).map(|_| not_zero()).collect();
            (block[0], block[1], block[200]) = (0, 2, 0);
            change(&mut block);
            Input::bare(raw(&block))
        })
    };
    vec![
        with("first byte", |block| block[0] = 1),
        with("second byte", |block| block[1] = 1),
        with("padding too short", |block| block[5] = 0),
        with("padding one too short", |block| block[9] = 0),
        with("no end of padding", |block| block[200] = 1),
        with("all random", |block| {
            block.copy_from_slice(&bytes::<256>());
            block[0] &= 0x7f;
            block[1] |= 0x80;
        }),
    ]
}

fn mgf1<D: Digest>(seed: &[u8], length: usize) -> Vec<u8> {
    let mut mask = Vec::new();
    for counter in 0u32.. {
        if mask.len() >= length {
            break;
        }
        mask.extend_from_slice(&D::new().chain_update(seed).chain_update(counter.to_be_bytes()).finalize());
    }
    mask.truncate(length);
    mask
}

fn xor(to: &mut [u8], mask: &[u8]) {
    to.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

/// RFC 8017 section 7.1.2 step 3: the first byte is zero; unmasked, the block is `hash of the label || zeros || 1 || message`.
fn oaep<D: Digest + 'static>(raw: &Raw) -> Vec<Class> {
    let hash = <D as Digest>::output_size();
    let with = |name, change: fn(usize, &mut [u8]), first: u8| {
        let raw = raw.clone();
        class(name, move || {
            let mut data = vec![0; 255 - hash];
            data[..hash].copy_from_slice(&D::digest([]));
            let message = data.len() - 32;
            data[message - 1] = 1;
            data[message..].copy_from_slice(&bytes::<32>());
            change(hash, &mut data);
            let mut seed = bytes::<64>()[..hash].to_vec();
            xor(&mut data, &mgf1::<D>(&seed, 255 - hash));
            xor(&mut seed, &mgf1::<D>(&data, hash));
            Input::bare(raw(&[vec![first], seed, data].concat()))
        })
    };
    vec![
        with("first byte", |_, _| {}, 1),
        with("label, first byte", |_, data| data[0] ^= 1, 0),
        with("label, last byte", |hash, data| data[hash - 1] ^= 1, 0),
        with("padding, first byte", |hash, data| data[hash] = 2, 0),
        with("padding, last byte", |_, data| data[data.len() - 34] = 2, 0),
        with("no end of padding", |hash, data| data[hash..].fill(0), 0),
        with("all random", |_, data| data.iter_mut().for_each(|byte| *byte = not_zero()), 0),
    ]
}

/// RFC 5652 section 6.3: as many bytes as are missing, each with that number.
fn cbc(key: &[u8; 32]) -> Vec<Class> {
    let raw = RustCrypto.load(KeySpec::Oct { bits: 256 }, &SecretBytes::new(key.to_vec())).expect("a key");
    let with = |name, change: fn(&mut [u8])| {
        let raw = raw.clone();
        class(name, move || {
            let mut plain = bytes::<256>();
            change(&mut plain[240..]);
            let iv = bytes::<16>();
            let params = CipherParams { iv: Some(&iv), ..CipherParams::default() };
            let made = raw.encrypt(EncAlg::A256Cbc, &plain, &params).expect("whole blocks");
            Input { iv: Some(iv.to_vec()), ..Input::bare(made.ciphertext) }
        })
    };
    vec![
        with("length 0", |block| block[15] = 0),
        with("length 17", |block| block[15] = 17),
        with("length 255", |block| block[15] = 255),
        with("2, first byte", |block| (block[14], block[15]) = (3, 2)),
        with("16, first byte", |block| {
            block.fill(16);
            block[0] = 1;
        }),
        with("16, last byte but one", |block| {
            block.fill(16);
            block[14] = 1;
        }),
    ]
}

fn gcm(key: &[u8; 32]) -> Vec<Class> {
    let raw = RustCrypto.load(KeySpec::Oct { bits: 256 }, &SecretBytes::new(key.to_vec())).expect("a key");
    let with = |name, change: fn(&mut Input)| {
        let raw = raw.clone();
        class(name, move || {
            let aad = bytes::<16>().to_vec();
            let params = CipherParams { aad: Some(&aad), ..CipherParams::default() };
            let made = raw.encrypt(EncAlg::A256Gcm, &bytes::<256>(), &params).expect("any length");
            let mut input = Input { ciphertext: made.ciphertext, iv: made.iv, tag: made.tag, aad: Some(aad) };
            change(&mut input);
            input
        })
    };
    vec![
        with("tag, first byte", |input| input.tag.as_mut().expect("a tag")[0] ^= 1),
        with("tag, last byte", |input| input.tag.as_mut().expect("a tag")[15] ^= 1),
        with("tag, all random", |input| input.tag = Some(bytes::<16>().to_vec())),
        with("text, first byte", |input| input.ciphertext[0] ^= 1),
        with("text, last byte", |input| input.ciphertext[255] ^= 1),
        with("additional data", |input| input.aad.as_mut().expect("data")[0] ^= 1),
    ]
}

/// RFC 3394 section 2.2.1 with any check value: what unwrapping gives back first.
fn wrap_with(key: &[u8; 32], check: [u8; 8], plain: &[u8]) -> Vec<u8> {
    let aes = Aes256::new(key.into());
    let mut halves: Vec<[u8; 8]> = plain.chunks(8).map(|half| half.try_into().expect("whole halves")).collect();
    let mut check = check;
    let count = halves.len();
    for round in 0..6 {
        for (i, half) in halves.iter_mut().enumerate() {
            let mut block = [check, *half].concat();
            aes.encrypt_block(block.as_mut_slice().try_into().expect("a block"));
            let counter = ((count * round + i + 1) as u64).to_be_bytes();
            check.copy_from_slice(&block[..8]);
            xor(&mut check, &counter);
            half.copy_from_slice(&block[8..]);
        }
    }
    [vec![check], halves].concat().concat()
}

fn wrap(key: [u8; 32]) -> Vec<Class> {
    let with = |name, change: fn(&mut [u8; 8])| {
        class(name, move || {
            let mut check = [0xa6; 8];
            change(&mut check);
            Input::bare(wrap_with(&key, check, &bytes::<32>()))
        })
    };
    vec![
        with("check value, first byte", |check| check[0] ^= 1),
        with("check value, last byte", |check| check[7] ^= 1),
        with("check value, all random", |check| *check = bytes()),
    ]
}

/// RFC 5649 section 3: the check value ends in the length, zeros fill the last half.
fn wrap_padded(key: [u8; 32]) -> Vec<Class> {
    let with = |name, change: fn(&mut [u8; 8], &mut [u8; 32])| {
        class(name, move || {
            let mut check = [0xa6, 0x59, 0x59, 0xa6, 0, 0, 0, 26];
            let mut plain = bytes();
            plain[26..].fill(0);
            change(&mut check, &mut plain);
            Input::bare(wrap_with(&key, check, &plain))
        })
    };
    vec![
        with("check value, first byte", |check, _| check[0] ^= 1),
        with("check value, last byte", |check, _| check[3] ^= 1),
        with("length too large", |check, _| check[7] = 33),
        with("length too small", |check, _| check[7] = 24),
        with("padding, first byte", |_, plain| plain[26] = 1),
        with("padding, last byte", |_, plain| plain[31] = 1),
        with("all random", |check, _| *check = bytes()),
    ]
}
