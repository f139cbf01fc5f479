//! Key and secret clients of the Rust SDK, unmodified, in the environment of `claviger exec -- cargo test`.

use async_trait::async_trait;
use azure_core::credentials::Secret;
use azure_core::error::ErrorKind;
use azure_core::http::headers::CLIENT_REQUEST_ID;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{ClientOptions, Context, Request, StatusCode};
use azure_core::Result;
use azure_identity::ClientSecretCredential;
use azure_security_keyvault_keys::models::*;
use azure_security_keyvault_keys::{KeyClient, KeyClientOptions, ResourceExt as _};
use azure_security_keyvault_secrets::models::{RestoreSecretParameters, SetSecretParameters};
use azure_security_keyvault_secrets::{ResourceExt as _, SecretClient, SecretClientOptions};
use futures::TryStreamExt;
use std::sync::{Arc, Mutex, Once};
use std::time::{SystemTime, UNIX_EPOCH};

fn variable(name: &str) -> String {
    std::env::var(name).expect("run through Claviger: `claviger exec -- cargo test`")
}

fn credential() -> Arc<ClientSecretCredential> {
    static TLS: Once = Once::new();
    TLS.call_once(|| {
        rustls::crypto::ring::default_provider().install_default().expect("nobody was quicker");
    });
    let secret = Secret::from(variable("AZURE_CLIENT_SECRET"));
    ClientSecretCredential::new(&variable("AZURE_TENANT_ID"), variable("AZURE_CLIENT_ID"), secret, None).unwrap()
}

fn keys() -> KeyClient {
    KeyClient::new(&variable("VAULT_URL"), credential(), None).unwrap()
}

fn secrets() -> SecretClient {
    SecretClient::new(&variable("VAULT_URL"), credential(), None).unwrap()
}

fn fresh(what: &str) -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("rust-{what}-{nanos:x}")
}

async fn create(client: &KeyClient, name: &str, kty: KeyType, curve: Option<CurveName>) -> Result<Key> {
    let body = CreateKeyParameters { kty: Some(kty), curve, ..Default::default() };
    client.create_key(name, body.try_into()?, None).await?.into_model()
}

#[tokio::test]
async fn a_key_from_creation_to_purge() -> Result<()> {
    let client = keys();
    let name = fresh("life");
    let first = create(&client, &name, KeyType::Rsa, None).await?;
    assert_eq!(first.key.as_ref().and_then(|jwk| jwk.e.clone()), Some(vec![1, 0, 1]));
    let second = create(&client, &name, KeyType::Ec, Some(CurveName::P384)).await?;
    assert_ne!(first.resource_id()?.version, second.resource_id()?.version);
    assert_eq!(client.get_key(&name, None).await?.into_model()?.resource_id()?, second.resource_id()?);

    // The SDK sends what it was given back, read-only members included.
    let body = UpdateKeyPropertiesParameters {
        key_attributes: second.attributes.clone(),
        tags: Some([("a".to_owned(), "b".to_owned())].into()),
        ..Default::default()
    };
    let changed = client.update_key_properties(&name, body.try_into()?, None).await?.into_model()?;
    assert_eq!(changed.tags.unwrap().get("a").map(String::as_str), Some("b"));
    let versions: Vec<_> = client.list_key_properties_versions(&name, None)?.try_collect().await?;
    assert_eq!(versions.len(), 2);
    let listed: Vec<_> = client.list_key_properties(None)?.try_collect().await?;
    assert!(listed.iter().any(|key| key.resource_id().is_ok_and(|id| id.name == name)));

    let backup = client.backup_key(&name, None).await?.into_model()?;
    client.delete_key(&name, None).await?;
    let missing = client.get_key(&name, None).await.unwrap_err();
    assert_eq!(missing.http_status(), Some(StatusCode::NotFound));
    client.get_deleted_key(&name, None).await?;
    client.recover_deleted_key(&name, None).await?;
    client.delete_key(&name, None).await?;
    client.purge_deleted_key(&name, None).await?;
    let body = RestoreKeyParameters { key_backup: backup.value };
    let restored = client.restore_key(body.try_into()?, None).await?.into_model()?;
    assert_eq!(restored.resource_id()?, second.resource_id()?);
    Ok(())
}

