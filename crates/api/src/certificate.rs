//! A self-signed certificate for a signing key of the service, in DER by hand (RFC 5280).
//!
//! What a released key comes in is signed with an `x5c` header, so there has to be a certificate. It says nothing but which
//! key it is: names and dates are constants, the serial number is a hash of the key and PKCS#1 v1.5 draws no randomness, so
//! that every node makes the same bytes and none has to be stored.

use claviger_crypto::provider::LoadedKey;
use claviger_crypto::CryptoError;
use claviger_types::alg::{PublicKey, SignAlg};
use sha2::{Digest, Sha256};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OID: u8 = 0x06;
const UTF8: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const EXPLICIT_0: u8 = 0xa0;

/// rsaEncryption, with its NULL parameters.
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// sha256WithRSAEncryption, with its NULL parameters.
const RSA_SHA256: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00];
/// commonName.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// A tag, a length and what is inside.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let length = length.get(length.iter().take_while(|&&byte| byte == 0).count()..).unwrap_or_default();
    let mut out = vec![tag];
    match length {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(0));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(&content);
    out
}

/// A positive number.
fn integer(number: &[u8]) -> Vec<u8> {
    match number.first() {
        Some(first) if *first >= 0x80 => der(INTEGER, &[&[0], number]),
        _ => der(INTEGER, &[number]),
    }
}

/// The certificate of an RSA key under `name`, signed by the key itself.
pub(crate) fn self_signed(key: &dyn LoadedKey, name: &str) -> Result<Vec<u8>, CryptoError> {
    let PublicKey::Rsa { n, e } = key.public() else { return Err(CryptoError::Unsupported) };
    let public = der(SEQUENCE, &[&integer(n), &integer(e)]);
    let info = der(SEQUENCE, &[&der(SEQUENCE, &[RSA]), &der(BIT_STRING, &[&[0], &public])]);
    let mut serial: Vec<u8> = Sha256::digest(&info).iter().take(16).copied().collect();
    // Positive, and without a leading zero byte.
    serial[0] = serial[0] & 0x7f | 0x40;
    let common_name = der(SEQUENCE, &[&der(OID, &[COMMON_NAME]), &der(UTF8, &[name.as_bytes()])]);
    let name = der(SEQUENCE, &[&der(SET, &[&common_name])]);
    // RFC 5280 section 4.1.2.5: the end of 9999 is "no well-defined expiration date".
    let (from, to) = (der(UTC_TIME, &[b"240101000000Z"]), der(GENERALIZED_TIME, &[b"99991231235959Z"]));
    let algorithm = der(SEQUENCE, &[RSA_SHA256]);
    let version = der(EXPLICIT_0, &[&der(INTEGER, &[&[2]])]);
    let to_be_signed =
        der(SEQUENCE, &[&version, &integer(&serial), &algorithm, &name, &der(SEQUENCE, &[&from, &to]), &name, &info]);
    let signature = key.sign(SignAlg::Rs256, &Sha256::digest(&to_be_signed))?;
    Ok(der(SEQUENCE, &[&to_be_signed, &algorithm, &der(BIT_STRING, &[&[0], &signature])]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use claviger_crypto::provider::default_provider;
    use claviger_types::alg::KeySpec;
    use x509_parser::prelude::{FromDer, X509Certificate};

    #[test]
    fn a_parser_reads_it_and_the_signature_is_right() {
        let provider = default_provider();
        let made = provider.generate(KeySpec::Rsa { bits: 2048 }).unwrap();
        let key = provider.load(made.public.spec(), &made.private).unwrap();
        let certificate = self_signed(&*key, "Claviger key release").unwrap();
        assert_eq!(certificate, self_signed(&*key, "Claviger key release").unwrap());
        let (rest, parsed) = X509Certificate::from_der(&certificate).unwrap();
        assert!(rest.is_empty());
        assert_eq!(parsed.subject().to_string(), "CN=Claviger key release");
        assert_eq!(parsed.issuer(), parsed.subject());
        assert_eq!(parsed.public_key().parsed().unwrap().key_size(), 2048);
        let digest = Sha256::digest(parsed.tbs_certificate.as_ref());
        assert!(provider.verify(&made.public, SignAlg::Rs256, &digest, &parsed.signature_value.data).unwrap());
    }
}
