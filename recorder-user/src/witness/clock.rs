//! From the kernel's monotonic time to wall-clock time.

use std::sync::atomic::{AtomicI64, Ordering};

use super::sys::{Clock, clock_ns};
use crate::model::Timestamp;

/// The distance between the two clocks is measured anew when it is this old: the wall clock is slewed and
/// stepped, and the monotonic clock stands still in suspend.
const AGE_MAX_NS: i64 = 1_000_000_000;

/// The distance between the two clocks.
pub(super) struct Anchor {
    offset_ns: AtomicI64,
    measured_ns: AtomicI64,
}

impl Anchor {
    pub(super) fn new() -> Self {
        Self {
            offset_ns: AtomicI64::new(offset_ns()),
            measured_ns: AtomicI64::new(clock_ns(Clock::Monotonic)),
        }
    }

    /// The wall-clock time of a kernel time; 0 is how the kernel side says "never".
    pub(super) fn wall(&self, ktime_ns: u64) -> Option<Timestamp> {
        if ktime_ns == 0 {
            return None;
        }
        let now = clock_ns(Clock::Monotonic);
        if now.saturating_sub(self.measured_ns.load(Ordering::Relaxed)) > AGE_MAX_NS {
            self.offset_ns.store(offset_ns(), Ordering::Relaxed);
            self.measured_ns.store(now, Ordering::Relaxed);
        }
        let monotonic = i64::try_from(ktime_ns).ok()?;
        let wall_ns = monotonic.checked_add(self.offset_ns.load(Ordering::Relaxed))?;
        Some(Timestamp::from_micros(wall_ns.div_euclid(1_000)))
    }
}

/// Three clocks at one instant: what a later reader needs to place monotonic times, and to see that a
/// clock was stepped or the node slept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// `CLOCK_MONOTONIC` in nanoseconds: what the programs read.
    pub monotonic_ns: u64,
    /// `CLOCK_BOOTTIME` in nanoseconds: the same, with the time asleep.
    pub boottime_ns: u64,
    /// The wall clock.
    pub wall: Timestamp,
}

impl Clocks {
    /// The clocks now.
    #[must_use]
    pub fn now() -> Self {
        let [monotonic_ns, boottime_ns, wall] =
            [Clock::Monotonic, Clock::Boottime, Clock::Realtime].map(clock_ns);
        Self {
            monotonic_ns: monotonic_ns.unsigned_abs(),
            boottime_ns: boottime_ns.unsigned_abs(),
            wall: Timestamp::from_micros(wall.div_euclid(1_000)),
        }
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds, by which the programs tell times.
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_ns(Clock::Monotonic).unsigned_abs()
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
        let now = anchor.wall(monotonic_ns());
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

    #[test]
    fn the_clocks_belong_together() {
        let clocks = Clocks::now();
        assert!(clocks.boottime_ns >= clocks.monotonic_ns, "asleep is not less than no time");
        assert!(monotonic_ns() >= clocks.monotonic_ns);
    }
}
