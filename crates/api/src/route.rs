//! The data plane's routes as a table that handlers, metrics and tests share (contract sections 10, 11 and 14).

use crate::error::ServiceError;
use claviger_state_machine::{ConflictKey, SECRET_UPDATE};
use claviger_types::name::{Id128, Kind, ObjectName};
use claviger_types::permission::{KeyPermission as K, Permission, SecretPermission as S};

macro_rules! routes {
    ($($(#[$meta:meta])* $op:ident $method:literal $pattern:literal $permission:expr;)+) => {
        /// Every operation of the data plane.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Op { $($(#[$meta])* #[doc = concat!($method, " ", $pattern)] $op),+ }

        /// The table.
        pub const ROUTES: &[Route] = &[
            $(Route { op: Op::$op, method: $method, pattern: $pattern, permission: $permission }),+
        ];

        impl Op {
            /// The name in metrics and logs.
            pub fn name(self) -> &'static str { match self { $(Op::$op => stringify!($op)),+ } }
        }
    };
}

/// One row.
#[derive(Debug)]
pub struct Route {
    /// The operation.
    pub op: Op,
    /// HTTP method.
    pub method: &'static str,
    /// Path: literals without regard to case, `{name}`, and `{version}`, which may be empty or absent.
    pub pattern: &'static str,
    /// The permission that it takes.
    pub permission: Permission,
}

const fn key(permission: K) -> Permission {
    Permission::Key(permission)
}

const fn secret(permission: S) -> Permission {
    Permission::Secret(permission)
}

routes! {
    KeyRestore "POST" "keys/restore" key(K::Restore);
    KeyList "GET" "keys" key(K::List);
    KeyVersions "GET" "keys/{name}/versions" key(K::List);
    KeyRotationPolicy "GET" "keys/{name}/rotationpolicy" key(K::GetRotationPolicy);
    KeySetRotationPolicy "PUT" "keys/{name}/rotationpolicy" key(K::SetRotationPolicy);
    KeyCreate "POST" "keys/{name}/create" key(K::Create);
    KeyRotate "POST" "keys/{name}/rotate" key(K::Rotate);
    KeyBackup "POST" "keys/{name}/backup" key(K::Backup);
    KeyEncrypt "POST" "keys/{name}/{version}/encrypt" key(K::Encrypt);
    KeyDecrypt "POST" "keys/{name}/{version}/decrypt" key(K::Decrypt);
    KeyWrap "POST" "keys/{name}/{version}/wrapkey" key(K::WrapKey);
    KeyUnwrap "POST" "keys/{name}/{version}/unwrapkey" key(K::UnwrapKey);
    KeySign "POST" "keys/{name}/{version}/sign" key(K::Sign);
    KeyVerify "POST" "keys/{name}/{version}/verify" key(K::Verify);
    KeyRelease "POST" "keys/{name}/{version}/release" key(K::Release);
    KeySecureWrap "POST" "keys/{name}/{version}/securewrapkey" key(K::WrapKey);
    KeySecureUnwrap "POST" "keys/{name}/{version}/secureunwrapkey" key(K::UnwrapKey);
    KeyAttestation "GET" "keys/{name}/{version}/attestation" key(K::Get);
    KeyImport "PUT" "keys/{name}" key(K::Import);
    KeyDelete "DELETE" "keys/{name}" key(K::Delete);
    KeyGet "GET" "keys/{name}/{version}" key(K::Get);
    KeyUpdate "PATCH" "keys/{name}/{version}" key(K::Update);
    DeletedKeyList "GET" "deletedkeys" key(K::List);
    DeletedKeyGet "GET" "deletedkeys/{name}" key(K::Get);
    DeletedKeyRecover "POST" "deletedkeys/{name}/recover" key(K::Recover);
    DeletedKeyPurge "DELETE" "deletedkeys/{name}" key(K::Purge);
    RandomBytes "POST" "rng" key(K::Get);
    SecretRestore "POST" "secrets/restore" secret(S::Restore);
    SecretList "GET" "secrets" secret(S::List);
    SecretVersions "GET" "secrets/{name}/versions" secret(S::List);
    SecretBackup "POST" "secrets/{name}/backup" secret(S::Backup);
    SecretSet "PUT" "secrets/{name}" secret(S::Set);
    SecretDelete "DELETE" "secrets/{name}" secret(S::Delete);
    SecretGet "GET" "secrets/{name}/{version}" secret(S::Get);
    SecretUpdate "PATCH" "secrets/{name}/{version}" secret(S::Set);
    DeletedSecretList "GET" "deletedsecrets" secret(S::List);
    DeletedSecretGet "GET" "deletedsecrets/{name}" secret(S::Get);
    DeletedSecretRecover "POST" "deletedsecrets/{name}/recover" secret(S::Recover);
    DeletedSecretPurge "DELETE" "deletedsecrets/{name}" secret(S::Purge);
}

impl Op {
    /// Which collection an operation is on.
    pub fn kind(self) -> Kind {
        match self.route().permission {
            Permission::Key(_) => Kind::Key,
            Permission::Secret(_) => Kind::Secret,
        }
    }

    /// The data action that it takes where roles decide, without the provider's prefix. The counterpart of the
    /// permission, but for secrets: metadata and updates have actions of their own (contract section 14).
    pub fn data_action(self) -> &'static str {
        match self {
            Op::SecretUpdate => SECRET_UPDATE,
            Op::DeletedSecretGet => Permission::Secret(S::List).data_action(),
            other => other.route().permission.data_action(),
        }
    }

    /// Whether anybody can do it who has the public half of an asymmetric key.
    pub fn is_public(self) -> bool {
        matches!(self, Op::KeyEncrypt | Op::KeyWrap | Op::KeyVerify)
    }

    /// The table's row.
    pub fn route(self) -> &'static Route {
        ROUTES.iter().find(|route| route.op == self).unwrap_or(&ROUTES[0])
    }
}

