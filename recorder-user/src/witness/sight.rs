//! Whether the witness saw what an account is about: marks taken at the beginning and compared at the end, for the
//! price of one atomic load while all is well.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::health::{HealthEvent, Trouble};
use crate::model::{Tier, WitnessChanged, WitnessEvent};

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
        let causes = changed.uncounted || changed.blind && changed.event != WitnessEvent::Recovered;
        if causes {
            let (event, detail) = (changed.event.as_str(), &changed.detail);
            *why = Some(format!("the witness was blind ({event}): {detail}").into());
        }
        let turns = match (self.mark().is_blind(), changed.blind) {
            (false, true) | (true, false) => 1,
            // Blind for a moment, and back.
            (false, false) if changed.uncounted => 2,
            _ => 0,
        };
        self.epoch.fetch_add(CHANGE + turns * TURN, Ordering::Release);
    }

    fn why(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes records of the changes of a witness's health, in their order.
#[derive(Debug)]
pub struct Follower {
    tier: Tier,
    /// Lasting troubles that are not over.
    troubles: Vec<Trouble>,
}

impl Follower {
    /// For a witness of this tier.
    #[must_use]
    pub const fn new(tier: Tier) -> Self {
        Self { tier, troubles: Vec::new() }
    }

    /// The record of a change.
    pub fn follow(&mut self, told: HealthEvent) -> WitnessChanged {
        let HealthEvent { time, trouble, over } = told;
        self.troubles.retain(|lasting| *lasting != trouble);
        let (event, lost, detail) = match &trouble {
            Trouble::ProbeLost => {
                (WitnessEvent::ProbeLost, 0, "the probe is gone or silent".to_owned())
            }
            Trouble::HookLost { hook } => {
                (WitnessEvent::Detached, 0, format!("the program on {hook} is cut off"))
            }
            Trouble::HeartbeatMissed => {
                (WitnessEvent::HeartbeatMissed, 0, "a heartbeat was not counted".to_owned())
            }
            Trouble::NoticesStopped => {
                (WitnessEvent::NoticesStopped, 0, "the ring is not emptied".to_owned())
            }
            Trouble::NoticesLost { notices } => {
                (WitnessEvent::Overflow, *notices, format!("{notices} notices were lost"))
            }
            Trouble::RunsMissed { hook, runs } => {
                let detail = format!("{runs} runs of the program on {hook} were left out");
                (WitnessEvent::RunsMissed, *runs, detail)
            }
            Trouble::ConnectionsLost { notices } => {
                let detail = format!("{notices} notices of who connects were lost");
                (WitnessEvent::ConnectionsLost, *notices, detail)
            }
            Trouble::SocketsUnwitnessed { sockets } => {
                let detail = format!("{sockets} sockets could not be witnessed");
                (WitnessEvent::SocketsUnwitnessed, *sockets, detail)
            }
        };
        let (event, detail) = if over {
            (WitnessEvent::Recovered, format!("over: {detail}"))
        } else {
            (event, detail)
        };
        let uncounted = trouble.spoils_totals() && !trouble.lasts();
        if trouble.lasts() && !over {
            self.troubles.push(trouble);
        }
        let blind = self.troubles.iter().any(Trouble::spoils_totals);
        WitnessChanged { time, event, tier: self.tier, blind, uncounted, lost, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn changed(event: WitnessEvent, blind: bool) -> WitnessChanged {
        let (time, detail) = (Timestamp::from_micros(1), "why".to_owned());
        WitnessChanged { time, event, tier: Tier::T1, blind, uncounted: false, lost: 0, detail }
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

        let before = sight.mark();
        sight.note(&WitnessChanged { uncounted: true, ..changed(WitnessEvent::RunsMissed, false) });
        let why = "the witness was blind (runs_missed): why";
        assert_eq!(sight.since(before).blind.as_deref(), Some(why), "for a moment");
        assert_eq!(sight.since(sight.mark()), Disturbance::default());
    }

    #[test]
    fn the_witness_is_blind_until_the_last_trouble_that_spoils_totals_is_over() {
        let mut follower = Follower::new(Tier::T1);
        let mut follow = |trouble: Trouble, over| {
            let time = Timestamp::from_micros(1);
            let changed = follower.follow(HealthEvent { time, trouble, over });
            (changed.event, changed.blind, changed.lost)
        };
        let hook = || Trouble::HookLost { hook: "sock_send_length".to_owned() };
        assert_eq!(
            follow(Trouble::NoticesLost { notices: 7 }, false),
            (WitnessEvent::Overflow, false, 7)
        );
        let other = || Trouble::HookLost { hook: "connect4".to_owned() };
        assert_eq!(
            follow(other(), false),
            (WitnessEvent::Detached, false, 0),
            "it counts no bytes"
        );
        assert_eq!(follow(hook(), false), (WitnessEvent::Detached, true, 0));
        assert_eq!(
            follow(Trouble::HeartbeatMissed, false),
            (WitnessEvent::HeartbeatMissed, true, 0)
        );
        assert_eq!(
            follow(Trouble::NoticesLost { notices: 1 }, false),
            (WitnessEvent::Overflow, true, 1),
            "it stays blind"
        );
        assert_eq!(follow(hook(), true), (WitnessEvent::Recovered, true, 0), "one trouble is left");
        assert_eq!(follow(Trouble::HeartbeatMissed, true), (WitnessEvent::Recovered, false, 0));
        let missed = |hook: &str| Trouble::RunsMissed { hook: hook.to_owned(), runs: 3 };
        assert_eq!(
            follow(missed("sock_recv_length"), false),
            (WitnessEvent::RunsMissed, false, 3),
            "an instant"
        );
        assert_eq!(
            follow(Trouble::NoticesStopped, false),
            (WitnessEvent::NoticesStopped, false, 0),
            "totals do not depend on notices"
        );
    }
}
