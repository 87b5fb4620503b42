//! The witness: the kernel's own account of the gateway's sockets.
//!
//! The gateway has every socket adopted right after `accept` or `connect`, before the first byte, and asks
//! for its totals at the end of each exchange and before `close(2)`. With eBPF the totals are counted by
//! programs on the socket layer, which also choose the gateway's sockets themselves where they were told how
//! ([`Selection`]), and lie in a table that is read without a system call ([`Table`]); without, they are TCP's
//! own (`TCP_INFO`). What could be seen is in the capability record, which is part of every track; the module
//! `account` compares it with what was recorded.
//!
//! The witness only looks. It never fails a connection: a socket that cannot be adopted is unwitnessed,
//! with a reason and a count. It does not defend against the node's root, nor against the gateway itself.

use std::{
    io,
    ops::RangeInclusive,
    os::fd::{BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use recorder_ebpf::{RingRecord, SLOTS, count};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use self::programs::Ebpf;
use self::remote::Remote;
use crate::model::{CapabilityRecord, Timestamp};

mod account;
mod addresses;
pub mod bypass;
pub mod cgroup;
mod clock;
mod confine;
mod drain;
mod health;
mod heart;
mod loopback;
mod notices;
pub mod origin;
mod probe;
mod programs;
mod remote;
mod sample;
mod selection;
mod self_test;
mod sight;
mod socket;
mod socket_list;
mod spent;
pub mod split;
mod start;
mod stats;
mod sys;
mod table;
mod tcp_info;

pub use account::{GAPS_MAX, Role, View, account_exchange, compare_socket};
pub use addresses::local_addresses;
pub use clock::{Clocks, monotonic_ns};
pub use health::{Health, HealthEvent, Trouble};
pub use notices::Loss;
pub use probe::{
    HookCost, LoadProbeError, MeasureCostError, Runs, measure, object::FindObjectError,
};
pub use sample::{KernelSample, Looks, Sample};
pub use selection::{
    EndpointAddress, EndpointKind, Identity, SelectError, Selection, netns_cookie,
};
pub use sight::{Disturbance, Follower, Sight, SightMark};
pub use socket::{KernelTotals, SocketWitness, TcpTotals};
pub use socket_list::{ListedSocket, connected_sockets};
pub use spent::{Course, Pace};
pub use stats::WitnessStats;
pub use table::Table;

/// Which witness to use (configuration key `witness.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// eBPF where the kernel allows it, else `TCP_INFO`.
    #[default]
    Auto,
    /// eBPF, or do not start.
    Ebpf,
    /// `TCP_INFO` without trying eBPF.
    TcpInfo,
    /// None: every account is `unwitnessed`.
    Off,
}

/// What may be chosen besides the mode.
#[derive(Clone, Debug)]
pub struct WitnessOptions {
    /// An eBPF object to use instead of the embedded one.
    pub object: Option<PathBuf>,
    /// Size of the kernel's ring: a power of two of at least a page. The default holds 65,000 notices; when
    /// it is full, notices are lost and counted, and totals stay exact.
    pub ring_bytes: u32,
    /// How often the ring is looked at.
    pub drain_interval: Duration,
    /// Sockets whose totals are kept at once, those closed within the last ten seconds included: a power of
    /// two; each takes 256 bytes.
    pub slots: u32,
    /// Hooks not to attach, by name: one that another program of the node does not get along with, or whose
    /// cost is unwelcome. The capability record says so.
    pub leave_out: Vec<String>,
    /// Whether this process gives up all capabilities once the programs are attached, before it has threads:
    /// what remains to be done is done by descriptors. Needs kernel 5.19 where unprivileged BPF is disabled;
    /// below, `CAP_BPF` would be needed on.
    pub confine: bool,
}

impl WitnessOptions {
    /// A size that a ring may have: a power of two from a page, where pages are small, to 16 million notices.
    #[must_use]
    pub fn ring_bytes(bytes: u64) -> Option<u32> {
        const RANGE: RangeInclusive<u32> = 4 << 10..=1 << 30;
        let bytes = u32::try_from(bytes).ok()?;
        (bytes.is_power_of_two() && RANGE.contains(&bytes)).then_some(bytes)
    }
}

impl Default for WitnessOptions {
    fn default() -> Self {
        Self {
            object: None,
            ring_bytes: 4 << 20,
            drain_interval: Duration::from_millis(25),
            slots: SLOTS,
            leave_out: vec![],
            confine: false,
        }
    }
}

/// [`Mode::Ebpf`] was asked for and cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StartWitnessError {
    /// The programs could not be loaded at all.
    #[error("cannot load the eBPF witness")]
    Load(#[from] LoadProbeError),
    /// The kernel refused hooks that are needed.
    #[error("the kernel refuses hooks of the eBPF witness: {0}")]
    Hooks(String),
    /// No thread for the notices.
    #[error("cannot start the witness's threads")]
    Threads(#[source] std::io::Error),
    /// The rights could not be given up.
    #[error("cannot give up capabilities")]
    Confine(#[source] std::io::Error),
    /// The table's size is none.
    #[error("{0} slots: the size of the table must be a power of two")]
    Slots(u32),
    /// The programs run and count wrongly.
    #[error("the eBPF witness failed its self-test: {0}")]
    SelfTest(String),
}

/// The witness of this process. A clone is a handle to the same one; the last handle, sockets included,
/// detaches the programs.
#[derive(Clone)]
pub struct Witness {
    shared: Arc<Shared>,
}

/// What the witness and its sockets share.
struct Shared {
    sight: Sight,
    capability: CapabilityRecord,
    means: Means,
    anchor: clock::Anchor,
    adopted: AtomicU64,
    closed: AtomicU64,
    unwitnessed: AtomicU64,
    unread_totals: AtomicU64,
}

/// How sockets are watched.
enum Means {
    /// The programs of this process count.
    Ebpf(Box<Ebpf>),
    /// The programs of another process count, and this one reads.
    Probe(Box<Remote>),
    /// TCP counts. Programs, if any, only choose and tell of other sockets.
    TcpInfo(Option<Box<Ebpf>>),
    Off,
}

impl Means {
    /// Where changes of health and notices for others come from.
    fn told(&self) -> Option<(&health::State, &Mutex<Option<mpsc::Receiver<RingRecord>>>)> {
        match self {
            Self::Probe(remote) => Some((&remote.state, &remote.hears)),
            _ => self.programs().map(|ebpf| (&*ebpf.state, &ebpf.hears)),
        }
    }

    fn programs(&self) -> Option<&Ebpf> {
        match self {
            Self::Ebpf(ebpf) | Self::TcpInfo(Some(ebpf)) => Some(ebpf),
            Self::Probe(_) | Self::TcpInfo(None) | Self::Off => None,
        }
    }
}

impl Witness {
    /// Whether a hook is attached.
    fn attached(&self, hook: &str) -> bool {
        self.shared.capability.hooks.iter().any(|one| one.hook == hook && one.error.is_none())
    }

    /// What this witness can see: part of every track.
    #[must_use]
    pub fn capability(&self) -> &CapabilityRecord {
        &self.shared.capability
    }

    /// Begins to witness a socket. Call it right after `accept` or `connect`, before the first byte is
    /// read or written; it takes microseconds and cannot fail: what goes wrong makes the socket
    /// unwitnessed, see [`SocketWitness::unwitnessed`]. A socket that the programs chose themselves was
    /// counted before this.
    #[must_use]
    pub fn adopt(&self, fd: BorrowedFd<'_>) -> SocketWitness {
        SocketWitness::new(Arc::clone(&self.shared), fd)
    }

    /// Sets what the programs choose sockets by; None where they cannot.
    #[must_use]
    pub fn selection(&self) -> Option<Selection> {
        if let Means::Probe(remote) = &self.shared.means {
            return Some(Selection::by_probe(Arc::clone(&remote.link)));
        }
        self.shared.means.programs().filter(|ebpf| ebpf.chooses).map(|ebpf| ebpf.selection.clone())
    }

    /// What this process is in the eyes of the programs; None where they choose no sockets.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        match &self.shared.means {
            Means::Probe(remote) => remote.link.session().map(|session| session.identity()),
            means => means.programs().and_then(|ebpf| ebpf.identity),
        }
    }

    /// What the programs tell beside the gateway's own connections: connections to endpoints and of watched
    /// cgroups, who else binds the gateway's port ([`RingRecord::Connection`]), strangers on the gateway's
    /// sockets and ended owners ([`RingRecord::Socket`] of kind `INTRUDER` or `EXIT`). To the first who asks.
    /// What is not taken in time is counted, and told as [`Trouble::ConnectionsLost`].
    #[must_use]
    pub fn take_connections(&self) -> Option<mpsc::Receiver<RingRecord>> {
        let (_, hears) = self.shared.means.told()?;
        locked(hears).take()
    }

    /// The witness's health now. A witness without programs is always fine.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.means.told().map(|(state, _)| state.health()).unwrap_or_default()
    }

    /// The changes of the witness's health, noticed within a second. To the first who asks.
    #[must_use]
    pub fn take_health(&self) -> Option<mpsc::Receiver<HealthEvent>> {
        self.shared.means.told().and_then(|(state, _)| state.take_events())
    }

    /// How well it sees, as far as somebody noted it.
    #[must_use]
    pub fn sight(&self) -> &Sight {
        &self.shared.sight
    }

    /// The wall-clock time of one of the kernel's times; None for 0, which says never.
    #[must_use]
    pub fn wall(&self, monotonic_ns: u64) -> Option<Timestamp> {
        self.shared.anchor.wall(monotonic_ns)
    }

    /// Looks at every socket that the programs keep totals of; nothing where this process has no table.
    pub fn for_each_slot(&self, each: impl FnMut(&recorder_ebpf::Slot)) {
        match &self.shared.means {
            Means::Ebpf(ebpf) | Means::TcpInfo(Some(ebpf)) => ebpf.table.for_each(each),
            Means::Probe(remote) => {
                if let Some(session) = remote.link.session() {
                    session.for_each(each);
                }
            }
            Means::TcpInfo(None) | Means::Off => {}
        }
    }

    /// What the programs keep of one socket; none where it is not chosen, or this process has no table.
    #[must_use]
    pub fn slot(&self, cookie: u64) -> Option<recorder_ebpf::Slot> {
        match &self.shared.means {
            Means::Ebpf(ebpf) | Means::TcpInfo(Some(ebpf)) => ebpf.table.read(cookie),
            Means::Probe(remote) => remote.link.session()?.read(cookie),
            Means::TcpInfo(None) | Means::Off => None,
        }
    }

    /// From now on every notice goes to `take`, on the witness's thread, and to nobody else: for a process that
    /// only passes them on. Nothing where this process has no programs.
    fn pass_on(&self, take: impl Fn(RingRecord) + Send + Sync + 'static) {
        if let Some(ebpf) = self.shared.means.programs() {
            ebpf.correlator.pass_on(take);
        }
    }

    /// The descriptor of the table, to be passed on and read by [`Table`]; None without programs.
    ///
    /// # Errors
    /// When this process has no descriptor left.
    pub fn table_descriptor(&self) -> io::Result<Option<OwnedFd>> {
        let programs = self.shared.means.programs();
        programs.map(|ebpf| ebpf.probe.table().try_clone_to_owned()).transpose()
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn stats(&self) -> WitnessStats {
        let shared = &*self.shared;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let closed = load(&shared.closed);
        let adopted = load(&shared.adopted);
        let mut stats = WitnessStats {
            self_test: shared.capability.self_test,
            sockets: adopted.saturating_sub(closed),
            adopted,
            unwitnessed: load(&shared.unwitnessed),
            unread_totals: load(&shared.unread_totals),
            ..WitnessStats::of(shared.capability.tier)
        };
        if let Some(ebpf) = shared.means.programs() {
            stats.emitted = ebpf.probe.count(count::EMITTED);
            stats.lost_ring = ebpf.probe.count(count::RING_FULL);
            stats.lost_connections =
                ebpf.probe.count(count::CONNECTIONS_LOST) + ebpf.correlator.unheard();
            stats.claimed = ebpf.probe.count(count::CLAIMED);
            stats.slots_full = ebpf.probe.count(count::SLOTS_FULL);
            stats.storage_refused = ebpf.probe.count(count::STORAGE_REFUSED);
            stats.late_calls = ebpf.probe.count(count::LATE_CALLS);
            stats.events = ebpf.correlator.observed();
            stats.late = ebpf.correlator.late();
            stats.untracked = ebpf.correlator.untracked();
            stats.lost_malformed = load(&ebpf.malformed);
            stats.impaired = u64::from(!ebpf.state.health().is_fine());
        }
        if let Means::Probe(remote) = &shared.means {
            let counts = remote.link.counts();
            stats.emitted = counts.emitted;
            stats.lost_ring = counts.lost_ring.saturating_add(counts.dropped_notices);
            stats.lost_connections =
                counts.dropped_connections.saturating_add(remote.correlator.unheard());
            stats.lost_malformed = counts.malformed;
            stats.events = remote.correlator.observed();
            stats.late = remote.correlator.late();
            stats.untracked = remote.correlator.untracked();
            stats.impaired = u64::from(!remote.state.health().is_fine());
        }
        stats
    }
}

/// Plain values behind a lock stay usable after a panic elsewhere.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
