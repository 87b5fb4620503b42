//! From the kernel's monotonic time to wall-clock time.

use std::sync::atomic::{AtomicI64, Ordering};

use super::sys::{Clock, clock_ns};
use crate::model::Timestamp;

/// The distance between the two clocks, renewed now and then: the wall clock is slewed and stepped, and
/// the monotonic clock stands still in suspend.
pub(super) struct Anchor {
    offset_ns: AtomicI64,
}

impl Anchor {
    pub(super) fn new() -> Self {
        Self { offset_ns: AtomicI64::new(offset_ns()) }
    }

    pub(super) fn renew(&self) {
        self.offset_ns.store(offset_ns(), Ordering::Relaxed);
    }

    /// The wall-clock time of a kernel time; 0 is how the kernel side says "never".
    pub(super) fn wall(&self, ktime_ns: u64) -> Option<Timestamp> {
        if ktime_ns == 0 {
            return None;
        }
        let monotonic = i64::try_from(ktime_ns).ok()?;
        let wall_ns = monotonic.checked_add(self.offset_ns.load(Ordering::Relaxed))?;
        Some(Timestamp::from_micros(wall_ns.div_euclid(1_000)))
    }
}

/// Wall clock less monotonic clock: the wall clock is read between two monotonic readings, so that a
/// pause between the reads shifts the result by half of it at most.
fn offset_ns() -> i64 {
    let before = clock_ns(Clock::Monotonic);
    let wall = clock_ns(Clock::Realtime);
    let after = clock_ns(Clock::Monotonic);
    wall.saturating_sub(before.midpoint(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monotonic_reading_of_now_is_now() {
        let anchor = Anchor::new();
        let before = Timestamp::now();
        let now =
            anchor.wall(u64::try_from(clock_ns(Clock::Monotonic)).expect("uptime is positive"));
        let after = Timestamp::now();
        let now = now.expect("a real time");
        // The anchor's own error: half the pause between its two monotonic readings, far below 1 s.
        assert!(now.micros_since(before) > -1_000_000 && after.micros_since(now) > -1_000_000);
    }

    #[test]
    fn never_and_nonsense_have_no_time() {
        let anchor = Anchor::new();
        assert_eq!(anchor.wall(0), None);
        assert_eq!(anchor.wall(u64::MAX), None);
    }
}
