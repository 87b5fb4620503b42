//! How long a body's tap waited for the end that gives, and for the end that takes.
//!
//! The tap says what time it is: it reads the clock as its body is polled, and not again for what follows at once.

use std::time::Instant;

use recorder_user::witness::Pace;

/// Measures a body as its tap is polled.
#[derive(Debug, Default)]
pub struct Stopwatch {
    pace: Pace,
    since: Option<(Wait, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The source has nothing.
    Source,
    /// The sink has a frame and did not ask for the next.
    Sink,
}

impl Stopwatch {
    /// What was measured so far.
    #[must_use]
    pub const fn pace(&self) -> Pace {
        self.pace
    }

    /// The sink asks for a frame.
    pub fn asked(&mut self, now: Instant) {
        if matches!(self.since, Some((Wait::Sink, _))) {
            self.stop(now);
        }
    }

    /// The source has none yet.
    pub fn waits(&mut self, now: Instant) {
        self.since.get_or_insert((Wait::Source, now));
    }

    /// A frame goes to the sink.
    pub fn gave(&mut self, now: Instant) {
        self.stop(now);
        self.since = Some((Wait::Sink, now));
    }

    /// What takes time from now on is neither end's doing.
    pub fn stop(&mut self, now: Instant) {
        let Some((wait, since)) = self.since.take() else { return };
        let waited = now.saturating_duration_since(since);
        let waited_ns = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        let sum = match wait {
            Wait::Source => &mut self.pace.waiting_ns,
            Wait::Sink => &mut self.pace.taking_ns,
        };
        *sum = sum.saturating_add(waited_ns);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_end_is_charged_with_what_it_let_the_other_wait() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut watch = Stopwatch::default();
        watch.asked(at(0));
        watch.waits(at(1));
        // Woken for something else, it waits on.
        watch.asked(at(3));
        watch.waits(at(3));
        watch.stop(at(6));
        watch.gave(at(7));
        watch.asked(at(17));
        watch.waits(at(18));
        watch.gave(at(20));
        assert_eq!(watch.pace(), Pace { waiting_ns: 7_000_000, taking_ns: 10_000_000 });
    }

    #[test]
    fn a_clock_that_stands_still_or_steps_back_costs_nothing() {
        let (now, earlier) = (Instant::now() + Duration::from_secs(1), Instant::now());
        let mut watch = Stopwatch::default();
        watch.gave(now);
        watch.asked(now);
        watch.waits(now);
        watch.stop(earlier);
        assert_eq!(watch.pace(), Pace::default());
    }
}
