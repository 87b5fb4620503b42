//! What the witness counts, for metrics.

use crate::model::Tier;

/// Numbers for metrics. All counts but `sockets` only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WitnessStats {
    /// The tier in use.
    pub tier: Tier,
    /// Whether the self-test passed.
    pub self_test: bool,
    /// Sockets adopted and not yet closed.
    pub sockets: u64,
    /// Sockets adopted so far.
    pub adopted: u64,
    /// Sockets that could not be adopted.
    pub unwitnessed: u64,
    /// Totals that could not be read.
    pub unread_totals: u64,
    /// Notices that the programs wrote to the ring.
    pub emitted: u64,
    /// Notices that reached their socket.
    pub events: u64,
    /// Notices that the kernel's ring did not take.
    pub lost_ring: u64,
    /// Ring records of another ABI.
    pub lost_malformed: u64,
    /// Notices of sockets that had been closed, or were above the bound: nobody waits for them.
    pub late: u64,
    /// Sockets above the bound of the correlator: totals without notices.
    pub untracked: u64,
    /// Connection notices that the kernel's ring did not take, or that nobody took in time.
    pub lost_connections: u64,
    /// Sockets that were given a slot in the table of totals, whoever's they are.
    pub claimed: u64,
    /// Sockets for which the table had no room: they are unwitnessed.
    pub slots_full: u64,
    /// Sockets that the kernel refused to keep storage for: they are unwitnessed.
    pub storage_refused: u64,
    /// Calls that moved bytes of sockets which had been closed for long.
    pub late_calls: u64,
    /// 1 while totals cannot be relied on, see [`Health`](super::Health).
    pub impaired: u64,
}

impl WitnessStats {
    /// Nothing counted yet.
    pub(super) const fn of(tier: Tier) -> Self {
        Self {
            tier,
            self_test: false,
            sockets: 0,
            adopted: 0,
            unwitnessed: 0,
            unread_totals: 0,
            emitted: 0,
            events: 0,
            lost_ring: 0,
            lost_malformed: 0,
            late: 0,
            untracked: 0,
            lost_connections: 0,
            claimed: 0,
            slots_full: 0,
            storage_refused: 0,
            late_calls: 0,
            impaired: 0,
        }
    }

    /// Every number with its name, as metrics show them; the tier is 1 to 5, or 0 when off.
    pub fn gauges(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let tier = match self.tier {
            Tier::T1 => 1,
            Tier::T2 => 2,
            Tier::T3 => 3,
            Tier::T4 => 4,
            Tier::T5 => 5,
            Tier::Off => 0,
        };
        [
            ("tier", tier),
            ("self_test", self.self_test.into()),
            ("sockets", self.sockets),
            ("adopted", self.adopted),
            ("unwitnessed", self.unwitnessed),
            ("unread_totals", self.unread_totals),
            ("emitted", self.emitted),
            ("events", self.events),
            ("lost_ring", self.lost_ring),
            ("lost_malformed", self.lost_malformed),
            ("late", self.late),
            ("untracked", self.untracked),
            ("lost_connections", self.lost_connections),
            ("claimed", self.claimed),
            ("slots_full", self.slots_full),
            ("storage_refused", self.storage_refused),
            ("late_calls", self.late_calls),
            ("impaired", self.impaired),
        ]
        .into_iter()
        .map(|(name, value)| (name, value as f64))
    }
}
