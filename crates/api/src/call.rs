//! One authorized request: what operations work with. Holding a [`Call`] is the proof that the caller has the permission
//! of the route's row and that the read gate was passed.

use crate::error::{from_refusal, Caller, ServiceError};
use crate::object::Object;
use crate::route::Match;
use crate::sealing::Label;
use crate::service::{fresh_id, Service};
use crate::tokens::Principal;
use crate::wire::Renderer;
use claviger_node::Node;
use claviger_node::View;
use claviger_state_machine::records::Vault;
use claviger_state_machine::{allowed as access, read, Access, ApplyError, Need, Subject};
use claviger_types::alg::PublicKey;
use claviger_types::command::{Command, Content};
use claviger_types::name::{Id128, Kind, ObjectName};
use claviger_types::outcome::{Deletion, ObjectVersion, Outcome};
use claviger_types::permission::{KeyPermission, Permission};
use claviger_types::role::DATA_PREFIX;
use serde::de::DeserializeOwned;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::sync::Arc;

/// Longest client request id that is taken for one: a GUID has 36 characters.
const CLIENT_ID_BYTES_MAX: usize = 128;

/// An authorized request on one vault.
pub(crate) struct Call<'a> {
    pub(crate) service: &'a Service,
    pub(crate) render: Renderer<'a>,
    pub(crate) principal: Arc<Principal>,
    pub(crate) matched: &'a Match,
    /// The checked name; absent for operations on a collection.
    name: Option<ObjectName>,
    pub(crate) query: &'a str,
    pub(crate) body: &'a [u8],
    access: Access,
    /// Made of the client's request id and the request, if it sent one: what a retry is recognized by.
    request: Option<Id128>,
    /// Whether something was proposed: then the answer is an outcome, and the request must not be evaluated again.
    proposed: Cell<bool>,
    /// The log index that it was decided at.
    decided: Cell<Option<u64>>,
    /// Time of the request in seconds, never behind state time.
    pub(crate) now: u64,
}

/// What goes back: a status and JSON.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Option<Vec<u8>>,
}

impl Reply {
    pub(crate) fn ok<T: Serialize>(value: &T) -> Result<Self, ServiceError> {
        Self::with_status(200, value)
    }

    pub(crate) fn with_status<T: Serialize>(status: u16, value: &T) -> Result<Self, ServiceError> {
        let body = serde_json::to_vec(value).map_err(|error| {
            tracing::error!(%error, "an answer could not be encoded");
            ServiceError::Internal
        })?;
        Ok(Self { status, body: Some(body) })
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, body: None }
    }
}

/// Where roles decide, whoever may read an asymmetric key may do with it through the service what it can do by itself, having
/// read it (contract section 14).
fn as_reader(
    view: &View<'_>,
    vault: &Vault,
    subject: &Subject<'_>,
    matched: &Match,
    need: Need<'_>,
) -> Result<Access, ApplyError> {
    let Some((kind, name)) = need.object else { return Ok(Access::Denied) };
    let version = match matched.version.as_str() {
        "" => None,
        text => match Id128::parse_hex(text) {
            Ok(version) => Some(version),
            Err(_) => return Ok(Access::Denied),
        },
    };
    let key = read::live(view, vault.id, kind, &name.folded(), version)?;
    let Some(Content::Key { public, .. }) = key.map(|key| key.content) else { return Ok(Access::Denied) };
    match public {
        PublicKey::Rsa { .. } | PublicKey::Ec { .. } => {
            let permission = Permission::Key(KeyPermission::Get);
            access(view, vault, subject, Need { permission, action: permission.data_action(), ..need })
        }
        PublicKey::Oct { .. } => Ok(Access::Denied),
    }
}

