//! Other issuers of tokens, as operators name them: `[[identity.issuers]]` of a node, and the file of `claviger dev`. What
//! a table may say is documented where the rest of the configuration is (`config/fields.rs`).

use crate::config::{shown, text};
use anyhow::{ensure, Context, Result};
use claviger_api::{KeySource, Mapping, TrustedIssuer};
use claviger_types::name::Id128;
use serde::Deserialize;
use std::path::Path;
use std::time::Duration;
use toml::{Table, Value};

/// The members of an issuer's table.
const MEMBERS: &[&str] = &[
    "issuer",
    "jwks",
    "ca",
    "refresh_seconds",
    "audience",
    "oid_claim",
    "groups_claim",
    "object_ids",
    "tenant",
    "tenant_claim",
];

/// Most issuers: they are searched one by one, and each keeps a key set of up to 256 KiB.
const ISSUERS_MAX: usize = 64;

/// `refresh_seconds`, if it is not said: what an issuer's keys change in is days.
const REFRESH_SECONDS: i64 = 600;

/// Longest `refresh_seconds`: a key that was taken back has to go some day.
const REFRESH_SECONDS_MAX: i64 = 24 * 3600;

/// Issuers out of their tables, and what is wrong with them by its place, such as `[0].jwks`. Files that they name are
/// looked at; nobody is asked for anything.
pub(crate) fn read(tables: &[Table], base: &Path) -> (Vec<TrustedIssuer>, Vec<(String, String)>) {
    let mut found: Vec<TrustedIssuer> = Vec::new();
    let mut problems = Vec::new();
    if tables.len() > ISSUERS_MAX {
        problems.push((String::new(), format!("more than {ISSUERS_MAX}")));
    }
    for (number, table) in tables.iter().enumerate() {
        let mut wrong = |name: &str, message: String| problems.push((format!("[{number}].{name}"), message));
        for name in table.keys().filter(|name| !MEMBERS.contains(&name.as_str())) {
            wrong(name, format!("unknown: an issuer has {}", MEMBERS.join(", ")));
        }
        let mut member = |name: &str| match table.get(name).map(text) {
            None => None,
            Some(Ok("")) => {
                wrong(name, "an empty text".into());
                None
            }
            Some(Ok(given)) => Some(given.to_owned()),
            Some(Err(message)) => {
                wrong(name, message);
                None
            }
        };
        let (issuer, jwks, ca) = (member("issuer"), member("jwks"), member("ca"));
        let (oid_claim, groups_claim) = (member("oid_claim"), member("groups_claim"));
        let (object_ids, tenant, tenant_claim) = (member("object_ids"), member("tenant"), member("tenant_claim"));
        let audiences = match table.get("audience") {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(|item| text(item).map(str::to_owned)).collect(),
            Some(one) => text(one).map(|one| vec![one.to_owned()]),
        };
        let audiences = audiences.unwrap_or_else(|message| {
            wrong("audience", message);
            Vec::new()
        });
        if audiences.iter().any(String::is_empty) {
            wrong("audience", "an empty text".into());
        }
        match &issuer {
            Some(issuer) if !issuer.starts_with("https://") => {
                wrong("issuer", format!("not an https address: `{issuer}`"));
            }
            Some(issuer) if found.iter().any(|other| other.issuer == *issuer) => {
                wrong("issuer", format!("it is there already: `{issuer}`"));
            }
            Some(_) => {}
            None if table.contains_key("issuer") => {}
            None => wrong("issuer", "required".into()),
        }
        let refresh = match table.get("refresh_seconds") {
            None => REFRESH_SECONDS,
            Some(value) => match value.as_integer() {
                Some(seconds) if (1..=REFRESH_SECONDS_MAX).contains(&seconds) => seconds,
                _ => {
                    wrong("refresh_seconds", format!("not a number from 1 to {REFRESH_SECONDS_MAX}: {}", shown(value)));
                    REFRESH_SECONDS
                }
            },
        };
        let refresh = Duration::from_secs(refresh.unsigned_abs());
        let keys = match &jwks {
            Some(jwks) => KeySource::parse(jwks, base, ca.as_deref())
                .and_then(|keys| keys.check().map(|()| keys))
                .map_err(|message| wrong("jwks", message))
                .ok(),
            None => {
                if !table.contains_key("jwks") {
                    wrong("jwks", "required".into());
                }
                None
            }
        };
        let needs_audience = ["oid_claim", "groups_claim", "object_ids", "tenant", "tenant_claim"]
            .into_iter()
            .find(|n| table.contains_key(*n));
        if let Some(name) = needs_audience.filter(|_| !table.contains_key("audience")) {
            wrong(name, "only with `audience`: without it, the issuer has no principals of its own".into());
        }
        if tenant.is_some() && tenant_claim.is_some() {
            wrong("tenant_claim", "one is enough, and `tenant` is given too".into());
        }
        let tenant = tenant.and_then(|text| {
            let parsed = Id128::parse_guid(&text);
            parsed.map_err(|_| wrong("tenant", format!("not a GUID: `{text}`"))).ok()
        });
        let object_ids_as_they_are = match object_ids.as_deref() {
            None | Some("derived") => false,
            Some("claims") => true,
            Some(other) => {
                wrong("object_ids", format!("not `derived` or `claims`: `{other}`"));
                false
            }
        };
        if let (Some(issuer), Some(keys)) = (issuer, keys) {
            let principals = (!audiences.is_empty()).then(|| Mapping {
                audiences,
                oid_claim: oid_claim.unwrap_or_else(|| "sub".into()),
                groups_claim,
                tenant,
                tenant_claim,
                object_ids_as_they_are,
            });
            found.push(TrustedIssuer { issuer, keys, refresh, principals });
        }
    }
    (found, problems)
}

/// The issuers of a file: `[[issuers]]`, with the members that `claviger config default` documents.
pub(crate) fn from_file(path: &Path) -> Result<Vec<TrustedIssuer>> {
    let what = || format!("cannot use `{}`", path.display());
    let text = std::fs::read_to_string(path).with_context(what)?;
    let file: File = toml::from_str(&text).with_context(what)?;
    let base = path.parent().unwrap_or(Path::new("."));
    let (found, problems) = read(&file.issuers, base);
    let lines: Vec<String> = problems.iter().map(|(at, message)| format!("  issuers{at}: {message}")).collect();
    ensure!(lines.is_empty(), "`{}` has {} problem(s):\n{}", path.display(), lines.len(), lines.join("\n"));
    Ok(found)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    issuers: Vec<toml::Table>,
}
