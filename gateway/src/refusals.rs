//! Refusals of clients that nobody could identify are recorded at a bounded rate, so that they cannot
//! fill the disk; those between are counted in the next that is recorded.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::bounds::REFUSALS_PER_SECOND;

/// The rate limit by client address.
pub struct Refusals {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    suppressed: AtomicU64,
}

impl Default for Refusals {
    fn default() -> Self {
        let rate = NonZeroU32::new(REFUSALS_PER_SECOND).unwrap_or(NonZeroU32::MIN);
        Self { limiter: RateLimiter::keyed(Quota::per_second(rate)), suppressed: AtomicU64::new(0) }
    }
}

impl Refusals {
    /// Whether a refusal of this client is recorded, with how many before it were not.
    pub fn admit(&self, peer: IpAddr) -> Option<u64> {
        if self.limiter.check_key(&peer).is_ok() {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Forgets addresses that are quiet again.
    pub fn prune(&self) {
        self.limiter.retain_recent();
    }
}
