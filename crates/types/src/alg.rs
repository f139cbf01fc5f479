//! Key types, curves and algorithms under their JWA names (RFC 7518, RFC 8812; contract sections 10.2 and 10.5).
//!
//! These are closed enums: a name that is not here does not exist for Claviger, so parsing is where "unknown algorithm"
//! is decided, once.

use serde::{Deserialize, Serialize};

macro_rules! named_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The name on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            /// Finds the value with exactly this wire name.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some($name::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.as_str()) }
        }
    };
}

named_enum! {
    /// `kty` of a JWK.
    Kty {
        /// RSA in software.
        Rsa = "RSA",
        /// RSA held by a hardware provider.
        RsaHsm = "RSA-HSM",
        /// Elliptic curve in software.
        Ec = "EC",
        /// Elliptic curve held by a hardware provider.
        EcHsm = "EC-HSM",
        /// Symmetric in software.
        Oct = "oct",
        /// Symmetric held by a hardware provider.
        OctHsm = "oct-HSM",
    }
}

named_enum! {
    /// `crv` of an EC key.
    Curve {
        /// NIST P-256.
        P256 = "P-256",
        /// NIST P-384.
        P384 = "P-384",
        /// NIST P-521.
        P521 = "P-521",
        /// SEC secp256k1.
        P256K = "P-256K",
    }
}

named_enum! {
    /// Signature algorithms. The input is always the digest (contract 10.5), but for `RSNULL`, which takes raw bytes.
    SignAlg {
        /// RSASSA-PKCS1-v1_5 with SHA-256.
        Rs256 = "RS256",
        /// RSASSA-PKCS1-v1_5 with SHA-384.
        Rs384 = "RS384",
        /// RSASSA-PKCS1-v1_5 with SHA-512.
        Rs512 = "RS512",
        /// RSASSA-PSS with SHA-256.
        Ps256 = "PS256",
        /// RSASSA-PSS with SHA-384.
        Ps384 = "PS384",
        /// RSASSA-PSS with SHA-512.
        Ps512 = "PS512",
        /// PKCS#1 v1.5 type 1 padding without DigestInfo.
        RsNull = "RSNULL",
        /// ECDSA on P-256.
        Es256 = "ES256",
        /// ECDSA on P-384.
        Es384 = "ES384",
        /// ECDSA on P-521.
        Es512 = "ES512",
        /// ECDSA on secp256k1.
        Es256K = "ES256K",
        /// HMAC with SHA-256.
        Hs256 = "HS256",
        /// HMAC with SHA-384.
        Hs384 = "HS384",
        /// HMAC with SHA-512.
        Hs512 = "HS512",
    }
}

named_enum! {
    /// Encryption and key-wrapping algorithms: RSA first, then AES in its modes.
    EncAlg {
        /// RSAES-PKCS1-v1_5.
        Rsa15 = "RSA1_5",
        /// RSAES-OAEP with SHA-1 and MGF1-SHA-1.
        RsaOaep = "RSA-OAEP",
        /// RSAES-OAEP with SHA-256 and MGF1-SHA-256.
        RsaOaep256 = "RSA-OAEP-256",
        /// AES-128 in GCM, 12-byte nonce made by the service, 16-byte tag.
        A128Gcm = "A128GCM",
        /// AES-192 in GCM.
        A192Gcm = "A192GCM",
        /// AES-256 in GCM.
        A256Gcm = "A256GCM",
        /// AES-128 in CBC with zero padding.
        A128Cbc = "A128CBC",
        /// AES-192 in CBC with zero padding.
        A192Cbc = "A192CBC",
        /// AES-256 in CBC with zero padding.
        A256Cbc = "A256CBC",
        /// AES-128 in CBC with PKCS#7 padding.
        A128CbcPad = "A128CBCPAD",
        /// AES-192 in CBC with PKCS#7 padding.
        A192CbcPad = "A192CBCPAD",
        /// AES-256 in CBC with PKCS#7 padding.
        A256CbcPad = "A256CBCPAD",
        /// AES-128 key wrap, RFC 3394.
        A128Kw = "A128KW",
        /// AES-192 key wrap, RFC 3394.
        A192Kw = "A192KW",
        /// AES-256 key wrap, RFC 3394.
        A256Kw = "A256KW",
        /// AES key wrap with a key of any size, RFC 3394.
        CkmAesKeyWrap = "CKM_AES_KEY_WRAP",
        /// AES key wrap with padding with a key of any size, RFC 5649.
        CkmAesKeyWrapPad = "CKM_AES_KEY_WRAP_PAD",
    }
}

impl Kty {
    /// The family, hardware or not.
    pub fn family(self) -> Family {
        match self {
            Kty::Rsa | Kty::RsaHsm => Family::Rsa,
            Kty::Ec | Kty::EcHsm => Family::Ec,
            Kty::Oct | Kty::OctHsm => Family::Oct,
        }
    }

    /// Whether the kind asks for a hardware provider.
    pub fn is_hsm(self) -> bool {
        matches!(self, Kty::RsaHsm | Kty::EcHsm | Kty::OctHsm)
    }
}

impl Curve {
    /// Width in bytes of one coordinate, of a scalar, and of half a signature.
    pub fn field_bytes(self) -> usize {
        match self {
            Curve::P256 | Curve::P256K => 32,
            Curve::P384 => 48,
            Curve::P521 => 66,
        }
    }

