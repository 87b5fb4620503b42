//! Whether the witness saw what an account is about: marks taken at the beginning and compared at the end, for the
//! price of one atomic load while all is well.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use crate::model::{WitnessChanged, WitnessEvent};

/// How well a witness sees.
#[derive(Default)]
pub struct Sight {
    /// Changes in the upper half; in the lower how often it went blind or saw again, odd while it is blind.
    epoch: AtomicU64,
    /// Why it was blind the last time.
    why: Mutex<Option<Arc<str>>>,
}

const CHANGE: u64 = 1 << 32;
const TURN: u64 = 1;

/// A moment in the life of a witness: two of them tell what happened between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SightMark(u64);

impl SightMark {
    const fn turns(self) -> u64 {
        self.0 % CHANGE
    }

    /// Whether the witness was blind at that moment.
    #[must_use]
    pub const fn is_blind(self) -> bool {
        self.turns() % 2 == 1
    }
}

/// What happened between a mark and now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disturbance {
    /// Anything happened, or the witness was blind all the time.
    pub disturbed: bool,
    /// Why it did not see all of that time, if it did not.
    pub blind: Option<Arc<str>>,
}

impl Sight {
    /// This moment.
    #[must_use]
    pub fn mark(&self) -> SightMark {
        SightMark(self.epoch.load(Ordering::Acquire))
    }

    /// What happened since `mark`.
    #[must_use]
    pub fn since(&self, mark: SightMark) -> Disturbance {
        let now = self.mark();
        if now == mark && !now.is_blind() {
            return Disturbance::default();
        }
        // A witness that sees again was blind in between, whatever it is now.
        let was_blind = mark.is_blind() || now.turns() != mark.turns();
        let blind = was_blind.then(|| {
            let why = self.why().clone();
            why.unwrap_or_else(|| Arc::from("the witness was blind meanwhile"))
        });
        Disturbance { disturbed: true, blind }
    }

    /// Notes a change.
    pub fn note(&self, changed: &WitnessChanged) {
        let mut why = self.why();
        if changed.blind && changed.event != WitnessEvent::Recovered {
            let (event, detail) = (changed.event.as_str(), &changed.detail);
            *why = Some(format!("the witness was blind ({event}): {detail}").into());
        }
        let turned = self.mark().is_blind() != changed.blind;
        self.epoch.fetch_add(CHANGE + if turned { TURN } else { 0 }, Ordering::Release);
    }

    fn why(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Tier, Timestamp};

    fn changed(event: WitnessEvent, blind: bool) -> WitnessChanged {
        let (time, detail) = (Timestamp::from_micros(1), "why".to_owned());
        WitnessChanged { time, event, tier: Tier::T1, blind, lost: 0, detail }
    }

    #[test]
    fn what_happened_between_two_moments_is_told_and_no_more() {
        let sight = Sight::default();
        let before = sight.mark();
        assert_eq!(sight.since(before), Disturbance::default());
        sight.note(&changed(WitnessEvent::Overflow, false));
        let told = sight.since(before);
        assert_eq!((told.disturbed, told.blind), (true, None), "totals are exact all the same");
        assert_eq!(sight.since(sight.mark()), Disturbance::default(), "it began after that");

        sight.note(&changed(WitnessEvent::ProbeLost, true));
        let why = "the witness was blind (probe_lost): why";
        assert_eq!(sight.since(before).blind.as_deref(), Some(why));
        let while_blind = sight.mark();
        assert_eq!(sight.since(while_blind).blind.as_deref(), Some(why), "still blind");
        sight.note(&changed(WitnessEvent::Recovered, false));
        assert_eq!(sight.since(while_blind).blind.as_deref(), Some(why), "blind at its beginning");
        assert_eq!(sight.since(before).blind.as_deref(), Some(why), "blind in the middle");
        assert_eq!(sight.since(sight.mark()), Disturbance::default());
    }
}
