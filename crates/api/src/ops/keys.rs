//! Keys: create, import, get, update (contract sections 10.1 to 10.3).

use super::validate;
use crate::call::{Call, Reply};
use crate::domain::{self, Plane};
use crate::error::{from_refusal, ServiceError};
use crate::object::{self, Object};
use crate::service::fresh_id;
use crate::wire::{AttributesIn, Bytes, ReleasePolicyJson};
use claviger_crypto::byok;
use claviger_crypto::jwk::{self, Imported, PrivateJwk};
use claviger_crypto::provider::{Generated, LoadedKey};
use claviger_crypto::secret::SecretBytes;
use claviger_crypto::CryptoError;
use claviger_state_machine::read;
use claviger_types::alg::{Curve, Family, KeySpec, Kty, PublicKey};
use claviger_types::command::{
    Attributes, Command, Content, Origin, PutVersion, ReleasePolicy, RotationPolicy, Tags, UpdateVersion,
};
use claviger_types::duration::IsoDuration;
use claviger_types::name::{Id128, Kind, ObjectName, VaultName};
use claviger_types::outcome::{ObjectVersion, Refusal};
use serde::Deserialize;
use std::sync::Arc;

#[derive(Deserialize)]
struct CreateIn {
    kty: Option<String>,
    key_size: Option<u32>,
    public_exponent: Option<u64>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    #[serde(default, deserialize_with = "object::optional")]
    attributes: Option<AttributesIn>,
    #[serde(default, deserialize_with = "object::tags")]
    tags: Option<Tags>,
    #[serde(default, deserialize_with = "object::optional")]
    release_policy: Option<ReleasePolicyJson>,
}

#[derive(Deserialize)]
struct UpdateIn {
    key_ops: Option<Vec<String>>,
    #[serde(default, deserialize_with = "object::optional")]
    attributes: Option<AttributesIn>,
    #[serde(default, deserialize_with = "object::tags")]
    tags: Option<Tags>,
    #[serde(default, deserialize_with = "object::optional")]
    release_policy: Option<ReleasePolicyJson>,
}

#[derive(Deserialize)]
struct ImportIn {
    #[serde(default, deserialize_with = "object::optional")]
    key: Option<JwkIn>,
    #[serde(rename = "Hsm", alias = "hsm")]
    hsm: Option<bool>,
    #[serde(default, deserialize_with = "object::optional")]
    attributes: Option<AttributesIn>,
    #[serde(default, deserialize_with = "object::tags")]
    tags: Option<Tags>,
    #[serde(default, deserialize_with = "object::optional")]
    release_policy: Option<ReleasePolicyJson>,
}

#[derive(Deserialize)]
struct JwkIn {
    kty: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<Bytes>,
    e: Option<Bytes>,
    d: Option<Bytes>,
    p: Option<Bytes>,
    q: Option<Bytes>,
    dp: Option<Bytes>,
    dq: Option<Bytes>,
    qi: Option<Bytes>,
    x: Option<Bytes>,
    y: Option<Bytes>,
    k: Option<Bytes>,
    key_hsm: Option<Bytes>,
}

/// A `.byok` file (contract 10.3).
#[derive(Deserialize)]
struct TransferBlob {
    #[serde(deserialize_with = "object::required")]
    header: TransferHeader,
    ciphertext: Bytes,
}

#[derive(Deserialize)]
struct TransferHeader {
    kid: String,
    alg: String,
    enc: String,
}

fn bad<T>(text: impl Into<String>) -> Result<T, ServiceError> {
    Err(ServiceError::BadParameter(text.into()))
}

fn parse_kty(kty: Option<&str>) -> Result<Kty, ServiceError> {
    let text = kty.ok_or_else(|| ServiceError::BadParameter("'kty' is required.".into()))?;
    Kty::parse(text).ok_or_else(|| ServiceError::BadParameter(format!("The key type '{text}' is not known.")))
}

fn parse_curve(crv: Option<&str>) -> Result<Curve, ServiceError> {
    match crv {
        None => Ok(Curve::P256),
        // The old name of the same curve.
        Some("SECP256K1") => Ok(Curve::P256K),
        Some(text) => {
            Curve::parse(text).ok_or_else(|| ServiceError::BadParameter(format!("The curve '{text}' is not known.")))
        }
    }
}

