//! A self-signed certificate (RFC 5280) for a signing key of the service.
//!
//! What a released key comes in is signed with an `x5c` header, so there has to be a certificate. It says nothing but which
//! key it is: name and dates are constants, the serial number is a hash of the key and PKCS#1 v1.5 draws no randomness, so
//! that every node makes the same bytes and none has to be stored.

use claviger_crypto::jwk::rsa_public_der;
use claviger_crypto::provider::LoadedKey;
use claviger_crypto::CryptoError;
use claviger_types::alg::{PublicKey, SignAlg};
use rcgen::{date_time_ymd, CertificateParams, DnType, PublicKeyData, SignatureAlgorithm, SigningKey, PKCS_RSA_SHA256};
use sha2::{Digest, Sha256};

/// A key of ours as `rcgen` wants it.
struct Signer<'a> {
    key: &'a dyn LoadedKey,
    public: Vec<u8>,
}

impl PublicKeyData for Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

impl SigningKey for Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign(SignAlg::Rs256, &Sha256::digest(message)).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// The certificate of an RSA key under `name`, signed by the key itself, in DER.
pub(crate) fn self_signed(key: &dyn LoadedKey, name: &str) -> Result<Vec<u8>, CryptoError> {
    let PublicKey::Rsa { n, e } = key.public() else { return Err(CryptoError::Unsupported) };
    let signer = Signer { key, public: rsa_public_der(n, e)? };
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2024, 1, 1);
    // The key is replaced when the token service's is; nothing ends by itself.
    params.not_after = date_time_ymd(9999, 12, 31);
    let made = params.self_signed(&signer).map_err(|_| CryptoError::Internal("certificate"))?;
    Ok(made.der().to_vec())
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
        assert_eq!(parsed.validity().not_after.to_datetime().year(), 9999);
        assert_eq!(parsed.public_key().parsed().unwrap().key_size(), 2048);
        let digest = Sha256::digest(parsed.tbs_certificate.as_ref());
        assert!(provider.verify(&made.public, SignAlg::Rs256, &digest, &parsed.signature_value.data).unwrap());
    }
}
