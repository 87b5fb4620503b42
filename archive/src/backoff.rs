//! How long to wait before trying again.

use std::time::Duration;

/// Waits that double, up to a bound, each made a little shorter by chance so that many gateways do not come
/// back to a store at the same instant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure; `chance` is any number.
    pub(crate) fn next(&mut self, chance: u64) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let whole = doubled.min(LONGEST);
        // Up to a fifth less: the digest of any number is as good as chance.
        let digest = blake3::hash(&chance.to_le_bytes());
        let part = u32::from(digest.as_bytes()[0]);
        whole - whole * part / (5 * 255)
    }

    /// Something worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

const FIRST: Duration = Duration::from_secs(1);
/// An archive that works again is noticed within this time.
pub(crate) const LONGEST: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_begin_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..40).map(|chance| backoff.next(chance)).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST * 4 / 5, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST), "{waits:?}");
        assert!(waits[39] >= LONGEST * 4 / 5, "{waits:?}");
        assert!(waits.windows(2).take(7).all(|pair| pair[1] > pair[0]), "{waits:?}");
        backoff.reset();
        assert!(backoff.next(7) <= FIRST);
    }
}
