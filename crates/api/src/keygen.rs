//! Slow work on keys, off the request path.
//!
//! Making an RSA key takes tens of milliseconds to seconds, checking the primes of an imported one tens of milliseconds. All
//! of it runs on the blocking pool with a place for each core but one, so that requests always have a core to themselves,
//! behind a bounded queue: what does not fit is refused with 429 at once. A place is held until the work is over, also when
//! the client has gone away, since nothing can stop a search for primes.
//!
//! Once a size has been asked for, a few keys of it are made ahead. They wait in memory only, wiped when dropped, and are
//! never made while requests wait.

use crate::error::ServiceError;
use claviger_crypto::provider::{CryptoProvider, Generated};
use claviger_crypto::CryptoError;
use claviger_types::alg::KeySpec;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests under way or waiting: at the slowest size (0.7 s) and one place, about half a minute of work.
const QUEUE: usize = 64;

/// Every size of RSA keys, in bits.
const SIZES: [u16; 3] = [2048, 3072, 4096];

/// Keys ready per RSA size: a burst of creations, and no more memory than a few hundred kilobytes.
fn ready_max(bits: u16) -> usize {
    match bits {
        0..=2048 => 16,
        2049..=3072 => 6,
        _ => 4,
    }
}

/// Makes and checks keys. Clones share places and stock.
#[derive(Clone)]
pub(crate) struct KeyGen {
    inner: Arc<Inner>,
}

struct Inner {
    provider: Arc<dyn CryptoProvider>,
    ready: Mutex<HashMap<u16, VecDeque<Generated>>>,
    /// Work at once. First come, first served.
    places: Arc<Semaphore>,
    /// Requests under way and waiting.
    queue: Arc<Semaphore>,
    /// One task that makes keys ahead.
    ahead: Arc<Semaphore>,
}

impl KeyGen {
    pub(crate) fn new(provider: Arc<dyn CryptoProvider>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with(provider, cores.saturating_sub(1).max(1), QUEUE)
    }

