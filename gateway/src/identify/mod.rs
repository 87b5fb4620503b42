//! The second phase of a request: from a bearer token to the principal that it proves.
//!
//! Each configured issuer has one task that fetches its keys: on a timer, and once when a token
//! names a key that is not known. Requests never fetch; at most they wait for that task, bounded. A
//! token is verified once and kept, keyed by a hash of its whole text, until it expires, its key
//! leaves the issuer's set, or the keys are too old to be believed. Nothing of a token's text is
//! kept, logged or put into an error.
//!
//! Trusted are the issuers' TLS certificates and what they serve; the token is hostile until its
//! signature was verified, and its claims are checked like any other input after that.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use recorder_user::model::{Principal, Timestamp, TokenFacts};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::config::{Authentication, Issuer};

mod bearer;
mod cache;
mod error;
mod fetch;
mod issuer;
mod keys;
mod principal;
mod stats;
mod token;

pub use bearer::bearer;
pub use error::{Class, IdentifyError};
pub use principal::impersonation_groups;
pub use stats::{IssuerStats, Stats};

use cache::Cache;
use issuer::IssuerKeys;
use keys::Search;
use token::Token;

/// Who a verified token proves, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who acts.
    pub principal: Arc<Principal>,
    /// What is kept of the token.
    pub token: TokenFacts,
    /// From this instant on the token is refused: its `exp` and the leeway.
    pub expires: Timestamp,
    /// Before this instant the token is refused: its `nbf` less the leeway.
    pub not_before: Option<Timestamp>,
    /// The issuer's key that made the token's signature.
    key: keys::KeyHash,
}

impl Identity {
    /// Whether the token is within its time; the same test as on every request.
    #[must_use]
    pub fn still_valid(&self, now: Timestamp) -> bool {
        self.within_time(now).is_ok()
    }

    fn within_time(&self, now: Timestamp) -> Result<(), IdentifyError> {
        if now >= self.expires {
            return Err(IdentifyError::Expired);
        }
        if self.not_before.is_some_and(|not_before| now < not_before) {
            return Err(IdentifyError::NotYetValid);
        }
        Ok(())
    }
}

/// Verifies tokens of the configured issuers. Made anew when the configuration changes, so that no
/// verified token outlives the rules that it was verified under.
pub struct Identifier {
    issuers: Vec<IssuerEntry>,
    by_url: HashMap<String, usize>,
    cache: Cache,
}

/// One issuer: its rules and its keys.
struct IssuerEntry {
    rules: Issuer,
    keys: Arc<IssuerKeys>,
    /// Longer username prefixes of other issuers that begin with this one's.
    foreign_prefixes: Vec<String>,
}

impl Identifier {
    /// Starts one task per issuer that keeps its keys, and returns without waiting for them: an
    /// issuer that is down does not keep the gateway from starting, only from being ready.
    #[must_use]
    pub fn start(
        authentication: &Authentication,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let rules = &authentication.issuers;
        let issuers: Vec<IssuerEntry> = rules
            .iter()
            .map(|issuer| IssuerEntry {
                rules: issuer.clone(),
                keys: IssuerKeys::start(issuer, authentication.keys.clone(), tasks, stop.clone()),
                foreign_prefixes: foreign_prefixes(issuer, rules),
            })
            .collect();
        let by_url =
            issuers.iter().enumerate().map(|(i, entry)| (entry.rules.url.clone(), i)).collect();
        Arc::new(Self { issuers, by_url, cache: Cache::new() })
    }

