//! Verified tokens, and for moments refused ones; never their text.

use std::sync::{Arc, atomic::AtomicU64};

use quick_cache::{Weighter, sync};
use recorder_user::model::Timestamp;

use super::{IdentifyError, Identity, Verified};

/// The BLAKE3 hash of a whole token.
type TokenHash = [u8; 32];

/// A verified token.
pub(super) struct Entry {
    pub(super) identity: Arc<Identity>,
    /// Which issuer's.
    pub(super) issuer: usize,
    /// The generation of the key set that is known to hold the key.
    pub(super) generation: AtomicU64,
}

/// A refused token.
#[derive(Clone)]
struct Refusal {
    error: IdentifyError,
    issuer: usize,
    /// The generation of the keys that it was judged by.
    generation: u64,
    at: Timestamp,
}

pub(super) struct Cache {
    verified: sync::Cache<TokenHash, Arc<Entry>, Bytes>,
    refused: sync::Cache<TokenHash, Refusal>,
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
}

/// Weighs an entry by its memory.
#[derive(Clone)]
struct Bytes;

impl Weighter<TokenHash, Arc<Entry>> for Bytes {
    fn weight(&self, _: &TokenHash, entry: &Arc<Entry>) -> u64 {
        let principal = &entry.identity.principal;
        let lists = principal.groups.iter().chain(principal.extra.values().flatten());
        let names = [&principal.issuer, &principal.subject, &principal.username];
        let all = lists.chain(names).chain(&principal.uid).chain([&entry.identity.token.id]);
        let texts: usize = all.map(|text| text.len() + size_of::<String>()).sum();
        (ENTRY_BYTES + texts) as u64
    }
}

impl Cache {
    pub(super) fn new() -> Self {
        Self {
            verified: sync::Cache::with_weighter(VERIFIED_MAX, VERIFIED_BYTES_MAX, Bytes),
            refused: sync::Cache::new(REFUSED_MAX),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    pub(super) fn verified(&self, token: &TokenHash) -> Option<Arc<Entry>> {
        self.verified.get(token)
    }

    pub(super) fn keep(&self, token: TokenHash, issuer: usize, verified: Verified) {
        let Verified { identity, generation } = verified;
        let generation = AtomicU64::new(generation);
        self.verified.insert(token, Arc::new(Entry { identity, issuer, generation }));
    }

    pub(super) fn forget(&self, token: &TokenHash) {
        self.verified.remove(token);
    }

    /// A refusal that is still believed: made moments ago, by the keys that are in use.
    pub(super) fn refused(
        &self,
        token: &TokenHash,
        now: Timestamp,
        generation: impl Fn(usize) -> u64,
    ) -> Option<IdentifyError> {
        let refusal = self.refused.get(token)?;
        let age = now.micros_since(refusal.at);
        let fresh = (0..REFUSED_MICROS).contains(&age);
        if fresh && generation(refusal.issuer) == refusal.generation {
            return Some(refusal.error);
        }
        self.refused.remove(token);
        None
    }

    pub(super) fn refuse(
        &self,
        token: TokenHash,
        issuer: usize,
        generation: u64,
        at: Timestamp,
        error: IdentifyError,
    ) {
        self.refused.insert(token, Refusal { error, issuer, generation, at });
    }

    pub(super) fn entries(&self) -> u64 {
        self.verified.len() as u64
    }
}

/// About as many tokens as this are kept; then the least used are verified again.
const VERIFIED_MAX: usize = 16_384;
/// And their memory, by estimate.
const VERIFIED_BYTES_MAX: u64 = 32 << 20;
/// The fixed part of an entry, generously.
const ENTRY_BYTES: usize = 512;
/// Forged tokens push each other out; the cost is a verification.
const REFUSED_MAX: usize = 4096;
/// Long enough to blunt a client that retries in a loop, too short to be noticed by a person.
const REFUSED_MICROS: i64 = 2_000_000;