/// Whether `-HSM` kinds can be had here.
pub(super) fn check_hsm(call: &Call<'_>, kty: Kty) -> Result<(), ServiceError> {
    if !kty.is_hsm() {
        return Ok(());
    }
    if !call.vault().settings.premium {
        return Err(ServiceError::HsmUnavailable("Hardware-protected keys need a vault of the premium SKU."));
    }
    if !call.service.config.hsm_in_software {
        return Err(ServiceError::HsmUnavailable(
            "Hardware-protected keys need a hardware provider, and none is configured on this cluster.",
        ));
    }
    Ok(())
}

/// What to generate (contract 10.2).
fn spec(body: &CreateIn, kty: Kty) -> Result<KeySpec, ServiceError> {
    if let Some(e) = body.public_exponent {
        if e != 65537 {
            return bad("'public_exponent' must be 65537.");
        }
    }
    match kty.family() {
        Family::Rsa => match body.key_size.unwrap_or(2048) {
            size @ (2048 | 3072 | 4096) => Ok(KeySpec::Rsa { bits: u16::try_from(size).unwrap_or(2048) }),
            other => bad(format!("The key size {other} is not allowed: RSA keys have 2048, 3072 or 4096 bits.")),
        },
        Family::Ec => {
            let curve = parse_curve(body.crv.as_deref())?;
            let bits = if curve == Curve::P521 { 521 } else { curve.field_bytes() * 8 };
            match body.key_size {
                Some(size) if size as usize != bits => {
                    bad(format!("The key size {size} does not go with the curve '{curve}'."))
                }
                _ => Ok(KeySpec::Ec { curve }),
            }
        }
        Family::Oct => match body.key_size.unwrap_or(256) {
            size @ (128 | 192 | 256) => Ok(KeySpec::Oct { bits: u16::try_from(size).unwrap_or(256) }),
            other => bad(format!("The key size {other} is not allowed: symmetric keys have 128, 192 or 256 bits.")),
        },
    }
}

/// `key_ops` when none are given (contract 10.2).
fn default_ops(kty: Kty, exportable: bool) -> Vec<String> {
    let ops: &[&str] = match kty.family() {
        Family::Rsa => &["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"],
        Family::Ec => &["sign", "verify"],
        Family::Oct => &["encrypt", "decrypt", "wrapKey", "unwrapKey"],
    };
    let export: &[&str] = if exportable { &["export"] } else { &[] };
    ops.iter().chain(export).map(|op| (*op).to_owned()).collect()
}

/// Checks `exportable` against kind and policy (contract 10.6).
fn check_export(kty: Kty, exportable: bool, policy: Option<&ReleasePolicyJson>) -> Result<(), ServiceError> {
    match (exportable, policy) {
        (false, Some(_)) => bad("AKV.SKR.1005: Non-exportable keys must not have release policy."),
        (true, None) => bad("AKV.SKR.1004: Exportable keys must have release policy."),
        (true, Some(_)) if !kty.is_hsm() => bad("Exportable keys must be of a hardware-protected type."),
        _ => Ok(()),
    }
}

/// A new version, ready to be sealed and proposed.
pub(crate) struct NewKey {
    pub(crate) origin: Origin,
    pub(crate) kty: Kty,
    pub(crate) public: PublicKey,
    pub(crate) private: SecretBytes,
    pub(crate) key_ops: Vec<String>,
    pub(crate) exportable: bool,
    pub(crate) release_policy: Option<ReleasePolicy>,
    pub(crate) attributes: Attributes,
    pub(crate) tags: Tags,
}

impl NewKey {
    /// The version that follows `newest` when it is rotated (contract 10.4): of the same kind, with the same operations,
    /// tags and release policy; `exp` is the policy's. `None` when `newest` is no key.
    pub(crate) fn successor(
        made: Generated,
        newest: ObjectVersion,
        policy: Option<&RotationPolicy>,
        now: u64,
    ) -> Option<Self> {
        let Content::Key { kty, key_ops, exportable, release_policy, .. } = newest.content else { return None };
        let life = policy.and_then(|policy| policy.expiry_time.as_deref()).and_then(IsoDuration::parse);
        let expires = life.map(|life| life.after(now));
        Some(Self {
            origin: Origin::Rotate,
            kty,
            public: made.public,
            private: made.private,
            key_ops,
            exportable,
            release_policy,
            attributes: Attributes { enabled: true, not_before: None, expires },
            tags: newest.tags,
        })
    }