/// What a path led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The operation.
    pub op: Op,
    /// The name, not checked; empty for operations on a collection.
    pub name: String,
    /// The version, not checked; empty for the newest.
    pub version: String,
}

impl Match {
    /// The parts of the state that the answer depends on: what the read gate watches.
    pub(crate) fn depends_on(&self, vault: Id128) -> Vec<ConflictKey> {
        let mut parts = vec![ConflictKey::World, ConflictKey::Vault(vault)];
        match ObjectName::parse(&self.name) {
            // The exchange key of an import is another object of the vault.
            Ok(name) if self.op != Op::KeyImport => {
                parts.push(ConflictKey::Object(vault, self.op.kind(), name.folded()));
            }
            _ => parts.push(ConflictKey::VaultAny(vault)),
        }
        parts
    }
}

/// Collections whose paths are the contract's, but which this release does not have.
const NOT_YET: &[(&str, &str)] = &[
    ("certificates", "The certificates collection"),
    ("deletedcertificates", "The certificates collection"),
    ("storage", "The storage accounts collection (retired)"),
];

/// Paths of a Managed HSM, which vaults refuse (contract section 13).
const MANAGED_HSM: &[(&str, &str)] = &[
    ("backup", "Full backup"),
    ("restore", "Full restore"),
    ("prebackup", "Full backup"),
    ("prerestore", "Full restore"),
    ("settings", "Settings"),
    ("securitydomain", "The security domain"),
    ("ekm", "External key management"),
];

/// Splits a path into decoded segments. Leading slashes may be doubled, the last segment may be empty (contract section
/// 1): clients send both.
fn segments(path: &str) -> Vec<String> {
    let decoded = |segment: &str| percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned();
    let mut segments: Vec<String> = path.trim_start_matches('/').split('/').map(decoded).collect();
    while segments.last().is_some_and(String::is_empty) {
        segments.pop();
    }
    segments
}

