//! Every refusal of the service in its own words, and the one function that turns them into the wire's status and code.
//!
//! The texts are the contract's (section 4). A 5xx says nothing about the inside; the log does.

use claviger_crypto::CryptoError;
use claviger_node::NodeError;
use claviger_state_machine::ApplyError;
use claviger_types::name::Kind;
use claviger_types::outcome::Refusal;
use serde::Serialize;
use std::fmt;

/// Link of "does not have permission" texts.
const LINK_PERMISSION: &str =
    "For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125287";
/// Link of "not found" texts.
const LINK_NOT_FOUND: &str =
    "For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125182";

/// Who a token speaks for, as error texts show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Application id.
    pub app: String,
    /// Object id.
    pub oid: String,
    /// Issuer.
    pub issuer: String,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "appid={};oid={};iss={}", self.app, self.oid, self.issuer)
    }
}

/// What is wrong with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenFault {
    /// There is none.
    Missing,
    /// Malformed, or the signature does not verify.
    Invalid,
    /// `exp` is over.
    Expired,
    /// `nbf` is yet to come.
    NotYetValid,
    /// The user or application that it speaks for is gone.
    Revoked,
    /// The keys of its issuer cannot be had.
    KeysUnavailable,
    /// A claim that the issuer's mapping needs is missing or malformed.
    Claim(String),
    /// For another resource.
    Audience {
        /// What this host wants.
        expected: String,
        /// What the token says.
        found: String,
    },
    /// From another issuer or tenant.
    Issuer {
        /// What this vault wants.
        expected: String,
        /// What the token says.
        found: String,
    },
}

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceError {
    /// 401, with the challenge of the vault.
    Token(TokenFault),
    /// No vault of that name.
    VaultNotFound(String),
    /// `api-version` is missing.
    VersionMissing,
    /// `api-version` is not known.
    VersionUnknown(String),
    /// A name in the path breaks the rules.
    InvalidName(String),
    /// The body does not parse, or a member has the wrong type.
    MalformedBody,
    /// A parameter breaks a rule, which the text names.
    BadParameter(String),
    /// The digest has the wrong length.
    DigestLength {
        /// The member that holds it.
        member: &'static str,
        /// Length given.
        given: usize,
        /// The algorithm.
        alg: &'static str,
        /// Length wanted.
        wanted: usize,
    },
    /// The algorithm belongs to another curve.
    WrongCurve {
        /// The key.
        kid: String,
        /// Its curve.
        curve: &'static str,
        /// The algorithm.
        alg: String,
        /// The curve of the algorithm.
        wanted: &'static str,
    },
    /// The algorithm belongs to another type of key.
    WrongType {
        /// The key.
        kid: String,
        /// Its type.
        kty: &'static str,
        /// The algorithm.
        alg: String,
        /// The types of the algorithm.
        wanted: &'static str,
        /// `signing` or `encryption`.
        purpose: &'static str,
    },
    /// Decryption or unwrapping failed; every cause looks alike.
    DecryptFailed,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The principal lacks a permission of the vault's access policies.
    Forbidden {
        /// Who asked.
        caller: Box<Caller>,
        /// `keys` or `secrets`.
        collection: &'static str,
        /// The permission.
        permission: &'static str,
        /// The vault.
        vault: String,
        /// Its region.
        region: String,
    },
    /// No role allows it, in a vault where roles decide.
    ForbiddenByRbac {
        /// Who asked.
        caller: Box<Caller>,
        /// The data action, in full.
        action: String,
        /// What it was to be done to.
        resource: String,
        /// The vault.
        vault: String,
        /// Its region.
        region: String,
    },
    /// No rule of the vault's network lets the client in.
    ForbiddenByFirewall {
        /// Who asked.
        caller: Box<Caller>,
        /// Where from.
        address: String,
        /// The vault.
        vault: String,
        /// Its region.
        region: String,
    },
    /// The vault may not be reached from outside.
    ForbiddenByConnection {
        /// Who asked.
        caller: Box<Caller>,
        /// The vault.
        vault: String,
        /// Its region.
        region: String,
    },
    /// The key's `key_ops` do not hold the operation.
    OperationNotPermitted(&'static str),
    /// The statement about the environment that a key is to be released to does not hold.
    AttestationFailed,
    /// As before, for nobody is there whose word would be taken.
    NoAttestationAuthority,
    /// The statement holds, but is not what the key's policy asks for.
    ReleaseRefused,
    /// The object is disabled.
    Disabled {
        /// What it is.
        kind: Kind,
        /// What was asked.
        operation: &'static str,
    },
    /// The key has expired.
    Expired(&'static str),
    /// The key is not valid yet.
    NotYetValid(&'static str),
    /// Purge is left to the service.
    PurgeProtected,
    /// A hardware kind of key where none can be had; the text says why.
    HsmUnavailable(&'static str),
    /// Nothing of that name, or no such version.
    NotFound {
        /// What.
        kind: Kind,
        /// Name, or name/version.
        id: String,
    },
    /// Nothing deleted of that name.
    DeletedNotFound {
        /// What.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// No such path.
    PathNotFound,
    /// The path has no such method.
    MethodNotAllowed(String),
    /// The name belongs to a soft-deleted object.
    DeletedButRecoverable {
        /// What.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// Restore onto a name that is in use.
    RestoreConflict {
        /// What.
        kind: Kind,
        /// Its id.
        id: String,
    },
    /// More is asked than can be done at once.
    Throttled,
    /// Part of the contract that vaults do not have.
    ManagedHsmOnly(&'static str),
    /// Part of the contract that this release does not have.
    NotImplemented(&'static str),
    /// The cluster cannot answer now; nothing happened.
    Unavailable,
    /// The cluster cannot say whether it happened.
    OutcomeUnknown,
    /// A fault of ours.
    Internal,
}

/// The JSON envelope (contract section 4).
#[derive(Debug, Serialize)]
pub struct Envelope {
    /// The error.
    pub error: Body,
}

/// What is in the envelope.
#[derive(Debug, Serialize)]
pub struct Body {
    /// Code.
    pub code: &'static str,
    /// Text.
    pub message: String,
    /// Inner code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub innererror: Option<Inner>,
}

/// Inner code.
#[derive(Debug, Serialize)]
pub struct Inner {
    /// Code.
    pub code: &'static str,
}

fn capital(kind: Kind) -> &'static str {
    match kind {
        Kind::Key => "Key",
        Kind::Secret => "Secret",
    }
}

fn not_found_code(kind: Kind) -> &'static str {
    match kind {
        Kind::Key => "KeyNotFound",
        Kind::Secret => "SecretNotFound",
    }
}

impl TokenFault {
    fn message(&self) -> String {
        match self {
            TokenFault::Missing => "AKV10000: Request is missing a Bearer or PoP token.".into(),
            TokenFault::Invalid => "AKV10001: The token is malformed or its signature cannot be verified.".into(),
            TokenFault::Expired => "AKV10002: The token has expired.".into(),
            TokenFault::NotYetValid => "AKV10003: The token is not valid yet.".into(),
            TokenFault::Revoked => {
                "AKV10004: The user or application that the token was issued for does not exist or is disabled.".into()
            }
            TokenFault::KeysUnavailable => {
                "AKV10005: The keys of the token's issuer cannot be had at the moment.".into()
            }
            TokenFault::Claim(name) => format!("AKV10006: The claim '{name}' of the token is missing or malformed."),
            TokenFault::Audience { expected, found } => {
                format!("AKV10022: Invalid audience. Expected {expected}, found: {found}.")
            }
            TokenFault::Issuer { expected, found } => {
                format!("AKV10032: Invalid issuer. Expected one of {expected}, found {found}.")
            }
        }
    }
}

impl ServiceError {
    /// Status, code, inner code and text of the wire: the only place where they are decided.
    pub fn to_wire(&self) -> (u16, Envelope) {
        use ServiceError as E;
        let bad = "BadParameter";
        let forbidden = "Forbidden";
        let conflict = "Conflict";
        let (status, code, inner, message): (u16, &'static str, Option<&'static str>, String) = match self {
            E::Token(fault @ TokenFault::KeysUnavailable) => (503, "ServiceUnavailable", None, fault.message()),
            E::Token(fault) => (401, "Unauthorized", None, fault.message()),
            E::VaultNotFound(name) => (404, "VaultNotFound", None, format!("The vault was not found: {name}")),
            E::VersionMissing => {
                let text = "The request is missing the api-version query parameter. Consider using the latest \
                            supported version (2026-04-01).";
                (400, bad, None, text.into())
            }
            E::VersionUnknown(version) => {
                let text = format!(
                    "The specified version ({version}) is not recognized. Consider using the latest supported version \
                     (2026-04-01)."
                );
                (400, bad, None, text)
            }
            E::InvalidName(name) => (400, bad, None, format!("The request URI contains an invalid name: {name}")),
            E::MalformedBody => (400, bad, None, "Property has invalid value\r\n".into()),
            E::BadParameter(text) => (400, bad, None, text.clone()),
            E::DigestLength { member, given, alg, wanted } => {
                let text = format!(
                    "Invalid length of '{member}': {given} bytes. {alg} requires {wanted} bytes, encoded with base64url."
                );
                (400, bad, None, text)
            }
            E::WrongCurve { kid, curve, alg, wanted } => {
                let text = format!(
                    "Key and signing algorithm are incompatible. Key {kid} uses curve '{curve}', and algorithm '{alg}' \
                     can only be used with curve '{wanted}'."
                );
                (400, bad, None, text)
            }
            E::WrongType { kid, kty, alg, wanted, purpose } => {
                let text = format!(
                    "Key and {purpose} algorithm are incompatible. Key {kid} is of type '{kty}', and algorithm '{alg}' \
                     can only be used with a key of type {wanted}."
                );
                (400, bad, None, text)
            }
            E::DecryptFailed => {
                (400, bad, None, "The parameter is incorrect: the value could not be decrypted with this key.".into())
            }
            E::BodyTooLarge => (413, "RequestBodyTooLarge", None, "The request body is too large.".into()),
            E::Forbidden { caller, collection, permission, vault, region } => {
                let text = format!(
                    "The user, group or application 'appid={};oid={};iss={}' does not have {collection} {permission} \
                     permission on key vault '{vault};location={region}'. {LINK_PERMISSION}",
                    caller.app, caller.oid, caller.issuer
                );
                (403, forbidden, Some("ForbiddenByPolicy"), text)
            }
            E::ForbiddenByRbac { caller, action, resource, vault, region } => {
                let text = format!(
                    "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or \
                     role definitions were changed recently, please observe propagation time.\r\nCaller: {caller}\r\n\
                     Action: '{action}'\r\nResource: '{resource}'\r\nAssignment: (not found)\r\nDenyAssignmentId: \
                     null\r\nDecisionReason: 'DeniedWithNoValidRBAC' \r\nVault: {vault};location={region}\r\n"
                );
                (403, forbidden, Some("ForbiddenByRbac"), text)
            }
            E::ForbiddenByFirewall { caller, address, vault, region } => {
                let text = format!(
                    "Client address is not authorized and caller is not a trusted service.\r\nClient address: \
                     {address}\r\nCaller: {caller}\r\nVault: {vault};location={region}"
                );
                (403, forbidden, Some("ForbiddenByFirewall"), text)
            }
            E::ForbiddenByConnection { caller, vault, region } => {
                let text = format!(
                    "Public network access is disabled and request is not from a trusted service nor via an approved \
                     private link.\r\nCaller: {caller}\r\nVault: {vault};location={region}"
                );
                (403, forbidden, Some("ForbiddenByConnection"), text)
            }
            E::OperationNotPermitted(operation) => {
                let text = format!("Operation {operation} is not permitted on this key.");
                (403, forbidden, Some("KeyOperationForbidden"), text)
            }
            E::AttestationFailed => {
                (403, forbidden, None, "Target environment attestation statement cannot be verified.".into())
            }
            E::NoAttestationAuthority => {
                let text = "Target environment attestation statement cannot be verified: no attestation authority is \
                            configured on this service.";
                (403, forbidden, None, text.into())
            }
            E::ReleaseRefused => {
                let text = "Target environment attestation statement does not satisfy the key release policy.";
                (403, forbidden, None, text.into())
            }
            E::Disabled { kind, operation } => {
                let inner = match kind {
                    Kind::Key => "KeyDisabled",
                    Kind::Secret => "SecretDisabled",
                };
                let text = format!("Operation {operation} is not allowed on a disabled {}.", kind.word());
                (403, forbidden, Some(inner), text)
            }
            E::Expired(operation) => {
                (403, forbidden, Some("KeyExpired"), format!("Operation {operation} is not allowed on an expired key."))
            }
            E::NotYetValid(operation) => {
                let text = format!("Operation {operation} is not allowed on a not yet valid key.");
                (403, forbidden, Some("KeyNotYetValid"), text)
            }
            E::PurgeProtected => {
                let text =
                    "Operation \"purge\" is not allowed because purge protection is enabled for this vault. Key \
                            Vault service will automatically purge it after the retention period has passed.";
                (403, forbidden, None, text.into())
            }
            E::HsmUnavailable(why) => (400, bad, None, (*why).into()),
            E::NotFound { kind, id } => {
                let word = kind.word();
                let text = format!(
                    "A {word} with (name/id) {id} was not found in this key vault. If you recently deleted this {word} \
                     you may be able to recover it using the correct recovery command. {LINK_NOT_FOUND}"
                );
                (404, not_found_code(*kind), None, text)
            }
            E::DeletedNotFound { kind, name } => {
                (404, not_found_code(*kind), None, format!("Deleted {} not found: {name}", capital(*kind)))
            }
            E::PathNotFound => (404, "NotFound", None, "The resource was not found.".into()),
            E::MethodNotAllowed(method) => (405, "MethodNotAllowed", None, format!("HTTP {method} not allowed")),
            E::DeletedButRecoverable { kind, name } => {
                let (capital, word) = (capital(*kind), kind.word());
                let text = format!(
                    "{capital} {name} is currently in a deleted but recoverable state, and its name cannot be reused; \
                     in this state, the {word} can only be recovered or purged."
                );
                (409, conflict, Some("ObjectIsDeletedButRecoverable"), text)
            }
            E::RestoreConflict { kind, id } => {
                let word = kind.word();
                let text = format!(
                    "There was a conflict restoring the {word} '{id}'. This can happen if either: a second {word} with \
                     the same name was created after the first {word} was deleted; thus trying to restore a {word} \
                     whose name is already in use. To fix this, rename the second {word} to something else so that the \
                     restore works. The second probable cause of this exception is when multiple operations are \
                     performed in parallel against the {word}. To avoid this error, perform operations against a {word} \
                     in a sequential manner."
                );
                (409, conflict, None, text)
            }
            E::Throttled => {
                let text = "Request was not processed because too many requests were received. Reason: \
                            VaultRequestTypeLimitReached";
                (429, "Throttled", None, text.into())
            }
            E::ManagedHsmOnly(what) => (400, bad, None, format!("{what} is supported by Managed HSM only.")),
            E::NotImplemented(what) => {
                (501, "NotImplemented", None, format!("{what} is not there yet in this release of Claviger."))
            }
            E::Unavailable => {
                (503, "ServiceUnavailable", None, "The service cannot answer now. Nothing was changed.".into())
            }
            E::OutcomeUnknown => {
                let text = "The service cannot say whether the request was carried out. Repeated under the same \
                            x-ms-client-request-id it acts once; otherwise look before you repeat it.";
                (503, "ServiceUnavailable", Some("OutcomeUnknown"), text.into())
            }
            E::Internal => (500, "InternalServerError", None, "An internal error occurred.".into()),
        };
        (status, Envelope { error: Body { code, message, innererror: inner.map(|code| Inner { code }) } })
    }

    /// Seconds for `Retry-After`. Clients repeat any request whose refusal carries it (contract section 15), so it is
    /// given only where nothing can have happened.
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            ServiceError::Unavailable | ServiceError::Throttled => Some(1),
            _ => None,
        }
    }
}

impl From<NodeError> for ServiceError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Unavailable(_) => ServiceError::Unavailable,
            NodeError::Unknown => ServiceError::OutcomeUnknown,
            NodeError::Refused(_) => {
                tracing::error!(%error, "the cluster refused a proposal");
                ServiceError::Internal
            }
            NodeError::Stopped(_) => ServiceError::Unavailable,
        }
    }
}

impl From<ApplyError> for ServiceError {
    fn from(error: ApplyError) -> Self {
        tracing::error!(%error, "state could not be read");
        ServiceError::Internal
    }
}

impl From<CryptoError> for ServiceError {
    fn from(error: CryptoError) -> Self {
        // Callers map what a client can cause; whatever arrives here is ours.
        tracing::error!(%error, "cryptography failed");
        ServiceError::Internal
    }
}

/// What a refusal of the state machine means for a request about one object.
pub fn from_refusal(
    refusal: Refusal,
    kind: Kind,
    name: &str,
    id: String,
    caller_forbidden: ServiceError,
) -> ServiceError {
    match refusal {
        Refusal::Forbidden => caller_forbidden,
        Refusal::NotFound => ServiceError::NotFound { kind, id },
        Refusal::DeletedNotFound => ServiceError::DeletedNotFound { kind, name: name.to_owned() },
        Refusal::DeletedButRecoverable => ServiceError::DeletedButRecoverable { kind, name: name.to_owned() },
        Refusal::Exists => ServiceError::RestoreConflict { kind, id },
        Refusal::PurgeProtected => ServiceError::PurgeProtected,
        Refusal::BadValidity => ServiceError::BadParameter("'nbf' must not be later than 'exp'.".into()),
        Refusal::NotExportable => {
            ServiceError::BadParameter("AKV.SKR.1005: Non-exportable keys must not have release policy.".into())
        }
        Refusal::ImmutablePolicy => {
            ServiceError::BadParameter("AKV.SKR.1020: Immutable Key Release Policy cannot be modified.".into())
        }
        Refusal::VaultNotFound => ServiceError::VaultNotFound(String::new()),
        Refusal::WorldState
        | Refusal::VaultExists
        | Refusal::VersionExists
        | Refusal::NotDue
        | Refusal::VaultDeleted
        | Refusal::VaultNotDeleted
        | Refusal::Changed
        | Refusal::GroupNotFound
        | Refusal::GroupNotEmpty
        | Refusal::AssignmentExists
        | Refusal::AssignmentNotFound
        | Refusal::BadReads
        | Refusal::RoleNotFound
        | Refusal::RoleExists
        | Refusal::RoleInUse
        | Refusal::PrincipalNotFound
        | Refusal::PrincipalExists
        | Refusal::NotApproved
        | Refusal::TooMany => {
            tracing::error!(?refusal, "the state machine refused what it should not have been asked");
            ServiceError::Internal
        }
    }
}