impl<'a> Call<'a> {
    /// Checks name and permission, in the contract's order (section 4).
    pub(crate) fn authorize(
        service: &'a Service,
        render: Renderer<'a>,
        principal: Arc<Principal>,
        matched: &'a Match,
        query: &'a str,
        body: &'a [u8],
        now_ms: u64,
    ) -> Result<Self, ServiceError> {
        let name = match matched.name.as_str() {
            "" => None,
            text => Some(ObjectName::parse(text).map_err(|_| ServiceError::InvalidName(text.to_owned()))?),
        };
        if !matched.version.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(ServiceError::InvalidName(format!("{}/{}", matched.name, matched.version)));
        }
        let kind = matched.op.kind();
        let need = Need {
            permission: matched.op.route().permission,
            action: matched.op.data_action(),
            object: name.as_ref().map(|name| (kind, name)),
        };
        let vault = render.vault;
        let (access, clock) = service.node().view(|view| {
            let subject = principal.subject();
            let mut access = access(view, vault, &subject, need)?;
            if !access.is_granted() && vault.settings.rbac && matched.op.is_public() {
                access = as_reader(view, vault, &subject, matched, need)?;
            }
            Ok::<_, ApplyError>((access, read::clock_ms(view)?))
        })?;
        let now = now_ms.max(clock) / 1000;
        let (request, proposed, decided) = (None, Cell::new(false), Cell::new(None));
        let call =
            Self { service, render, principal, matched, name, query, body, access, request, proposed, decided, now };
        if access.is_granted() {
            Ok(call)
        } else {
            Err(call.forbidden())
        }
    }

    /// The role assignment that let the caller in, where roles decide.
    pub(crate) fn assignment(&self) -> Option<Id128> {
        match self.access {
            Access::ByRole(id) => Some(id),
            Access::ByPolicy | Access::Denied => None,
        }
    }

    /// Who asks, as error texts show it.
    fn caller(&self) -> Box<Caller> {
        Box::new(Caller {
            app: self.principal.app.clone(),
            oid: self.principal.oid.guid(),
            issuer: self.principal.issuer.clone(),
        })
    }

    /// The refusal for lack of the route's permission.
    pub(crate) fn forbidden(&self) -> ServiceError {
        if self.vault().settings.rbac {
            let vault = self.vault();
            let name = &vault.display_name;
            let mut resource = format!(
                "/subscriptions/{}/resourcegroups/{}/providers/microsoft.keyvault/vaults/{name}",
                vault.subscription.guid(),
                vault.group
            )
            .to_ascii_lowercase();
            if let Some(object) = &self.name {
                resource = format!("{resource}/{}/{object}", self.kind().collection());
            }
            return ServiceError::ForbiddenByRbac {
                caller: self.caller(),
                action: format!("{DATA_PREFIX}{}", self.matched.op.data_action()),
                resource,
                vault: vault.name.to_string(),
                region: vault.location.clone(),
            };
        }
        let permission = self.matched.op.route().permission;
        ServiceError::Forbidden {
            caller: self.caller(),
            collection: permission.collection(),
            permission: permission.as_str(),
            vault: self.vault().name.to_string(),
            region: self.vault().location.clone(),
        }
    }

    pub(crate) fn vault(&self) -> &'a Vault {
        self.render.vault
    }

    pub(crate) fn kind(&self) -> Kind {
        self.matched.op.kind()
    }

    /// The name of the request's object.
    pub(crate) fn name(&self) -> Result<&ObjectName, ServiceError> {
        self.name.as_ref().ok_or(ServiceError::PathNotFound)
    }

    /// The version asked for: `None` is the newest. One that cannot exist is not found.
    pub(crate) fn version(&self) -> Result<Option<Id128>, ServiceError> {
        match self.matched.version.as_str() {
            "" => Ok(None),
            text => Id128::parse_hex(text).map(Some).map_err(|_| self.not_found()),
        }
    }

    /// Name, or name/version when a version was asked for.
    fn idn(&self) -> String {
        match self.matched.version.as_str() {
            "" => self.matched.name.clone(),
            version => format!("{}/{version}", self.matched.name),
        }
    }

    pub(crate) fn not_found(&self) -> ServiceError {
        ServiceError::NotFound { kind: self.kind(), id: self.idn() }
    }

    /// The parsed body, which must be an object; an empty one is malformed.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, ServiceError> {
        let Object(body) = serde_json::from_slice(self.body).map_err(|_| ServiceError::MalformedBody)?;
        Ok(body)
    }

    /// A query parameter, decoded.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        query_parameter(self.query, name)
    }

    pub(crate) fn node(&self) -> &Node {
        self.service.node()
    }

    /// Reads one consistent view.
    pub(crate) fn view<T>(&self, query: impl FnOnce(&View<'_>) -> Result<T, ApplyError>) -> Result<T, ServiceError> {
        Ok(self.node().view(query)?)
    }

    /// The live version that the request names.
    pub(crate) fn live(&self) -> Result<ObjectVersion, ServiceError> {
        let (vault, kind, folded, version) = (self.vault().id, self.kind(), self.name()?.folded(), self.version()?);
        self.view(|view| read::live(view, vault, kind, &folded, version))?.ok_or_else(|| self.not_found())
    }

    pub(crate) fn label<'b>(&self, folded: &'b str, version: Id128) -> Label<'b> {
        Label { vault: self.vault().id, kind: self.kind(), name: folded, version }
    }

    /// Makes the request recognizable when the client repeats it under the same `x-ms-client-request-id`.
    pub(crate) fn known_as(mut self, client_id: Option<&str>, method: &str, path: &str) -> Self {
        let id = client_id.filter(|id| !id.is_empty() && id.len() <= CLIENT_ID_BYTES_MAX);
        self.request = id.map(|id| {
            let mut hash = Sha256::new();
            let parts =
                [b"client request", self.vault().id.0.as_slice(), &self.principal.tenant.0, &self.principal.oid.0];
            let texts = [id, method, path, self.query].map(str::as_bytes);
            for part in parts.into_iter().chain(texts).chain([self.body]) {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            let mut first = [0; 16];
            first.copy_from_slice(&hash.finalize()[..16]);
            Id128::from_digest(first)
        });
        self
    }

    /// Whether something was proposed.
    pub(crate) fn has_proposed(&self) -> bool {
        self.proposed.get()
    }

    /// The log index at which that was decided.
    pub(crate) fn decided(&self) -> Option<u64> {
        self.decided.get()
    }

    /// Proposes a command in the caller's name; a refusal is an outcome like any other.
    pub(crate) async fn propose_raw(&self, command: Command, blobs: Vec<Vec<u8>>) -> Result<Outcome, ServiceError> {
        self.proposed.set(true);
        let request = self.request.map_or_else(fresh_id, Ok)?;
        let decided = self.service.decide_as(request, self.principal.actor.clone(), &command, blobs).await?;
        self.decided.set(Some(decided.index).filter(|index| *index > 0));
        Ok(decided.outcome)
    }

    /// Proposes a command; a refusal becomes the contract's error.
    pub(crate) async fn propose(&self, command: Command, blobs: Vec<Vec<u8>>) -> Result<Outcome, ServiceError> {
        match self.propose_raw(command, blobs).await? {
            Outcome::Refused(refusal) => {
                let name = self.matched.name.clone();
                Err(from_refusal(refusal, self.kind(), &name, self.idn(), self.forbidden()))
            }
            outcome => Ok(outcome),
        }
    }

    /// Proposes a command that answers with a version.
    pub(crate) async fn propose_version(
        &self,
        command: Command,
        blobs: Vec<Vec<u8>>,
    ) -> Result<ObjectVersion, ServiceError> {
        match self.propose(command, blobs).await? {
            Outcome::Version(version) => Ok(*version),
            other => Err(unexpected(&other)),
        }
    }

    /// Proposes a command that answers with a deleted version.
    pub(crate) async fn propose_deleted(&self, command: Command) -> Result<(ObjectVersion, Deletion), ServiceError> {
        match self.propose(command, Vec::new()).await? {
            Outcome::Deleted(version, deletion) => Ok((*version, deletion)),
            other => Err(unexpected(&other)),
        }
    }
}

pub(crate) fn unexpected(outcome: &Outcome) -> ServiceError {
    let kind = match outcome {
        Outcome::Done => "done",
        Outcome::Version(_) => "version",
        Outcome::Deleted(..) => "deleted",
        Outcome::Rotation(_) => "rotation",
        Outcome::Refused(_) => "refused",
    };
    tracing::error!(kind, "an outcome of another kind");
    ServiceError::Internal
}

/// A query parameter by name, without regard to case, decoded.
pub(crate) fn query_parameter(query: &str, name: &str) -> Option<String> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    query.split('&').filter(|pair| !pair.is_empty()).find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        decode(key).eq_ignore_ascii_case(name).then(|| decode(value))
    })
}
