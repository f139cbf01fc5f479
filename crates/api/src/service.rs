//! What every request handler works with: one value per process, shared by all workers.

use crate::attestation::Authority;
use crate::clock::Clock;
use crate::domain::Cloud;
use crate::emergency::Approver;
use crate::error::ServiceError;
use crate::identity::{Credentials, Failures};
use crate::issuers::{Issuers, TrustedIssuer};
use crate::keycache::KeyCache;
use crate::keygen::KeyGen;
use crate::metrics::Metrics;
use crate::ops::release::ReleaseSigner;
use crate::sealing::Sealer;
use crate::tokens::Tokens;
use claviger_crypto::provider::CryptoProvider;
use claviger_crypto::random;
use claviger_node::{Decided, Node};
use claviger_state_machine::read;
use claviger_state_machine::records::Vault;
use claviger_types::command::{Actor, Command, Entry, SetReads};
use claviger_types::name::Id128;
use claviger_types::outcome::Outcome;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Settings of the service that are not the cluster's.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    /// The names it answers to.
    pub clouds: Vec<Cloud>,
    /// Region name in answers.
    pub region: String,
    /// Whether `-HSM` kinds may be held in software, as `dev` does.
    pub hsm_in_software: bool,
    /// Who is believed about environments that keys are released to; empty: none are released.
    pub authorities: Vec<Authority>,
    /// What time it is.
    pub clock: Clock,
    /// Whether a new vault gets access policies although roles were asked for. Current `az` asks for roles unless told
    /// otherwise, and then refuses `az keyvault set-policy`, which programs of before know; off, the request is honoured.
    pub policies_where_rbac_is_asked: bool,
    /// How a new world makes reads.
    pub reads: SetReads,
    /// Whose signature allows an emergency; empty: there are none.
    pub approvers: Vec<Approver>,
    /// Base of the page on which users sign in for devices, where a browser finds it under another name than programs do;
    /// `None`: the token service's own.
    pub sign_in_base: Option<String>,
    /// Other issuers whose tokens count.
    pub issuers: Vec<TrustedIssuer>,
}

/// The service of one node.
pub struct Service {
    pub(crate) node: Node,
    pub(crate) config: ServiceConfig,
    pub(crate) sealer: Sealer,
    pub(crate) provider: Arc<dyn CryptoProvider>,
    pub(crate) keygen: KeyGen,
    pub(crate) keys: KeyCache,
    pub(crate) tokens: Tokens,
    pub(crate) credentials: Credentials,
    pub(crate) device_failures: Failures,
    pub(crate) issuers: Issuers,
    pub(crate) metrics: Metrics,
    pub(crate) release: ReleaseSigner,
    /// Places for requests under way.
    pub(crate) requests: Semaphore,
    /// Places of restores: their bodies are read before it is known whether they may be.
    pub(crate) restores: Semaphore,
    draining: AtomicBool,
}

/// How long a node may take to find out that it is ready: longer than a round of a busy cluster, shorter than a probe waits.
const READY: Duration = Duration::from_millis(900);

/// Requests answered at once: with a body of the usual size each, well under a hundred megabytes.
const REQUESTS_MAX: usize = 4096;

/// Restores at once: a body is up to 32 MiB, and three times that while it is opened and sealed again.
const RESTORES_MAX: usize = 8;

impl Service {
    /// Wires the parts together.
    pub fn new(node: Node, sealer: Sealer, provider: Arc<dyn CryptoProvider>, config: ServiceConfig) -> Self {
        let metrics = Metrics::new();
        node.set_write_times(metrics.write_times());
        Self {
            node,
            issuers: Issuers::new(&config.issuers),
            config,
            sealer,
            keygen: KeyGen::new(provider.clone()),
            provider,
            keys: KeyCache::default(),
            tokens: Tokens::default(),
            credentials: Credentials::default(),
            device_failures: Failures::default(),
            metrics,
            release: ReleaseSigner::default(),
            requests: Semaphore::new(REQUESTS_MAX),
            restores: Semaphore::new(RESTORES_MAX),
            draining: AtomicBool::new(false),
        }
    }

    /// What time it is, in milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.config.clock.now_ms()
    }

    /// The replica below.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Seals something of the process's own under the world key.
    pub fn seal_own(&self, what: &str, plain: &[u8]) -> Result<Vec<u8>, claviger_crypto::CryptoError> {
        self.sealer.seal_own(what, what, plain)
    }

    /// Begins a clean stop: the node is no longer ready, and every answer from now on closes its connection, so that none
    /// is cut in the middle of the next request.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether a load balancer should send requests here: the world is there, and reads get in. A leader that
    /// has lost its quorum is not ready, nor is a node that stops.
    pub async fn is_ready(&self) -> bool {
        if self.is_draining() {
            return false;
        }
        let gate = self.node.gate();
        let mut reading = gate.read(&[], None);
        let ready = tokio::time::timeout(READY, reading.begin()).await;
        matches!(ready, Ok(Ok(()))) && self.is_set_up().unwrap_or(false)
    }

    /// A vault that is not soft-deleted.
    pub(crate) fn vault_by_id(&self, id: Id128) -> Result<Option<Vault>, ServiceError> {
        Ok(self.node.view(|view| read::live_vault(view, id))?)
    }

    /// Proposes a command in the name of `actor` and waits for its outcome.
    pub(crate) async fn propose(
        &self,
        actor: Actor,
        command: &Command,
        blobs: Vec<Vec<u8>>,
    ) -> Result<Outcome, ServiceError> {
        Ok(self.decide_as(fresh_id()?, actor, command, blobs).await?.outcome)
    }

    /// Proposes a command under a request id, and says where it was decided.
    pub(crate) async fn decide_as(
        &self,
        request: Id128,
        actor: Actor,
        command: &Command,
        mut blobs: Vec<Vec<u8>>,
    ) -> Result<Decided, ServiceError> {
        if request.is_digest() && blobs.is_empty() {
            // Two requests of a client are two entries, though they say the same: only retries inside the cluster are one.
            blobs.push(random::bytes::<16>()?.to_vec());
        }
        let entry = Entry::new(request, actor, self.now_ms(), command, blobs).map_err(|error| {
            tracing::error!(%error, command = command.name(), "a command could not be encoded");
            ServiceError::Internal
        })?;
        Ok(self.node.decide(&entry).await?)
    }

    /// Like [`Service::propose`], and what it changed is seen by this node's views afterwards: another one may have led.
    pub(crate) async fn propose_and_see(
        &self,
        actor: Actor,
        command: &Command,
        blobs: Vec<Vec<u8>>,
    ) -> Result<Outcome, ServiceError> {
        let outcome = self.propose(actor, command, blobs).await?;
        // It is decided; the caller must not take it for undone.
        self.node.gate().check().await.map_err(|_| ServiceError::OutcomeUnknown)?;
        Ok(outcome)
    }
}

/// A random GUID.
pub fn fresh_id() -> Result<Id128, claviger_crypto::CryptoError> {
    Ok(Id128::from_random(random::bytes()?))
}

/// A random client secret or password: 239 bits in 40 characters, like those that clients know. It starts with a letter,
/// for people hand it to programs as an argument, and one that starts with `-` would be read as an option.
pub(crate) fn fresh_secret() -> Result<String, ServiceError> {
    let mut drawn = Zeroizing::new(random::bytes::<30>()?);
    // The first of the characters stands for the upper six bits: below 32 are A to Z and a to f.
    drawn[0] &= 0x7f;
    Ok(crate::wire::b64(&*drawn))
}