#[tokio::test]
async fn signatures() -> Result<()> {
    let client = keys();
    let cases = [
        (KeyType::Rsa, None, SignatureAlgorithm::Rs256, 32),
        (KeyType::RsaHsm, None, SignatureAlgorithm::Ps512, 64),
        (KeyType::Ec, Some(CurveName::P256), SignatureAlgorithm::Es256, 32),
        (KeyType::Ec, Some(CurveName::P384), SignatureAlgorithm::Es384, 48),
        (KeyType::Ec, Some(CurveName::P521), SignatureAlgorithm::Es512, 64),
        (KeyType::Ec, Some(CurveName::P256K), SignatureAlgorithm::Es256K, 32),
    ];
    for (kty, curve, algorithm, length) in cases {
        let name = fresh("sign");
        create(&client, &name, kty, curve).await?;
        let digest = vec![7u8; length];
        let body = SignParameters { algorithm: Some(algorithm.clone()), value: Some(digest.clone()) };
        let signed = client.sign(&name, body.try_into()?, None).await?.into_model()?;
        for (digest, want) in [(digest, true), (vec![8u8; length], false)] {
            let (algorithm, signature) = (Some(algorithm.clone()), signed.result.clone());
            let body = VerifyParameters { algorithm, digest: Some(digest), signature };
            let verified = client.verify(&name, "", body.try_into()?, None).await?.into_model()?;
            assert_eq!(verified.value, Some(want));
        }
    }
    Ok(())
}

#[tokio::test]
async fn encryption_and_wrapping() -> Result<()> {
    let client = keys();
    let name = fresh("encrypt");
    create(&client, &name, KeyType::Rsa, None).await?;
    for algorithm in [EncryptionAlgorithm::RsaOaep256, EncryptionAlgorithm::RsaOaep] {
        let body = |value: Option<Vec<u8>>| KeyOperationParameters {
            algorithm: Some(algorithm.clone()),
            value,
            ..Default::default()
        };
        let plain = Some(b"plaintext".to_vec());
        let sealed = client.encrypt(&name, body(plain.clone()).try_into()?, None).await?.into_model()?;
        let opened = client.decrypt(&name, "", body(sealed.result).try_into()?, None).await?.into_model()?;
        assert_eq!(opened.result, plain);
        let wrapped = client.wrap_key(&name, body(plain.clone()).try_into()?, None).await?.into_model()?;
        let opened = client.unwrap_key(&name, "", body(wrapped.result).try_into()?, None).await?.into_model()?;
        assert_eq!(opened.result, plain);
        let rubbish = client.decrypt(&name, "", body(Some(vec![1; 256])).try_into()?, None).await.unwrap_err();
        assert_eq!(rubbish.http_status(), Some(StatusCode::BadRequest));
    }
    Ok(())
}

#[tokio::test]
async fn rotation_and_its_policy() -> Result<()> {
    let client = keys();
    let name = fresh("rotate");
    let first = create(&client, &name, KeyType::Ec, None).await?;
    let policy = KeyRotationPolicy {
        attributes: Some(KeyRotationPolicyAttributes { expiry_time: Some("P90D".into()), ..Default::default() }),
        lifetime_actions: Some(vec![LifetimeAction {
            action: Some(LifetimeActionType { type_prop: Some(KeyRotationPolicyAction::Rotate) }),
            trigger: Some(LifetimeActionTrigger { time_after_create: Some("P60D".into()), ..Default::default() }),
        }]),
        ..Default::default()
    };
    let set = client.update_key_rotation_policy(&name, policy.try_into()?, None).await?.into_model()?;
    assert_eq!(set.lifetime_actions.map(|actions| actions.len()), Some(2), "rotate, and the default notice");
    let shown = client.get_key_rotation_policy(&name, None).await?.into_model()?;
    assert_eq!(shown.attributes.and_then(|a| a.expiry_time).as_deref(), Some("P90D"));
    let rotated = client.rotate_key(&name, None).await?.into_model()?;
    assert_ne!(rotated.resource_id()?.version, first.resource_id()?.version);
    assert!(rotated.attributes.and_then(|a| a.expires).is_some());
    Ok(())
}