    fn with(provider: Arc<dyn CryptoProvider>, places: usize, queue: usize) -> Self {
        let inner = Inner {
            provider,
            ready: Mutex::default(),
            places: Arc::new(Semaphore::new(places)),
            queue: Arc::new(Semaphore::new(queue)),
            ahead: Arc::new(Semaphore::new(1)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A fresh key pair. [`ServiceError::Throttled`] when too many wait.
    pub(crate) async fn generate(&self, spec: KeySpec) -> Result<Generated, ServiceError> {
        let KeySpec::Rsa { bits } = spec else {
            // Elliptic curves and random bytes take less than a millisecond.
            return Ok(self.inner.provider.generate(spec)?);
        };
        let made = match self.inner.take(bits) {
            Some(ready) => ready,
            None => {
                let inner = self.inner.clone();
                // One may have become ready while this waited.
                self.run(move || inner.take(bits).map_or_else(|| inner.provider.generate(spec), Ok)).await??
            }
        };
        self.refill(bits);
        Ok(made)
    }

    /// Runs work of tens of milliseconds and more. [`ServiceError::Throttled`] when too much waits.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ServiceError> {
        let queued = self.inner.queue.clone().try_acquire_owned().map_err(|_| ServiceError::Throttled)?;
        let place = self.inner.places.clone().acquire_owned().await.map_err(|_| ServiceError::Unavailable)?;
        blocking(vec![queued, place], work).await
    }

    /// How many keys are ready, by size in bits.
    pub(crate) fn ready(&self) -> [(u16, usize); 3] {
        SIZES.map(|bits| (bits, self.inner.stock(bits)))
    }

    /// Makes keys ahead until the stock is full. One such task at a time: the size that was asked for meanwhile gets its
    /// turn with the next request for it.
    fn refill(&self, bits: u16) {
        let inner = self.inner.clone();
        if inner.stock(bits) >= ready_max(bits) {
            return;
        }
        let Ok(alone) = inner.ahead.clone().try_acquire_owned() else { return };
        tokio::spawn(async move {
            let _alone = alone;
            while inner.stock(bits) < ready_max(bits) {
                // The places are given in the order of asking, so whoever waits already comes first.
                let Ok(place) = inner.places.clone().acquire_owned().await else { return };
                let provider = inner.provider.clone();
                let made = blocking(vec![place], move || provider.generate(KeySpec::Rsa { bits })).await;
                match made {
                    Ok(Ok(key)) => inner.put(bits, key),
                    Ok(Err(error)) => return tracing::warn!(%error, bits, "a key could not be made ahead"),
                    Err(_) => return,
                }
            }
        });
    }
}

/// Runs work on the blocking pool; the permits are kept until it is over, whoever waits for it or not.
async fn blocking<T: Send + 'static>(
    permits: Vec<OwnedSemaphorePermit>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ServiceError> {
    let done = tokio::task::spawn_blocking(move || {
        let result = work();
        drop(permits);
        result
    });
    Ok(done.await.map_err(|_| CryptoError::Internal("work on a key"))?)
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use claviger_crypto::provider::LoadedKey;
    use claviger_crypto::secret::SecretBytes;
    use claviger_types::alg::{EncAlg, PublicKey, SignAlg};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::Condvar;

    /// A provider whose keys come when the test lets them, numbered in their exponent.
    #[derive(Default)]
    struct Slow {
        made: AtomicUsize,
        under_way: AtomicUsize,
        most: AtomicUsize,
        let_go: Mutex<usize>,
        changed: Condvar,
    }

    impl Slow {
        fn let_go(&self, more: usize) {
            *self.let_go.lock().unwrap() += more;
            self.changed.notify_all();
        }
    }

    impl CryptoProvider for Slow {
        fn name(&self) -> &'static str {
            "slow"
        }

        fn generate(&self, _: KeySpec) -> Result<Generated, CryptoError> {
            let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            let mut let_go = self.let_go.lock().unwrap();
            while *let_go == 0 {
                let_go = self.changed.wait(let_go).unwrap();
            }
            *let_go -= 1;
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            let number = u8::try_from(self.made.fetch_add(1, Ordering::SeqCst)).unwrap();
            let public = PublicKey::Rsa { n: vec![1], e: vec![number] };
            Ok(Generated { public, private: SecretBytes::new(vec![number]) })
        }

        fn load(&self, _: KeySpec, _: &SecretBytes) -> Result<Arc<dyn LoadedKey>, CryptoError> {
            Err(CryptoError::Unsupported)
        }

        fn verify(&self, _: &PublicKey, _: SignAlg, _: &[u8], _: &[u8]) -> Result<bool, CryptoError> {
            Err(CryptoError::Unsupported)
        }

        fn encrypt(&self, _: &PublicKey, _: EncAlg, _: &[u8]) -> Result<Vec<u8>, CryptoError> {
            Err(CryptoError::Unsupported)
        }
    }

    const SPEC: KeySpec = KeySpec::Rsa { bits: 4096 };

    async fn until(what: impl Fn() -> bool) {
        while !what() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_places_are_few() {
        let slow = Arc::new(Slow::default());
        let keygen = KeyGen::with(slow.clone(), 2, 5);
        let tasks: Vec<_> = (0..5)
            .map(|_| {
                let keygen = keygen.clone();
                tokio::spawn(async move { keygen.generate(SPEC).await })
            })
            .collect();
        until(|| keygen.inner.queue.available_permits() == 0).await;
        assert_eq!(keygen.generate(SPEC).await.unwrap_err(), ServiceError::Throttled);
        assert_eq!(keygen.run(|| ()).await, Err(ServiceError::Throttled));
        // A client that goes away does not make room before its work is done.
        tasks[0].abort();
        tokio::task::yield_now().await;
        until(|| slow.under_way.load(Ordering::SeqCst) == 2).await;
        assert_eq!(keygen.inner.places.available_permits(), 0);
        slow.let_go(100);
        for task in tasks.into_iter().skip(1) {
            assert!(task.await.unwrap().is_ok());
        }
        // And then keys are made ahead, up to the limit, and given out first.
        until(|| keygen.inner.stock(4096) == ready_max(4096)).await;
        until(|| keygen.inner.ahead.available_permits() == 1).await;
        let made = slow.made.load(Ordering::SeqCst);
        *slow.let_go.lock().unwrap() = 0;
        for _ in 0..ready_max(4096) {
            let key = keygen.generate(SPEC).await.unwrap();
            assert!(usize::from(key.private.expose()[0]) < made, "one of the stock");
        }
        assert!(slow.most.load(Ordering::SeqCst) <= 2);
        slow.let_go(100);
    }

    #[tokio::test]
    async fn requests_come_before_the_stock() {
        let slow = Arc::new(Slow::default());
        let keygen = KeyGen::with(slow.clone(), 1, 5);
        slow.let_go(1);
        keygen.generate(SPEC).await.unwrap();
        // Now one is being made ahead. A request that comes now gets the next place.
        until(|| slow.under_way.load(Ordering::SeqCst) == 1).await;
        let waiting = tokio::spawn({
            let keygen = keygen.clone();
            async move { keygen.generate(SPEC).await }
        });
        until(|| keygen.inner.queue.available_permits() == 4).await;
        // The one under way, and the next: were that for the stock again, the request would wait for a third.
        slow.let_go(2);
        let served = tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await;
        slow.let_go(100);
        served.unwrap().unwrap().unwrap();
    }
}