    /// The one signature algorithm that goes with the curve.
    pub fn sign_alg(self) -> SignAlg {
        match self {
            Curve::P256 => SignAlg::Es256,
            Curve::P384 => SignAlg::Es384,
            Curve::P521 => SignAlg::Es512,
            Curve::P256K => SignAlg::Es256K,
        }
    }
}

impl SignAlg {
    /// Length in bytes that the digest must have; `None` for `RSNULL`.
    pub fn digest_bytes(self) -> Option<usize> {
        match self {
            SignAlg::Rs256 | SignAlg::Ps256 | SignAlg::Es256 | SignAlg::Es256K | SignAlg::Hs256 => Some(32),
            SignAlg::Rs384 | SignAlg::Ps384 | SignAlg::Es384 | SignAlg::Hs384 => Some(48),
            SignAlg::Rs512 | SignAlg::Ps512 | SignAlg::Es512 | SignAlg::Hs512 => Some(64),
            SignAlg::RsNull => None,
        }
    }

    /// The family of keys that the algorithm goes with.
    pub fn family(self) -> Family {
        match self {
            SignAlg::Es256 | SignAlg::Es384 | SignAlg::Es512 | SignAlg::Es256K => Family::Ec,
            SignAlg::Hs256 | SignAlg::Hs384 | SignAlg::Hs512 => Family::Oct,
            SignAlg::Rs256
            | SignAlg::Rs384
            | SignAlg::Rs512
            | SignAlg::Ps256
            | SignAlg::Ps384
            | SignAlg::Ps512
            | SignAlg::RsNull => Family::Rsa,
        }
    }

    /// The curve that an ECDSA algorithm belongs to; `None` for the others.
    pub fn curve(self) -> Option<Curve> {
        match self {
            SignAlg::Es256 => Some(Curve::P256),
            SignAlg::Es384 => Some(Curve::P384),
            SignAlg::Es512 => Some(Curve::P521),
            SignAlg::Es256K => Some(Curve::P256K),
            _ => None,
        }
    }
}

impl EncAlg {
    /// The family of keys that the algorithm goes with.
    pub fn family(self) -> Family {
        match self {
            EncAlg::Rsa15 | EncAlg::RsaOaep | EncAlg::RsaOaep256 => Family::Rsa,
            _ => Family::Oct,
        }
    }

    /// The AES key size in bits that the algorithm's name fixes; `None` where any will do.
    pub fn key_bits(self) -> Option<u16> {
        match self {
            EncAlg::A128Gcm | EncAlg::A128Cbc | EncAlg::A128CbcPad | EncAlg::A128Kw => Some(128),
            EncAlg::A192Gcm | EncAlg::A192Cbc | EncAlg::A192CbcPad | EncAlg::A192Kw => Some(192),
            EncAlg::A256Gcm | EncAlg::A256Cbc | EncAlg::A256CbcPad | EncAlg::A256Kw => Some(256),
            EncAlg::Rsa15 | EncAlg::RsaOaep | EncAlg::RsaOaep256 | EncAlg::CkmAesKeyWrap | EncAlg::CkmAesKeyWrapPad => {
                None
            }
        }
    }

    /// Whether it is a key-wrapping mode (RFC 3394, RFC 5649).
    pub fn is_key_wrap(self) -> bool {
        matches!(
            self,
            EncAlg::A128Kw | EncAlg::A192Kw | EncAlg::A256Kw | EncAlg::CkmAesKeyWrap | EncAlg::CkmAesKeyWrapPad
        )
    }
}

/// Families of keys: what algorithms are compatible with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// RSA.
    Rsa,
    /// Elliptic curves.
    Ec,
    /// Symmetric.
    Oct,
}

/// What key to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeySpec {
    /// RSA with public exponent 65537.
    Rsa {
        /// Modulus length: 2048, 3072 or 4096.
        bits: u16,
    },
    /// An elliptic-curve key.
    Ec {
        /// The curve.
        curve: Curve,
    },
    /// A symmetric key.
    Oct {
        /// Length: 128, 192 or 256 for generated ones.
        bits: u16,
    },
}

/// The public half of a key, as a JWK shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PublicKey {
    /// RSA.
    Rsa {
        /// Modulus, big-endian, no leading zero.
        n: Vec<u8>,
        /// Public exponent, big-endian, no leading zero.
        e: Vec<u8>,
    },
    /// Elliptic curve.
    Ec {
        /// The curve.
        curve: Curve,
        /// Affine x, fixed width.
        x: Vec<u8>,
        /// Affine y, fixed width.
        y: Vec<u8>,
    },
    /// Symmetric: nothing but the size is public.
    Oct {
        /// Length in bits.
        bits: u16,
    },
}

impl PublicKey {
    /// What the key is, as it would be asked for.
    pub fn spec(&self) -> KeySpec {
        match self {
            PublicKey::Rsa { n, .. } => {
                let zeros = n.first().map_or(0, |byte| byte.leading_zeros());
                let bits = (n.len() * 8).saturating_sub(zeros as usize);
                KeySpec::Rsa { bits: u16::try_from(bits).unwrap_or(u16::MAX) }
            }
            PublicKey::Ec { curve, .. } => KeySpec::Ec { curve: *curve },
            PublicKey::Oct { bits } => KeySpec::Oct { bits: *bits },
        }
    }
}