    /// The command body; the private half goes beside it, sealed.
    pub(crate) fn into_put(self, vault: Id128, name: ObjectName, version: Id128) -> PutVersion {
        PutVersion {
            vault,
            kind: Kind::Key,
            name,
            origin: self.origin,
            version,
            attributes: self.attributes,
            tags: self.tags,
            content: Content::Key {
                kty: self.kty,
                public: self.public,
                key_ops: self.key_ops,
                exportable: self.exportable,
                release_policy: self.release_policy,
            },
        }
    }
}

/// Seals and proposes a new version, and answers with its bundle.
pub(super) async fn put(call: &Call<'_>, name: ObjectName, new: NewKey) -> Result<Reply, ServiceError> {
    let version = fresh_id()?;
    let folded = name.folded();
    let label = call.label(&folded, version);
    let sealed = call.service.sealer.seal(call.vault(), label, new.private.expose())?;
    let command = Command::PutVersion(new.into_put(call.vault().id, name, version));
    let object = call.propose_version(command, vec![sealed]).await?;
    Reply::ok(&call.render.bundle(&object))
}

pub(crate) async fn create(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let body: CreateIn = call.json()?;
    let kty = parse_kty(body.kty.as_deref())?;
    let spec = spec(&body, kty)?;
    let attributes = validate::attributes(body.attributes.as_ref())?;
    let exportable = body.attributes.as_ref().and_then(|a| a.exportable).unwrap_or(false);
    check_export(kty, exportable, body.release_policy.as_ref())?;
    let release_policy = body.release_policy.map(validate::release_policy).transpose()?;
    let tags = validate::tags(body.tags)?.unwrap_or_default();
    let key_ops = validate::key_ops(body.key_ops)?.unwrap_or_else(|| default_ops(kty, exportable));
    check_hsm(call, kty)?;
    let name = call.name()?.clone();
    check_not_deleted(call, &name)?;
    check_export_kept(call, &name, exportable)?;
    let made = call.service.keygen.generate(spec).await?;
    let (public, private) = (made.public, made.private);
    let origin = Origin::Create;
    put(call, name, NewKey { origin, kty, public, private, key_ops, exportable, release_policy, attributes, tags })
        .await
}

/// Saves making a key that the state machine would refuse; the state machine decides.
fn check_not_deleted(call: &Call<'_>, name: &ObjectName) -> Result<(), ServiceError> {
    let (vault, folded) = (call.vault().id, name.folded());
    match call.view(|view| read::deleted_head(view, vault, Kind::Key, &folded))? {
        Some(_) => Err(ServiceError::DeletedButRecoverable { kind: Kind::Key, name: call.matched.name.clone() }),
        None => Ok(()),
    }
}

/// Whether a key may leave is decided with its first version (contract 10.6).
fn check_export_kept(call: &Call<'_>, name: &ObjectName, exportable: bool) -> Result<(), ServiceError> {
    let (vault, folded) = (call.vault().id, name.folded());
    let newest = call.view(|view| read::live(view, vault, Kind::Key, &folded, None))?;
    match newest.map(|newest| newest.content) {
        Some(Content::Key { exportable: before, .. }) if before != exportable => {
            bad("AKV.SKR.1003: exportable attribute of an existing key cannot be changed.")
        }
        _ => Ok(()),
    }
}