/// Finds the operation of a request.
pub fn find(method: &str, path: &str) -> Result<Match, ServiceError> {
    let segments = segments(path);
    let mut path_exists = false;
    for route in ROUTES {
        if let Some((name, version)) = matches(route.pattern, &segments) {
            if route.method == method {
                return Ok(Match { op: route.op, name, version });
            }
            path_exists = true;
        }
    }
    if path_exists {
        return Err(ServiceError::MethodNotAllowed(method.to_owned()));
    }
    let first = segments.first().map_or("", String::as_str);
    let among = |list: &'static [(&str, &'static str)]| {
        list.iter().find(|(collection, _)| collection.eq_ignore_ascii_case(first)).map(|(_, what)| *what)
    };
    match (among(NOT_YET), among(MANAGED_HSM)) {
        (Some(what), _) => Err(ServiceError::NotImplemented(what)),
        (None, Some(what)) => Err(ServiceError::ManagedHsmOnly(what)),
        (None, None) => Err(ServiceError::PathNotFound),
    }
}

fn matches(pattern: &str, segments: &[String]) -> Option<(String, String)> {
    let (mut name, mut version) = (String::new(), String::new());
    let mut given = segments.iter();
    let mut wanted = pattern.split('/').peekable();
    while let Some(part) = wanted.next() {
        match part {
            "{name}" => name = given.next().filter(|segment| !segment.is_empty())?.clone(),
            // Absent before an action, or at the end.
            "{version}" => match (wanted.peek(), given.as_slice()) {
                (None, []) => {}
                (Some(action), [only]) if only.eq_ignore_ascii_case(action) => {}
                _ => version = given.next()?.clone(),
            },
            literal => {
                given.next().filter(|segment| segment.eq_ignore_ascii_case(literal))?;
            }
        }
    }
    given.as_slice().is_empty().then_some((name, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> String {
        match find(method, path) {
            Ok(m) => format!("{} {} {}", m.op.name(), m.name, m.version),
            Err(ServiceError::MethodNotAllowed(m)) => format!("not allowed {m}"),
            Err(ServiceError::PathNotFound) => "no path".into(),
            Err(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn paths_that_clients_send() {
        let cases = [
            ("GET", "/keys", "KeyList  "),
            ("GET", "/keys/", "KeyList  "),
            ("GET", "/keys/a/", "KeyGet a "),
            ("GET", "/keys/a", "KeyGet a "),
            ("GET", "/Keys/a/V1", "KeyGet a V1"),
            ("GET", "//secrets/s", "SecretGet s "),
            ("GET", "/secrets/s/?", "SecretGet s ?"),
            ("POST", "/keys/a//encrypt", "KeyEncrypt a "),
            ("POST", "/keys/a/encrypt", "KeyEncrypt a "),
            ("POST", "/keys/a/v/wrapKey", "KeyWrap a v"),
            ("POST", "/keys/restore", "KeyRestore  "),
            ("GET", "/keys/restore", "KeyGet restore "),
            ("PUT", "/keys/restore", "KeyImport restore "),
            ("POST", "/keys/create/create", "KeyCreate create "),
            ("PATCH", "/secrets/s/", "SecretUpdate s "),
            ("GET", "/secrets/a%20b/v", "SecretGet a b v"),
            ("PUT", "/secrets/", "not allowed PUT"),
            ("DELETE", "/keys/a/v", "not allowed DELETE"),
            ("GET", "/nothing", "no path"),
            ("GET", "/keys/a/v/what", "no path"),
        ];
        for (method, path, want) in cases {
            assert_eq!(found(method, path), want, "{method} {path}");
        }
        assert!(matches!(find("GET", "/certificates"), Err(ServiceError::NotImplemented(_))));
        assert!(matches!(find("GET", "/settings"), Err(ServiceError::ManagedHsmOnly(_))));
    }

    #[test]
    fn every_row_finds_itself() {
        for route in ROUTES {
            let path = route.pattern.replace("{name}", "n").replace("{version}", "v");
            assert_eq!(find(route.method, &path).map(|m| m.op), Ok(route.op), "{}", route.pattern);
        }
    }
}
