//! Checking client secrets and passwords: expensive on purpose, and so bounded.

use claviger_crypto::{password, random};
use claviger_state_machine::records::Application;
use claviger_types::command::ClientSecret;
use claviger_types::name::Id128;
use lru::LruCache;
use sha2::{Digest, Sha256};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Hashes computed at once: each takes 19 MiB and tens of milliseconds.
const AT_ONCE: usize = 2;

/// Log-ins that may wait for their turn.
const QUEUE: usize = 64;

/// Secrets known to be right, by a keyed hash.
const REMEMBERED: usize = 4096;

/// Wrong secrets for one application or user after which it has to wait.
const FAILURES_MAX: u32 = 20;

/// How long it has to wait, and after which failures are forgotten.
const LOCKED: Duration = Duration::from_secs(60);

/// What a check of a secret came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checked {
    /// It is one of its secrets.
    Right,
    /// It was one of its secrets, and is over.
    Ended,
    /// It is none.
    Wrong,
    /// Too many wrong ones lately.
    Locked,
    /// Too many wait.
    Busy,
}

/// Hashes of the application's secrets that are valid at `now` (seconds).
pub(crate) fn valid(application: &Application, now: u64) -> Vec<String> {
    let in_time = move |secret: &&ClientSecret| secret.start <= now && secret.end.is_none_or(|end| now < end);
    application.secrets.iter().filter(in_time).map(|secret| secret.hash.clone()).collect()
}

/// Hashes of those that were valid once: whoever still has one is told so.
pub(crate) fn ended(application: &Application, now: u64) -> Vec<String> {
    let is_over = move |secret: &&ClientSecret| secret.end.is_some_and(|end| end <= now);
    application.secrets.iter().filter(is_over).map(|secret| secret.hash.clone()).collect()
}

struct Failures {
    count: u32,
    last: Instant,
}

/// Checks secrets, with a memory for right ones and a limit for wrong ones.
pub(crate) struct Credentials {
    /// Makes the memory useless outside this process.
    key: [u8; 32],
    right: Mutex<LruCache<[u8; 32], ()>>,
    failures: Mutex<LruCache<Id128, Failures>>,
    at_once: Semaphore,
    queue: Semaphore,
}

impl Default for Credentials {
    fn default() -> Self {
        let size = NonZeroUsize::new(REMEMBERED).unwrap_or(NonZeroUsize::MIN);
        Self {
            // Without randomness the memory is keyed by zeros: weaker, and still never leaves the process.
            key: random::bytes().unwrap_or_default(),
            right: Mutex::new(LruCache::new(size)),
            failures: Mutex::new(LruCache::new(size)),
            at_once: Semaphore::new(AT_ONCE),
            queue: Semaphore::new(QUEUE),
        }
    }
}

impl Credentials {
    /// Checks a secret of the application or user `of`, whose hashes these are. One that has ended opens nothing, and is
    /// no guess: a program that was forgotten does not shut out the others of its application.
    pub(crate) async fn check(&self, of: Id128, hashes: Vec<String>, ended: Vec<String>, secret: &str) -> Checked {
        let mark = self.mark(of, &hashes, secret);
        if self.right.lock().unwrap_or_else(PoisonError::into_inner).get(&mark).is_some() {
            return Checked::Right;
        }
        if self.locked(of) {
            return Checked::Locked;
        }
        let Ok(_waiting) = self.queue.try_acquire() else { return Checked::Busy };
        let Ok(_turn) = self.at_once.acquire().await else { return Checked::Busy };
        let secret = zeroize::Zeroizing::new(secret.to_owned());
        let is_among = move |hashes: &[String]| hashes.iter().any(|phc| password::verify(&secret, phc));
        let found = tokio::task::spawn_blocking(move || {
            if is_among(&hashes) {
                Checked::Right
            } else if is_among(&ended) {
                Checked::Ended
            } else {
                Checked::Wrong
            }
        });
        let found = found.await.unwrap_or(Checked::Wrong);
        match found {
            Checked::Right => {
                self.right.lock().unwrap_or_else(PoisonError::into_inner).put(mark, ());
                self.failures.lock().unwrap_or_else(PoisonError::into_inner).pop(&of);
            }
            Checked::Ended => {}
            _ => self.failed(of),
        }
        found
    }

    /// Bound to the present hashes: a secret that was removed is forgotten with them.
    fn mark(&self, of: Id128, hashes: &[String], secret: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(of.0);
        for phc in hashes {
            hash.update((phc.len() as u64).to_be_bytes());
            hash.update(phc);
        }
        hash.update(secret);
        hash.finalize().into()
    }

    /// Takes as long as a check, for a name that nobody has: how long an answer takes does not tell which names there are.
    pub(crate) async fn check_nobody(&self, secret: &str) -> Checked {
        let Ok(_waiting) = self.queue.try_acquire() else { return Checked::Busy };
        let Ok(_turn) = self.at_once.acquire().await else { return Checked::Busy };
        let secret = zeroize::Zeroizing::new(secret.to_owned());
        tokio::task::spawn_blocking(move || password::hash(&secret).is_ok()).await.ok();
        Checked::Wrong
    }

    fn locked(&self, of: Id128) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get(&of) {
            Some(known) if known.last.elapsed() >= LOCKED => {
                failures.pop(&of);
                false
            }
            Some(known) => known.count >= FAILURES_MAX,
            None => false,
        }
    }

    fn failed(&self, of: Id128) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.get(&of).map_or(0, |known| known.count) + 1;
        failures.put(of, Failures { count, last: Instant::now() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A secret ends when the given clock says so, also for one that was right a moment ago.
    #[tokio::test]
    async fn a_secret_counts_from_its_start_to_its_end() {
        let id = Id128([1; 16]);
        let secret = ClientSecret {
            id,
            hash: password::hash("right").unwrap(),
            hint: String::new(),
            display_name: String::new(),
            start: 100,
            end: Some(200),
        };
        let application = Application {
            tenant: id,
            app: id,
            object: id,
            oid: id,
            has_principal: true,
            display_name: String::new(),
            secrets: vec![secret],
            certificates: vec![],
            created: 0,
        };
        let credentials = Credentials::default();
        let check = |now, secret| credentials.check(id, valid(&application, now), ended(&application, now), secret);
        for (now, want) in [(99, Checked::Wrong), (100, Checked::Right), (199, Checked::Right), (200, Checked::Ended)] {
            assert_eq!(check(now, "right").await, want, "at {now}");
        }
        // Over, it is no guess; a wrong one is.
        for _ in 0..=FAILURES_MAX {
            assert_eq!(check(200, "right").await, Checked::Ended);
        }
        for _ in 0..FAILURES_MAX {
            assert_eq!(check(200, "wrong").await, Checked::Wrong);
        }
        assert_eq!(check(200, "right").await, Checked::Locked);
    }
}