pub(crate) async fn import(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let body: ImportIn = call.json()?;
    let jwk = body.key.ok_or_else(|| ServiceError::BadParameter("'key' is required.".into()))?;
    let given = parse_kty(jwk.kty.as_deref())?;
    let kty = match (given, body.hsm.unwrap_or(false)) {
        (Kty::Rsa, true) => Kty::RsaHsm,
        (Kty::Ec, true) => Kty::EcHsm,
        (Kty::Oct, true) => Kty::OctHsm,
        (kty, _) => kty,
    };
    let attributes = validate::attributes(body.attributes.as_ref())?;
    let exportable = body.attributes.as_ref().and_then(|a| a.exportable).unwrap_or(false);
    check_export(kty, exportable, body.release_policy.as_ref())?;
    let release_policy = body.release_policy.map(validate::release_policy).transpose()?;
    let tags = validate::tags(body.tags)?.unwrap_or_default();
    let key_ops = validate::key_ops(jwk.key_ops.clone())?.unwrap_or_else(|| default_ops(kty, exportable));
    check_hsm(call, kty)?;
    let name = call.name()?.clone();
    check_not_deleted(call, &name)?;
    check_export_kept(call, &name, exportable)?;
    let imported = match &jwk.key_hsm {
        Some(blob) => {
            let Transfer { key, ciphertext, curve } = open_transfer(call, kty, jwk.crv.as_deref(), &blob.0)?;
            slow(call, kty, move || {
                let target = byok::unwrap_transfer(&*key, &ciphertext).map_err(|_| CryptoError::Failed)?;
                byok::parse_pkcs8(kty.family(), curve, &target)
            })
            .await?
        }
        None => {
            let private = private_jwk(&jwk, kty)?;
            slow(call, kty, move || jwk::import(&private)).await?
        }
    };
    let Imported { public, private, .. } = imported.map_err(import_error)?;
    let origin = Origin::Import;
    put(call, name, NewKey { origin, kty, public, private, key_ops, exportable, release_policy, attributes, tags })
        .await
}

/// Primality tests take tens of milliseconds: not on the threads that answer requests. The rest takes less than a signature.
async fn slow<T: Send + 'static>(
    call: &Call<'_>,
    kty: Kty,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ServiceError> {
    match kty.family() {
        Family::Rsa => call.service.keygen.run(work).await,
        Family::Ec | Family::Oct => Ok(work()),
    }
}

fn import_error(error: CryptoError) -> ServiceError {
    match error {
        CryptoError::Internal(_) => error.into(),
        CryptoError::Failed => ServiceError::BadParameter("The key transfer blob could not be opened.".into()),
        _ => {
            ServiceError::BadParameter("The key material is malformed, inconsistent or of an unsupported size.".into())
        }
    }
}

fn private_jwk(jwk: &JwkIn, kty: Kty) -> Result<PrivateJwk, ServiceError> {
    let secret = |bytes: &Option<Bytes>| bytes.as_ref().map(|b| SecretBytes::new(b.0.clone()));
    let public = |bytes: &Option<Bytes>| bytes.as_ref().map(|b| b.0.clone());
    let mut private = PrivateJwk::new(kty.family());
    if kty.family() == Family::Ec {
        private.crv = Some(parse_curve(jwk.crv.as_deref())?);
    }
    (private.n, private.e) = (public(&jwk.n), public(&jwk.e));
    (private.x, private.y) = (public(&jwk.x), public(&jwk.y));
    (private.d, private.k) = (secret(&jwk.d), secret(&jwk.k));
    (private.p, private.q) = (secret(&jwk.p), secret(&jwk.q));
    (private.dp, private.dq, private.qi) = (secret(&jwk.dp), secret(&jwk.dq), secret(&jwk.qi));
    Ok(private)
}

/// What a `.byok` file holds, with the key that opens it.
struct Transfer {
    key: Arc<dyn LoadedKey>,
    ciphertext: Vec<u8>,
    curve: Option<Curve>,
}

/// Reads a `.byok` file and finds its key-exchange key, which must be in this vault and be for nothing else (contract 10.3).
fn open_transfer(call: &Call<'_>, kty: Kty, crv: Option<&str>, blob: &[u8]) -> Result<Transfer, ServiceError> {
    if !kty.is_hsm() {
        return bad("'key_hsm' goes with hardware-protected key types only.");
    }
    let malformed = || ServiceError::BadParameter("'key_hsm' is not a key transfer blob.".into());
    let Object::<TransferBlob>(blob) = serde_json::from_slice(blob).map_err(|_| malformed())?;
    if blob.header.alg != "dir" || blob.header.enc != "CKM_RSA_AES_KEY_WRAP" {
        return Err(malformed());
    }
    let unknown =
        || ServiceError::BadParameter("The key exchange key of the transfer blob is not in this vault.".into());
    let (folded, version) = exchange_key(call, &blob.header.kid).ok_or_else(unknown)?;
    let vault = call.vault().id;
    let object = call.view(|view| read::live(view, vault, Kind::Key, &folded, Some(version)))?.ok_or_else(unknown)?;
    let Content::Key { key_ops, .. } = &object.content else { return Err(unknown()) };
    if key_ops != &["import"] {
        return bad("The key exchange key must have the key operation 'import' and no other.");
    }
    if !object.attributes.enabled {
        return Err(ServiceError::Disabled { kind: Kind::Key, operation: "import" });
    }
    let key = load(call, &folded, &object)?;
    let curve = match kty.family() {
        Family::Ec => Some(parse_curve(crv)?),
        _ => None,
    };
    Ok(Transfer { key, ciphertext: blob.ciphertext.0.clone(), curve })
}

