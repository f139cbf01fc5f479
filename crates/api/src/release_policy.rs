//! The language of release policies (contract 10.6): which claims, by which authority, a key is released for.
//!
//! Whatever is not understood makes a policy invalid when it is set, rather than true or false when it is used.

use crate::attestation::{canonical, Attested};
use serde_json::{Map, Value};

/// How deep conditions may nest: policies in the documents have two levels.
const DEPTH_MAX: usize = 16;

/// A policy: any of these authorities, each with its condition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Policy {
    any_of: Vec<(String, Rule)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Rule {
    All(Vec<Rule>),
    Any(Vec<Rule>),
    /// The claim at a path through objects equals a string, a number or a boolean.
    Equals(Vec<String>, Value),
}

type Parsed<T> = Result<T, String>;

impl Policy {
    /// Parses the policy's JSON. The error says what is wrong, for the client.
    pub(crate) fn parse(json: &[u8]) -> Parsed<Self> {
        let value: Value = serde_json::from_slice(json).map_err(|_| "it is not JSON".to_owned())?;
        let object = value.as_object().ok_or("it is not a JSON object")?;
        only(object, &["version", "anyOf"])?;
        if object.get("version").and_then(Value::as_str) != Some("1.0.0") {
            return Err("'version' must be '1.0.0'".into());
        }
        let list = object.get("anyOf").and_then(Value::as_array).filter(|list| !list.is_empty());
        let any_of =
            list.ok_or("'anyOf' must be a list of authorities")?.iter().map(authority).collect::<Parsed<_>>()?;
        Ok(Self { any_of })
    }

    /// Whether what an authority says fulfils the policy.
    pub(crate) fn allows(&self, attested: &Attested) -> bool {
        let mut rules = self.any_of.iter().filter(|(authority, _)| *authority == attested.authority);
        rules.any(|(_, rule)| rule.holds(&attested.claims))
    }
}

fn only(object: &Map<String, Value>, known: &[&str]) -> Parsed<()> {
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(format!("the member '{unknown}' is not known")),
        None => Ok(()),
    }
}

fn authority(value: &Value) -> Parsed<(String, Rule)> {
    let object = value.as_object().ok_or("an authority must be an object")?;
    only(object, &["authority", "allOf", "anyOf"])?;
    let address = object.get("authority").and_then(Value::as_str).filter(|address| address.starts_with("https://"));
    let address = address.ok_or("'authority' must be an https address")?;
    Ok((canonical(address).to_owned(), conditions(object, DEPTH_MAX)?))
}

/// `allOf` or `anyOf`, exactly one of them.
fn conditions(object: &Map<String, Value>, depth: usize) -> Parsed<Rule> {
    let depth = depth.checked_sub(1).ok_or(format!("conditions are nested deeper than {DEPTH_MAX} levels"))?;
    let rules = |list: &Value| match list.as_array().filter(|list| !list.is_empty()) {
        Some(list) => list.iter().map(|value| condition(value, depth)).collect::<Parsed<Vec<_>>>(),
        None => Err("'allOf' and 'anyOf' must be lists of conditions".to_owned()),
    };
    match (object.get("allOf"), object.get("anyOf")) {
        (Some(list), None) => Ok(Rule::All(rules(list)?)),
        (None, Some(list)) => Ok(Rule::Any(rules(list)?)),
        _ => Err("exactly one of 'allOf' and 'anyOf' must be there".into()),
    }
}