    /// The identity that `token` proves at `now`.
    ///
    /// On a hit in the cache this allocates nothing and does not wait. Otherwise it verifies the
    /// signature, and may wait (bounded) for the issuer's keys to be fetched.
    ///
    /// # Errors
    /// 401 for every fault of the token, 503 when there are no keys to judge it by.
    // cancel-safe: because the fetch belongs to the issuer's task, and the cache is written at
    // once.
    pub async fn identify(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<Arc<Identity>, IdentifyError> {
        if token.len() > token::TOKEN_BYTES_MAX {
            return Err(IdentifyError::TooLarge);
        }
        let hash = *blake3::hash(token.as_bytes()).as_bytes();
        if let Some(known) = self.cached(&hash, now) {
            self.cache.hits.fetch_add(1, Ordering::Relaxed);
            return known;
        }
        self.cache.misses.fetch_add(1, Ordering::Relaxed);
        let parsed = Token::parse(token)?;
        let index = *self.by_url.get(parsed.issuer()).ok_or(IdentifyError::UnknownIssuer)?;
        let entry = &self.issuers[index];
        if !entry.rules.algorithms.contains(&parsed.algorithm) {
            return Err(IdentifyError::Algorithm);
        }
        // Taken before the judgement, so that a refusal made with older keys does not outlive them.
        let generation = entry.keys.generation();
        match entry.verify(&parsed, &hash, now).await {
            Ok(verified) => {
                let identity = Arc::clone(&verified.identity);
                self.cache.keep(hash, index, verified);
                Ok(identity)
            }
            Err(error) => {
                if error.class() == Class::Client {
                    self.cache.refuse(hash, index, generation, now, error.clone());
                }
                Err(error)
            }
        }
    }

    fn cached(
        &self,
        hash: &[u8; 32],
        now: Timestamp,
    ) -> Option<Result<Arc<Identity>, IdentifyError>> {
        if let Some(entry) = self.cache.verified(hash) {
            let issuer = &self.issuers[entry.issuer];
            let keys = match issuer.keys.usable(now) {
                Ok(keys) => keys,
                Err(error) => return Some(Err(error)),
            };
            if entry.generation.load(Ordering::Relaxed) != keys.generation {
                if !keys.contains(&entry.identity.key) {
                    self.cache.forget(hash);
                    return None;
                }
                entry.generation.store(keys.generation, Ordering::Relaxed);
            }
            return Some(entry.identity.within_time(now).map(|()| Arc::clone(&entry.identity)));
        }
        self.cache.refused(hash, now, |issuer| self.issuers[issuer].keys.generation()).map(Err)
    }

    /// Whether the key that signed this identity's token is still one of its issuer's. An issuer that cannot be
    /// asked has withdrawn nothing.
    #[must_use]
    pub fn vouches(&self, identity: &Identity) -> bool {
        let issuer = self.by_url.get(&identity.principal.issuer);
        issuer.is_some_and(|index| self.issuers[*index].keys.vouches(&identity.key))
    }

    /// The generations of all issuers' keys: they differ once any key came or left.
    #[must_use]
    pub fn generations(&self) -> Vec<u64> {
        self.issuers.iter().map(|entry| entry.keys.generation()).collect()
    }

    /// Whether tokens of at least one issuer can be verified at `now`.
    #[must_use]
    pub fn ready(&self, now: Timestamp) -> bool {
        self.issuers.iter().any(|entry| entry.keys.usable(now).is_ok())
    }

    /// Waits until [`Self::ready`] may have changed from `false` to `true`: until some issuer's
    /// keys came. Without a bound of its own.
    pub async fn wait_ready(&self) {
        let waits = self.issuers.iter().map(|entry| Box::pin(entry.keys.wait_fetched()));
        first_of(waits.collect()).await;
    }

    /// Counters for metrics; costs a look at each issuer.
    #[must_use]
    pub fn stats(&self, now: Timestamp) -> Stats {
        Stats {
            issuers: self.issuers.iter().map(|e| e.keys.stats(&e.rules.url, now)).collect(),
            cache_hits: self.cache.hits.load(Ordering::Relaxed),
            cache_misses: self.cache.misses.load(Ordering::Relaxed),
            cache_entries: self.cache.entries(),
        }
    }
}

impl std::fmt::Debug for Identifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identifier").field("issuers", &self.by_url.keys()).finish_non_exhaustive()
    }
}

/// What a verified token leaves behind.
struct Verified {
    identity: Arc<Identity>,
    generation: u64,
}

impl IssuerEntry {
    async fn verify(
        &self,
        token: &Token<'_>,
        hash: &[u8; 32],
        now: Timestamp,
    ) -> Result<Verified, IdentifyError> {
        let mut asked = false;
        let (key, generation) = loop {
            let missing = match self.keys.usable(now) {
                Ok(keys) => match keys.find(token) {
                    Search::Verified(key) => break (key, keys.generation),
                    Search::BadSignature => return Err(IdentifyError::Signature),
                    Search::NoKey => IdentifyError::UnknownKey,
                },
                Err(unavailable) => unavailable,
            };
            // Once: the issuer may have a newer key. The issuer's task decides whether it asks.
            if asked || !self.keys.refresh_wanted().await {
                return Err(missing);
            }
            asked = true;
        };
        let identity = principal::identity(token, hash, key, &self.rules, &self.foreign_prefixes)?;
        identity.within_time(now)?;
        Ok(Verified { identity: Arc::new(identity), generation })
    }
}

/// With prefixes `` and `oidc:`, the first issuer could give `oidc:alice`, who is the second's.
fn foreign_prefixes(issuer: &Issuer, all: &[Issuer]) -> Vec<String> {
    let own = &issuer.username.prefix;
    let others = all.iter().map(|other| &other.username.prefix);
    others.filter(|other| *other != own && other.starts_with(own.as_str())).cloned().collect()
}

/// Waits for the first of several futures.
async fn first_of<F: Future<Output = ()> + Unpin>(mut futures: Vec<F>) {
    std::future::poll_fn(|context| {
        let done = futures.iter_mut().any(|f| std::pin::Pin::new(f).poll(context).is_ready());
        if done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
