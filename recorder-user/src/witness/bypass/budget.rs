//! How much may be recorded one by one. Pure.

use std::time::{Duration, Instant};

/// Refills at a steady rate, up to a burst.
#[derive(Debug)]
pub(super) struct Budget {
    per_second: u32,
    burst: u32,
    /// Thousandths of a place.
    left: u64,
    filled: Option<Instant>,
}

impl Budget {
    pub(super) const fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst, left: burst as u64 * 1000, filled: None }
    }

    /// Takes a place, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let passed =
            self.filled.map_or(Duration::ZERO, |filled| now.saturating_duration_since(filled));
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let more = millis.saturating_mul(self.per_second.into());
        if self.filled.is_none() || more > 0 {
            self.filled = Some(now);
            self.left = self.left.saturating_add(more).min(u64::from(self.burst) * 1000);
        }
        match self.left.checked_sub(1000) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let mut budget = Budget::new(10, 3);
        let mut taken = |ms: u64| budget.take(start + Duration::from_millis(ms));
        assert_eq!([taken(0), taken(0), taken(0), taken(0)], [true, true, true, false]);
        assert_eq!([taken(50), taken(100), taken(100)], [false, true, false]);
        // Small steps add up.
        let steps = (101..=1100).filter(|ms| taken(*ms)).count();
        assert_eq!(steps, 10);
        assert_eq!(
            [taken(60_000), taken(60_000), taken(60_000), taken(60_000)],
            [true, true, true, false]
        );
    }
}
