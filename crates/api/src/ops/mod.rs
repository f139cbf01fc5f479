//! The operations of the data plane, by what they are on.

pub(crate) mod backup;
pub(crate) mod crypto;
pub(crate) mod keys;
pub(crate) mod objects;
pub(crate) mod release;
pub(crate) mod rotation;
pub(crate) mod secrets;
mod validate;

use crate::call::{Call, Reply};
use crate::error::ServiceError;
use crate::route::Op;

/// Carries out an authorized request.
pub(crate) async fn run(call: &Call<'_>) -> Result<Reply, ServiceError> {
    match call.matched.op {
        Op::KeyCreate => keys::create(call).await,
        Op::KeyImport => keys::import(call).await,
        Op::KeyRotate => rotation::rotate(call).await,
        Op::KeyGet => keys::get(call),
        Op::KeyUpdate => keys::update(call).await,
        Op::KeyRotationPolicy => rotation::get_policy(call),
        Op::KeySetRotationPolicy => rotation::set_policy(call).await,
        Op::KeyEncrypt => crypto::encrypt(call, crypto::ENCRYPT),
        Op::KeyDecrypt => crypto::decrypt(call, crypto::DECRYPT),
        Op::KeyWrap => crypto::encrypt(call, crypto::WRAP),
        Op::KeyUnwrap => crypto::decrypt(call, crypto::UNWRAP),
        Op::KeySign => crypto::sign(call),
        Op::KeyVerify => crypto::verify(call),
        Op::KeyRelease => release::release(call),
        // Contract section 13: a vault refuses what only a Managed HSM has.
        Op::KeySecureWrap | Op::KeySecureUnwrap => Err(ServiceError::ManagedHsmOnly("Secure key wrapping")),
        Op::KeyAttestation => Err(ServiceError::ManagedHsmOnly("Key attestation")),
        Op::RandomBytes => Err(ServiceError::ManagedHsmOnly("Generation of random bytes")),
        Op::SecretSet => secrets::set(call).await,
        Op::SecretGet => secrets::get(call),
        Op::SecretUpdate => secrets::update(call).await,
        Op::KeyList | Op::SecretList => objects::list(call),
        Op::KeyVersions | Op::SecretVersions => objects::versions(call),
        Op::KeyDelete | Op::SecretDelete => objects::delete(call).await,
        Op::DeletedKeyGet | Op::DeletedSecretGet => objects::get_deleted(call),
        Op::DeletedKeyList | Op::DeletedSecretList => objects::list_deleted(call),
        Op::DeletedKeyRecover | Op::DeletedSecretRecover => objects::recover(call).await,
        Op::DeletedKeyPurge | Op::DeletedSecretPurge => objects::purge(call).await,
        Op::KeyBackup | Op::SecretBackup => backup::backup(call),
        Op::KeyRestore | Op::SecretRestore => backup::restore(call).await,
    }
}