fn condition(value: &Value, depth: usize) -> Parsed<Rule> {
    let object = value.as_object().ok_or("a condition must be an object")?;
    let Some(claim) = object.get("claim") else {
        only(object, &["allOf", "anyOf"])?;
        return conditions(object, depth);
    };
    only(object, &["claim", "equals"])?;
    let path = claim.as_str().ok_or("'claim' must be a name")?;
    let path: Vec<String> = path.split('.').map(str::to_owned).collect();
    if path.iter().any(String::is_empty) {
        return Err("'claim' must be a name, or names with dots between them".into());
    }
    match object.get("equals") {
        Some(equals @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => Ok(Rule::Equals(path, equals.clone())),
        _ => Err("'equals' must be a string, a number or a boolean".into()),
    }
}

impl Rule {
    fn holds(&self, claims: &Value) -> bool {
        match self {
            Rule::All(rules) => rules.iter().all(|rule| rule.holds(claims)),
            Rule::Any(rules) => rules.iter().any(|rule| rule.holds(claims)),
            Rule::Equals(path, wanted) => {
                let mut found = Some(claims);
                for name in path {
                    found = found.and_then(Value::as_object).and_then(|object| object.get(name));
                }
                found.is_some_and(|found| equal(found, wanted))
            }
        }
    }
}

/// Equal in value and type; but policies that went through Azure have their booleans as strings.
fn equal(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Bool(found), Value::String(wanted)) => wanted == if *found { "true" } else { "false" },
        (found, wanted) => found == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn allows(policy: &Value, authority: &str, claims: Value) -> bool {
        let policy = Policy::parse(policy.to_string().as_bytes()).unwrap();
        policy.allows(&Attested { authority: authority.into(), claims })
    }

    #[test]
    fn conditions_are_evaluated() {
        let policy = json!({"version": "1.0.0", "anyOf": [
            {"authority": "https://a.test/", "allOf": [
                {"claim": "x.y", "equals": "v"},
                {"anyOf": [{"claim": "n", "equals": 3}, {"claim": "b", "equals": "true"}]},
            ]},
            {"authority": "https://b.test", "anyOf": [{"claim": "open", "equals": true}]},
        ]});
        let cases = [
            ("https://a.test", json!({"x": {"y": "v"}, "n": 3}), true),
            ("https://a.test", json!({"x": {"y": "v"}, "b": true}), true),
            ("https://a.test", json!({"x": {"y": "v"}, "b": "true"}), true),
            ("https://a.test", json!({"x": {"y": "v"}, "n": "3"}), false),
            ("https://a.test", json!({"x": {"y": "v"}}), false),
            ("https://a.test", json!({"x": [{"y": "v"}], "n": 3}), false),
            ("https://a.test", json!({"x.y": "v", "n": 3}), false),
            ("https://a.test", json!({"open": true}), false),
            ("https://b.test", json!({"open": true}), true),
            ("https://b.test", json!({"open": "true"}), false),
            ("https://c.test", json!({"open": true}), false),
        ];
        for (authority, claims, want) in cases {
            assert_eq!(allows(&policy, authority, claims.clone()), want, "{authority} {claims}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let rule = json!({"claim": "a", "equals": 1});
        let of = |value: Value| Policy::parse(value.to_string().as_bytes());
        let with = |condition: Value| {
            of(json!({"version": "1.0.0", "anyOf": [{"authority": "https://a.test", "allOf": [condition]}]}))
        };
        assert!(with(rule.clone()).is_ok());
        let mut deep = rule.clone();
        for _ in 0..DEPTH_MAX {
            deep = json!({"allOf": [deep]});
        }
        for bad in [
            with(json!({"claim": "a"})),
            with(json!({"claim": "a", "equals": null})),
            with(json!({"claim": "a", "equals": [1]})),
            with(json!({"claim": "a..b", "equals": 1})),
            with(json!({"claim": "", "equals": 1})),
            with(json!({"claim": 1, "equals": 1})),
            with(json!({"claim": "a", "notEquals": 1})),
            with(json!({"claim": "a", "equals": 1, "or": 2})),
            with(json!({"allOf": []})),
            with(json!({"allOf": [rule], "anyOf": [rule]})),
            with(json!("x")),
            with(deep),
            of(json!([])),
            of(json!({})),
            of(json!({"version": "1.0.0"})),
            of(json!({"version": "1.0.0", "anyOf": []})),
            of(json!({"version": "0.2", "anyOf": [{"authority": "https://a.test", "allOf": [rule]}]})),
            of(json!({"version": "1.0.0", "anyOf": [{"authority": "http://a.test", "allOf": [rule]}]})),
            of(json!({"version": "1.0.0", "anyOf": [{"allOf": [rule]}]})),
            of(json!({"version": "1.0.0", "anyOf": [{"authority": "https://a.test"}]})),
            of(json!({"version": "1.0.0", "noneOf": [], "anyOf": [{"authority": "https://a.test", "allOf": [rule]}]})),
        ] {
            assert!(bad.is_err(), "{bad:?}");
        }
        assert!(Policy::parse(b"{").is_err());
    }
}