/// Name and version in the id of a key of this vault, however people spell it: host and names have no case, 443 may be
/// there, and the vault may be called by any of its names.
fn exchange_key(call: &Call<'_>, kid: &str) -> Option<(String, Id128)> {
    let (scheme, rest) = kid.split_once("://")?;
    let (host, path) = rest.split_once('/')?;
    let named = match domain::resolve(&call.service.config.clouds, host)? {
        (_, Plane::Vault(label)) => VaultName::parse(&label).ok()?,
        _ => return None,
    };
    let mut parts = path.trim_end_matches('/').split('/');
    let (collection, name, version) = (parts.next()?, parts.next()?, parts.next()?);
    let right = scheme.eq_ignore_ascii_case("https")
        && named == call.vault().name
        && collection.eq_ignore_ascii_case(Kind::Key.collection())
        && parts.next().is_none();
    let (name, version) = (ObjectName::parse(name).ok()?, Id128::parse_hex(version).ok()?);
    right.then(|| (name.folded(), version))
}

/// The parsed private key of a version that the state has allowed to be used.
pub(super) fn load(call: &Call<'_>, folded: &str, object: &ObjectVersion) -> Result<Arc<dyn LoadedKey>, ServiceError> {
    let Content::Key { public, .. } = &object.content else { return Err(ServiceError::Internal) };
    let vault = call.vault().id;
    if let Some(key) = call.service.keys.get(vault, object.version) {
        return Ok(key);
    }
    let sealed = call.view(|view| read::material(view, vault, Kind::Key, folded, object.version))?;
    // Purged between the two looks.
    let sealed = sealed.ok_or_else(|| call.not_found())?;
    let private = call.service.sealer.open(call.vault(), call.label(folded, object.version), &sealed)?;
    let key = call.service.provider.load(public.spec(), &private)?;
    call.service.keys.put(vault, object.version, key.clone());
    Ok(key)
}

pub(crate) fn get(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let object = call.live()?;
    if !object.attributes.enabled {
        return Err(ServiceError::Disabled { kind: Kind::Key, operation: "get" });
    }
    Reply::ok(&call.render.bundle(&object))
}

/// A release policy that is to replace another one. That the old one is immutable is said before what is wrong with the new
/// one; the state machine decides.
fn new_policy(call: &Call<'_>, new: ReleasePolicyJson) -> Result<ReleasePolicy, ServiceError> {
    validate::release_policy(new).or_else(|error| match call.live()?.content {
        Content::Key { release_policy: Some(old), .. } if old.immutable => {
            Err(from_refusal(Refusal::ImmutablePolicy, Kind::Key, "", String::new(), error))
        }
        _ => Err(error),
    })
}

pub(crate) async fn update(call: &Call<'_>) -> Result<Reply, ServiceError> {
    let body: UpdateIn = call.json()?;
    let attributes = body.attributes.unwrap_or_default();
    validate::check_validity(attributes.nbf, attributes.exp)?;
    let command = Command::UpdateVersion(UpdateVersion {
        vault: call.vault().id,
        kind: Kind::Key,
        name: call.name()?.clone(),
        version: call.version()?,
        enabled: attributes.enabled,
        not_before: attributes.nbf,
        expires: attributes.exp,
        tags: validate::tags(body.tags)?,
        key_ops: validate::key_ops(body.key_ops)?,
        content_type: None,
        release_policy: body.release_policy.map(|new| new_policy(call, new)).transpose()?,
    });
    let object = call.propose_version(command, Vec::new()).await?;
    Reply::ok(&call.render.bundle(&object))
}
