//! Time: when each event of a replay is due.

use std::time::Duration;

use crate::model::Timestamp;

/// How fast a replay goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Factor of the original speed; none for no delays at all.
    pub speed: Option<f64>,
    /// No wait is longer, after scaling.
    pub wait_max: Duration,
}

impl Pace {
    /// No delays.
    pub const AT_ONCE: Self = Self { speed: None, wait_max: Duration::ZERO };

    /// How long to wait between two instants of the recording.
    #[must_use]
    pub fn wait(self, from: Timestamp, to: Timestamp) -> Duration {
        let Some(speed) = self.speed else { return Duration::ZERO };
        let micros = u64::try_from(to.micros_since(from)).unwrap_or(0);
        let seconds = Duration::from_micros(micros).as_secs_f64() / speed;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).min(self.wait_max)
    }
}

/// Something that happened at an instant.
pub trait Timed {
    /// When.
    fn time(&self) -> Timestamp;
}

/// Yields events with the time to wait before each.
#[derive(Debug)]
pub struct Player<I> {
    events: I,
    pace: Pace,
    last: Option<Timestamp>,
}

impl<I> Player<I> {
    /// A player over events in the order of their times. The first is due at once.
    pub fn new(events: impl IntoIterator<IntoIter = I>, pace: Pace) -> Self
    where
        I: Iterator,
    {
        Self { events: events.into_iter(), pace, last: None }
    }
}

impl<I: Iterator<Item: Timed>> Iterator for Player<I> {
    type Item = (Duration, I::Item);

    fn next(&mut self) -> Option<Self::Item> {
        let event = self.events.next()?;
        let time = event.time();
        let wait = self.last.map_or(Duration::ZERO, |last| self.pace.wait(last, time));
        self.last = Some(self.last.map_or(time, |last| last.max(time)));
        Some((wait, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Timed for i64 {
        fn time(&self) -> Timestamp {
            Timestamp::from_micros(*self)
        }
    }

    fn waits(pace: Pace) -> Vec<u128> {
        let events = [5_000_000, 5_500_000, 5_400_000, 6_500_000, 3_606_500_000_i64];
        Player::new(events, pace).map(|(wait, _)| wait.as_millis()).collect()
    }

    #[test]
    fn waits_are_original_scaled_capped_or_none() {
        let pace = |speed, seconds| Pace { speed, wait_max: Duration::from_secs(seconds) };
        assert_eq!(waits(pace(Some(1.0), 9999)), [0, 500, 0, 1000, 3_600_000]);
        assert_eq!(waits(pace(Some(2.0), 9999)), [0, 250, 0, 500, 1_800_000]);
        assert_eq!(waits(pace(Some(0.5), 1)), [0, 1000, 0, 1000, 1000]);
        assert_eq!(waits(Pace::AT_ONCE), [0; 5]);
        assert_eq!(waits(pace(Some(1e-300), 3)), [0, 3000, 0, 3000, 3000]);
    }
}
