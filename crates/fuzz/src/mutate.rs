//! Changes to inputs. Byte by byte, as libFuzzer does it, JSON is soon none any more; so half of the time the first or the
//! last JSON value in an input is taken apart and put together otherwise, also inside strings that are base64url of JSON.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use libfuzzer_sys::fuzzer_mutate;
use serde_json::{json, Map, Value};

/// Names of members and other words that our parsers know.
const WORDS: &[&str] = &[
    "kty",
    "RSA",
    "EC-HSM",
    "oct",
    "oct-HSM",
    "crv",
    "P-256",
    "P-521",
    "SECP256K1",
    "key_ops",
    "sign",
    "import",
    "export",
    "wrapKey",
    "key_size",
    "public_exponent",
    "attributes",
    "enabled",
    "exportable",
    "nbf",
    "exp",
    "tags",
    "release_policy",
    "contentType",
    "application/json",
    "data",
    "immutable",
    "key",
    "Hsm",
    "key_hsm",
    "n",
    "e",
    "d",
    "p",
    "q",
    "dp",
    "dq",
    "qi",
    "x",
    "y",
    "k",
    "AQAB",
    "AA",
    "alg",
    "RS256",
    "PS512",
    "RSNULL",
    "ES256",
    "HS256",
    "RSA1_5",
    "RSA-OAEP",
    "A256GCM",
    "A256CBCPAD",
    "A256KW",
    "CKM_AES_KEY_WRAP_PAD",
    "value",
    "digest",
    "iv",
    "aad",
    "tag",
    "header",
    "kid",
    "@kek@",
    "dir",
    "enc",
    "CKM_RSA_AES_KEY_WRAP",
    "ciphertext",
    "version",
    "1.0.0",
    "anyOf",
    "allOf",
    "authority",
    "https://a.test",
    "claim",
    "a.b",
    "equals",
    "true",
    "target",
    "nonce",
    "iss",
    "x-ms-runtime",
    "keys",
    "key_use",
    "encrypt",
    "debug",
    "lifetimeActions",
    "trigger",
    "timeAfterCreate",
    "timeBeforeExpiry",
    "action",
    "type",
    "Rotate",
    "Notify",
    "expiryTime",
    "P30D",
    "P18M",
    "P2Y",
    "PT1H",
    "id",
    "crit",
    "x5c",
    "use",
    "sig",
    "count",
];

/// Draws that follow from the seed alone (SplitMix64), so that a run can be repeated.
struct Draw(u64);

impl Draw {
    /// A number below `end`, which is not zero.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % end as u64) as usize
    }

    fn word(&mut self) -> String {
        WORDS[self.below(WORDS.len())].to_owned()
    }

    fn leaf(&mut self) -> Value {
        match self.below(11) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(false),
            3 => json!(0),
            4 => json!(-1),
            5 => json!(u64::MAX),
            6 => json!(1e308),
            7 => json!([]),
            8 => json!({}),
            9 => json!(""),
            _ => json!(self.word()),
        }
    }
}

/// Changes `data[..size]` in place and returns its new size.
pub(crate) fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut draw = Draw(u64::from(seed));
    if draw.below(2) == 0 {
        if let Some(changed) = json(&data[..size], &mut draw).filter(|changed| changed.len() <= max_size) {
            data[..changed.len()].copy_from_slice(&changed);
            return changed.len();
        }
    }
    fuzzer_mutate(data, size, max_size)
}

/// The input with a change in a JSON value: the first one, or the one after a zero byte. `None` when there is none.
fn json(data: &[u8], draw: &mut Draw) -> Option<Vec<u8>> {
    let zero = data.iter().position(|byte| *byte == 0).filter(|_| draw.below(2) == 0);
    let start = data.iter().skip(zero.unwrap_or(0)).position(|byte| *byte == b'{')? + zero.unwrap_or(0);
    let mut values = serde_json::Deserializer::from_slice(&data[start..]).into_iter::<Value>();
    let mut value = values.next()?.ok()?;
    let end = start + values.byte_offset();
    for _ in 0..=draw.below(3) {
        change(&mut value, draw);
    }
    Some([&data[..start], value.to_string().as_bytes(), &data[end..]].concat())
}

/// Every place in a value, the whole included, as JSON pointers (RFC 6901; our names need no escapes).
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(object) => object.iter().for_each(|(name, inner)| places(inner, &format!("{at}/{name}"), found)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, inner)| places(inner, &format!("{at}/{i}"), found)),
        _ => {}
    }
}

/// One change somewhere in a value.
fn change(value: &mut Value, draw: &mut Draw) {
    let mut found = Vec::new();
    places(value, "", &mut found);
    let other = value.pointer(&found[draw.below(found.len())]).cloned().unwrap_or_default();
    let other = if draw.below(2) == 0 { other } else { draw.leaf() };
    let Some(place) = value.pointer_mut(&found[draw.below(found.len())]) else { return };
    match (draw.below(6), &mut *place) {
        (0, Value::Object(object)) => drop(object.insert(draw.word(), other)),
        (0, Value::Array(list)) => list.insert(draw.below(list.len() + 1), other),
        (1, Value::Object(object)) if !object.is_empty() => {
            let name = object.keys().nth(draw.below(object.len())).cloned().unwrap_or_default();
            object.remove(&name);
        }
        (1, Value::Array(list)) if !list.is_empty() => drop(list.remove(draw.below(list.len()))),
        (2, Value::Object(object)) => object.clear(),
        (2, Value::Array(list)) => list.clear(),
        (3, inner) => {
            let inner = inner.take();
            *place = if draw.below(2) == 0 { json!([inner]) } else { Map::from_iter([(draw.word(), inner)]).into() };
        }
        (0..=4, Value::String(text)) => inside(text, draw),
        _ => *place = other,
    }
}

/// A change inside a string: of the JSON that it encodes, of one of its bytes, or of its length.
fn inside(text: &mut String, draw: &mut Draw) {
    let Ok(mut bytes) = URL_SAFE_NO_PAD.decode(text.as_bytes()) else { return *text = draw.word() };
    if let Ok(mut value) = serde_json::from_slice::<Value>(&bytes) {
        change(&mut value, draw);
        bytes = value.to_string().into_bytes();
    } else if !bytes.is_empty() {
        let at = draw.below(bytes.len());
        match draw.below(4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, draw.below(256) as u8),
            _ => bytes[at] = draw.below(256) as u8,
        }
    }
    *text = URL_SAFE_NO_PAD.encode(bytes);
}