#[tokio::test]
async fn a_secret_from_creation_to_purge() -> Result<()> {
    let client = secrets();
    let name = fresh("secret");
    let body = SetSecretParameters { value: Some("s3cret \u{1f511}".into()), ..Default::default() };
    client.set_secret(&name, body.try_into()?, None).await?;
    let found = client.get_secret(&name, None).await?.into_model()?;
    assert_eq!(found.value.as_deref(), Some("s3cret \u{1f511}"));
    assert_eq!(found.resource_id()?.name, name);
    let backup = client.backup_secret(&name, None).await?.into_model()?;
    client.delete_secret(&name, None).await?;
    let missing = client.get_secret(&name, None).await.unwrap_err();
    assert_eq!(missing.http_status(), Some(StatusCode::NotFound));
    client.purge_deleted_secret(&name, None).await?;
    let body = RestoreSecretParameters { secret_backup: backup.value };
    client.restore_secret(body.try_into()?, None).await?;
    assert_eq!(client.get_secret(&name, None).await?.into_model()?.value, found.value);
    Ok(())
}

/// Stands where the network is: loses the answer of the next call, and notes under which ids attempts leave.
#[derive(Debug, Default)]
struct Lossy {
    armed: Mutex<bool>,
    ids: Mutex<Vec<Option<String>>>,
}

#[async_trait]
impl Policy for Lossy {
    async fn send(&self, ctx: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        self.ids.lock().unwrap().push(request.headers().get_optional_str(&CLIENT_REQUEST_ID).map(str::to_owned));
        let answer = next[0].send(ctx, request, &next[1..]).await?;
        if std::mem::take(&mut *self.armed.lock().unwrap()) {
            return Err(azure_core::Error::with_message(ErrorKind::Io, "the connection was closed"));
        }
        Ok(answer)
    }
}

impl Lossy {
    fn arm(&self) {
        *self.armed.lock().unwrap() = true;
        self.ids.lock().unwrap().clear();
    }

    /// Two attempts under one id.
    fn check(&self) {
        let ids = self.ids.lock().unwrap();
        assert!(ids.len() == 2 && ids[0].is_some() && ids[0] == ids[1], "{ids:?}");
    }
}

#[tokio::test]
async fn a_call_whose_answer_was_lost_is_repeated_and_acts_once() -> Result<()> {
    let lossy = Arc::new(Lossy::default());
    let options = ClientOptions { per_try_policies: vec![lossy.clone()], ..Default::default() };
    let secrets = SecretClientOptions { client_options: options.clone(), ..Default::default() };
    let secrets = SecretClient::new(&variable("VAULT_URL"), credential(), Some(secrets))?;
    let keys = KeyClientOptions { client_options: options, ..Default::default() };
    let keys = KeyClient::new(&variable("VAULT_URL"), credential(), Some(keys))?;
    // The first call of each client is answered with a challenge.
    let body = || SetSecretParameters { value: Some("v".into()), ..Default::default() };
    secrets.set_secret(&fresh("first"), body().try_into()?, None).await?;
    create(&keys, &fresh("first"), KeyType::Ec, None).await?;

    let (secret, key) = (fresh("once"), fresh("once"));
    lossy.arm();
    secrets.set_secret(&secret, body().try_into()?, None).await?;
    lossy.check();
    assert_eq!(secrets.list_secret_properties_versions(&secret, None)?.try_collect::<Vec<_>>().await?.len(), 1);
    lossy.arm();
    create(&keys, &key, KeyType::Ec, None).await?;
    lossy.check();
    assert_eq!(keys.list_key_properties_versions(&key, None)?.try_collect::<Vec<_>>().await?.len(), 1);
    Ok(())
}
