//! Symmetric operations by AWS-LC. Key wrap with 192 bits is not in its safe interface and answers `Unsupported`.

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, UnboundKey, AES_128_GCM, AES_192_GCM, AES_256_GCM};
use aws_lc_rs::cipher::{
    self, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, PaddedBlockEncryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::key_wrap::{AesKek, KeyWrap, KeyWrapPadded, AES_128, AES_256};
use claviger_types::alg::SignAlg;

use super::{Ciphers, BLOCK_LEN, NONCE_LEN};
use crate::provider::AwsLc;
use crate::CryptoError;

impl Ciphers for AwsLc {
    fn hmac(key: &[u8], alg: SignAlg, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let algorithm = match alg {
            SignAlg::Hs256 => hmac::HMAC_SHA256,
            SignAlg::Hs384 => hmac::HMAC_SHA384,
            SignAlg::Hs512 => hmac::HMAC_SHA512,
            _ => return Err(CryptoError::Unsupported),
        };
        Ok(hmac::sign(&hmac::Key::new(algorithm, key), data).as_ref().to_vec())
    }

    fn gcm_seal(
        key: &[u8],
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<[u8; BLOCK_LEN], CryptoError> {
        let internal = |_| CryptoError::Internal("AES-GCM");
        let tag = gcm(key)?.seal_in_place_separate_tag(Nonce::from(nonce), Aad::from(aad), in_out).map_err(internal)?;
        tag.as_ref().try_into().map_err(|_| CryptoError::Internal("AES-GCM"))
    }

    fn gcm_open(
        key: &[u8],
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        tag: &[u8; BLOCK_LEN],
        in_out: &mut [u8],
    ) -> Result<(), CryptoError> {
        gcm(key)?
            .open_in_place_separate_tag(Nonce::from(nonce), Aad::from(aad), tag, in_out)
            .map_err(|_| CryptoError::Failed)?;
        Ok(())
    }

    fn cbc_encrypt(key: &[u8], iv: &[u8; BLOCK_LEN], in_out: &mut [u8]) -> Result<(), CryptoError> {
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        EncryptingKey::cbc(unbound(key)?)
            .and_then(|key| key.less_safe_encrypt(in_out, context))
            .map_err(|_| CryptoError::Internal("AES-CBC"))?;
        Ok(())
    }

    fn cbc_decrypt(key: &[u8], iv: &[u8; BLOCK_LEN], in_out: &mut [u8]) -> Result<(), CryptoError> {
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        let key = DecryptingKey::cbc(unbound(key)?).map_err(|_| CryptoError::Internal("AES-CBC"))?;
        key.decrypt(in_out, context).map_err(|_| CryptoError::Failed)?;
        Ok(())
    }

    fn cbc_pad_encrypt(key: &[u8], iv: &[u8; BLOCK_LEN], in_out: &mut Vec<u8>) -> Result<(), CryptoError> {
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        PaddedBlockEncryptingKey::cbc_pkcs7(unbound(key)?)
            .and_then(|key| key.less_safe_encrypt(in_out, context))
            .map_err(|_| CryptoError::Internal("AES-CBC"))?;
        Ok(())
    }

    fn wrap(key: &[u8], input: &[u8], output: &mut [u8]) -> Result<(), CryptoError> {
        kek(key)?.wrap(input, output).map_err(|_| CryptoError::Internal("AES key wrap"))?;
        Ok(())
    }

    fn unwrap(key: &[u8], input: &[u8], output: &mut [u8]) -> Result<(), CryptoError> {
        kek(key)?.unwrap(input, output).map_err(|_| CryptoError::Failed)?;
        Ok(())
    }

    fn wrap_padded(key: &[u8], input: &[u8], output: &mut [u8]) -> Result<(), CryptoError> {
        kek(key)?.wrap_with_padding(input, output).map_err(|_| CryptoError::Internal("AES key wrap"))?;
        Ok(())
    }

    fn unwrap_padded(key: &[u8], input: &[u8], output: &mut [u8]) -> Result<usize, CryptoError> {
        kek(key)?.unwrap_with_padding(input, output).map(|plaintext| plaintext.len()).map_err(|_| CryptoError::Failed)
    }
}

fn gcm(key: &[u8]) -> Result<LessSafeKey, CryptoError> {
    let algorithm = match key.len() {
        16 => &AES_128_GCM,
        24 => &AES_192_GCM,
        _ => &AES_256_GCM,
    };
    Ok(LessSafeKey::new(UnboundKey::new(algorithm, key).map_err(|_| CryptoError::BadKey)?))
}

fn unbound(key: &[u8]) -> Result<UnboundCipherKey, CryptoError> {
    let algorithm = match key.len() {
        16 => &cipher::AES_128,
        24 => &cipher::AES_192,
        _ => &cipher::AES_256,
    };
    UnboundCipherKey::new(algorithm, key).map_err(|_| CryptoError::BadKey)
}

/// Wrapping consumes the key object, so there is nothing to keep between calls.
fn kek(key: &[u8]) -> Result<AesKek, CryptoError> {
    let algorithm = match key.len() {
        16 => &AES_128,
        24 => return Err(CryptoError::Unsupported),
        _ => &AES_256,
    };
    AesKek::new(algorithm, key).map_err(|_| CryptoError::BadKey)
}
