//! Symmetric operations by the RustCrypto crates `hmac`, `aes-gcm`, `cbc`, `aes-kw`: every key size in every mode.

use aes::cipher::block_padding::{NoPadding, Pkcs7};
use aes::cipher::consts::U12;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, AesGcm};
use aes_kw::{AesKw, AesKwp};
use claviger_types::alg::SignAlg;
use hmac::{Hmac, Mac};
use sha2::{Sha256, Sha384, Sha512};

use super::{Ciphers, BLOCK_LEN, NONCE_LEN};
use crate::provider::RustCrypto;
use crate::CryptoError;

/// Runs the same expression with the cipher that the key's size asks for.
macro_rules! with_aes {
    ($key:expr, $aes:ident => $body:expr) => {
        match $key.len() {
            16 => {
                type $aes = Aes128;
                $body
            }
            24 => {
                type $aes = Aes192;
                $body
            }
            _ => {
                type $aes = Aes256;
                $body
            }
        }
    };
}

impl Ciphers for RustCrypto {
    fn hmac(key: &[u8], alg: SignAlg, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        match alg {
            SignAlg::Hs256 => mac::<Hmac<Sha256>>(key, data),
            SignAlg::Hs384 => mac::<Hmac<Sha384>>(key, data),
            SignAlg::Hs512 => mac::<Hmac<Sha512>>(key, data),
            _ => Err(CryptoError::Unsupported),
        }
    }

    fn gcm_seal(
        key: &[u8],
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<[u8; BLOCK_LEN], CryptoError> {
        let tag = with_aes!(key, Aes => {
            new::<AesGcm<Aes, U12>>(key)?.encrypt_inout_detached(nonce.into(), aad, InOutBuf::from(in_out))
        });
        tag.map(Into::into).map_err(|_| CryptoError::Internal("AES-GCM"))
    }

    fn gcm_open(
        key: &[u8],
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        tag: &[u8; BLOCK_LEN],
        in_out: &mut [u8],
    ) -> Result<(), CryptoError> {
        with_aes!(key, Aes => {
            new::<AesGcm<Aes, U12>>(key)?.decrypt_inout_detached(nonce.into(), aad, InOutBuf::from(in_out), tag.into())
        })
        .map_err(|_| CryptoError::Failed)
    }

    fn cbc_encrypt(key: &[u8], iv: &[u8; BLOCK_LEN], in_out: &mut [u8]) -> Result<(), CryptoError> {
        let length = in_out.len();
        with_aes!(key, Aes => {
            let mode = cbc::Encryptor::<Aes>::inner_iv_init(new(key)?, iv.into());
            mode.encrypt_padded::<NoPadding>(in_out, length).map_err(|_| CryptoError::Internal("AES-CBC"))?;
        });
        Ok(())
    }

    fn cbc_decrypt(key: &[u8], iv: &[u8; BLOCK_LEN], in_out: &mut [u8]) -> Result<(), CryptoError> {
        with_aes!(key, Aes => {
            let mode = cbc::Decryptor::<Aes>::inner_iv_init(new(key)?, iv.into());
            mode.decrypt_padded::<NoPadding>(in_out).map_err(|_| CryptoError::Failed)?;
        });
        Ok(())
    }

    fn cbc_pad_encrypt(key: &[u8], iv: &[u8; BLOCK_LEN], in_out: &mut Vec<u8>) -> Result<(), CryptoError> {
        let length = in_out.len();
        in_out.resize((length + 1).next_multiple_of(BLOCK_LEN), 0);
        with_aes!(key, Aes => {
            let mode = cbc::Encryptor::<Aes>::inner_iv_init(new(key)?, iv.into());
            mode.encrypt_padded::<Pkcs7>(in_out, length).map_err(|_| CryptoError::Internal("AES-CBC"))?;
        });
        Ok(())
    }

    fn wrap(key: &[u8], input: &[u8], output: &mut [u8]) -> Result<(), CryptoError> {
        with_aes!(key, Aes => {
            new::<AesKw<Aes>>(key)?.wrap_key(input, output).map_err(|_| CryptoError::Internal("AES key wrap"))?;
        });
        Ok(())
    }

    fn unwrap(key: &[u8], input: &[u8], output: &mut [u8]) -> Result<(), CryptoError> {
        with_aes!(key, Aes => {
            new::<AesKw<Aes>>(key)?.unwrap_key(input, output).map_err(|_| CryptoError::Failed)?;
        });
        Ok(())
    }

    fn wrap_padded(key: &[u8], input: &[u8], output: &mut [u8]) -> Result<(), CryptoError> {
        with_aes!(key, Aes => {
            new::<AesKwp<Aes>>(key)?.wrap_key(input, output).map_err(|_| CryptoError::Internal("AES key wrap"))?;
        });
        Ok(())
    }

    fn unwrap_padded(key: &[u8], input: &[u8], output: &mut [u8]) -> Result<usize, CryptoError> {
        with_aes!(key, Aes => {
            let plaintext = new::<AesKwp<Aes>>(key)?.unwrap_key(input, output);
            plaintext.map(<[u8]>::len).map_err(|_| CryptoError::Failed)
        })
    }
}

fn new<K: KeyInit>(key: &[u8]) -> Result<K, CryptoError> {
    K::new_from_slice(key).map_err(|_| CryptoError::BadKey)
}

fn mac<M: Mac + KeyInit>(key: &[u8], data: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let mut mac = new::<M>(key)?;
    mac.update(data);
    Ok(mac.finalize().into_bytes().to_vec())
}
