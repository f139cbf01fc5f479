//! Making keys off the request path.
//!
//! RSA takes tens of milliseconds to seconds. Once a size has been asked for, a few keys of it are made ahead in the
//! background; they wait in memory only, wiped when dropped. A request that finds none ready makes its own on the
//! blocking pool, behind a bounded queue.

use crate::error::ServiceError;
use claviger_crypto::provider::{CryptoProvider, Generated};
use claviger_crypto::CryptoError;
use claviger_types::alg::KeySpec;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Requests that may wait for a key to be made: at the slowest size and two cores, about half a minute of work.
const QUEUE: usize = 64;

/// Keys ready per RSA size: a burst of creations, and no more memory than a few hundred kilobytes.
fn ready_max(bits: u16) -> usize {
    match bits {
        0..=2048 => 16,
        2049..=3072 => 6,
        _ => 4,
    }
}

/// Makes key pairs. Clones share the stock.
#[derive(Clone)]
pub(crate) struct KeyGen {
    inner: Arc<Inner>,
}

struct Inner {
    provider: Arc<dyn CryptoProvider>,
    ready: Mutex<HashMap<u16, VecDeque<Generated>>>,
    /// One place per core for requests.
    cores: Semaphore,
    queue: Semaphore,
    /// One key ahead at a time, so that half the machine stays free.
    ahead: Semaphore,
}

impl KeyGen {
    pub(crate) fn new(provider: Arc<dyn CryptoProvider>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let inner = Inner {
            provider,
            ready: Mutex::default(),
            cores: Semaphore::new(cores),
            queue: Semaphore::new(QUEUE),
            ahead: Semaphore::new(1),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A fresh key pair. [`ServiceError::Throttled`] when too many wait.
    pub(crate) async fn generate(&self, spec: KeySpec) -> Result<Generated, ServiceError> {
        let KeySpec::Rsa { bits } = spec else {
            // Elliptic curves and random bytes take less than a millisecond.
            return Ok(self.inner.provider.generate(spec)?);
        };
        let taken = self.inner.take(bits);
        if let Some(ready) = taken {
            self.refill(bits);
            return Ok(ready);
        }
        let _waiting = self.inner.queue.try_acquire().map_err(|_| ServiceError::Throttled)?;
        let _core = self.inner.cores.acquire().await.map_err(|_| ServiceError::Unavailable)?;
        if let Some(ready) = self.inner.take(bits) {
            return Ok(ready);
        }
        let made = self.inner.clone().make(spec).await?;
        self.refill(bits);
        Ok(made)
    }

    /// Makes keys ahead until the stock is full; one such task at a time.
    fn refill(&self, bits: u16) {
        let inner = self.inner.clone();
        tokio::spawn(async move {
            let this = inner.clone();
            let Ok(_alone) = this.ahead.try_acquire() else { return };
            while inner.stock(bits) < ready_max(bits) {
                // Requests come first.
                let Ok(_core) = inner.cores.acquire().await else { return };
                match inner.clone().make(KeySpec::Rsa { bits }).await {
                    Ok(key) => inner.put(bits, key),
                    Err(error) => {
                        tracing::warn!(%error, bits, "a key could not be made ahead");
                        return;
                    }
                }
            }
        });
    }
}

impl Inner {
    fn take(&self, bits: u16) -> Option<Generated> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&bits)?.pop_front()
    }

    fn stock(&self, bits: u16) -> usize {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).get(&bits).map_or(0, VecDeque::len)
    }

    fn put(&self, bits: u16, key: Generated) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).entry(bits).or_default().push_back(key);
    }

    async fn make(self: Arc<Self>, spec: KeySpec) -> Result<Generated, CryptoError> {
        tokio::task::spawn_blocking(move || self.provider.generate(spec))
            .await
            .map_err(|_| CryptoError::Internal("key generation"))?
    }
}
