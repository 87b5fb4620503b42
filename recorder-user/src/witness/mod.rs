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
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
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

use crate::model::{CapabilityRecord, HookState, Tier, Timestamp};

mod account;
mod addresses;
pub mod bypass;
pub mod cgroup;
mod clock;
mod drain;
mod health;
mod notices;
pub mod origin;
mod probe;
mod selection;
mod self_test;
mod socket;
mod socket_list;
mod stats;
mod sys;
mod table;
mod tcp_info;

pub use account::{GAPS_MAX, Role, account_exchange, compare_socket};
pub use addresses::local_addresses;
pub use clock::{Clocks, monotonic_ns};
pub use health::{Health, HealthEvent, Trouble};
pub use notices::Loss;
pub use probe::{HookCost, LoadProbeError, MeasureCostError, measure, object::FindObjectError};
pub use selection::{
    EndpointAddress, EndpointKind, Identity, SelectError, Selection, netns_cookie,
};
pub use socket::{KernelTotals, SocketWitness};
pub use socket_list::{ListedSocket, connected_sockets};
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
}

impl Default for WitnessOptions {
    fn default() -> Self {
        Self {
            object: None,
            ring_bytes: 4 << 20,
            drain_interval: Duration::from_millis(25),
            slots: SLOTS,
            leave_out: vec![],
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
    Table(Table),
    /// TCP counts. Programs, if any, only choose and tell of other sockets.
    TcpInfo(Option<Box<Ebpf>>),
    Off,
}

impl Means {
    fn programs(&self) -> Option<&Ebpf> {
        match self {
            Self::Ebpf(ebpf) | Self::TcpInfo(Some(ebpf)) => Some(ebpf),
            Self::Table(_) | Self::TcpInfo(None) | Self::Off => None,
        }
    }
}

/// The programs of this process, and who looks after what they tell.
struct Ebpf {
    // Declared first, dropped first: the threads end before the programs are detached.
    monitor: Option<health::Monitor>,
    drain: drain::Drain,
    probe: Arc<probe::Probe>,
    table: Arc<Table>,
    selection: Selection,
    chooses: bool,
    identity: Option<Identity>,
    correlator: Arc<notices::Correlator>,
    hears: Mutex<Option<mpsc::Receiver<RingRecord>>>,
    state: Arc<health::State>,
    malformed: Arc<AtomicU64>,
    pulse_ns: Arc<AtomicU64>,
    drain_interval: Duration,
}

impl Ebpf {
    fn start(loaded: probe::Loaded, options: &WitnessOptions) -> io::Result<Self> {
        let (correlator, hears) = notices::Correlator::new();
        let correlator = Arc::new(correlator);
        let (malformed, pulse_ns) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let source = drain::Source {
            ring: loaded.ring,
            log: loaded.log,
            pulse_ns: Arc::clone(&pulse_ns),
            malformed: Arc::clone(&malformed),
            interval: options.drain_interval,
        };
        let drain = drain::Drain::start(source, Arc::clone(&correlator))?;
        let probe = Arc::new(loaded.probe);
        Ok(Self {
            monitor: None,
            drain,
            selection: Selection::new(Arc::clone(&probe)),
            probe,
            table: Arc::new(loaded.table),
            chooses: probe::chooses(&loaded.hooks),
            identity: None,
            correlator,
            hears: Mutex::new(Some(hears)),
            state: Arc::new(health::State::new()),
            malformed,
            pulse_ns,
            drain_interval: options.drain_interval,
        })
    }

    fn hears(&self) -> MutexGuard<'_, Option<mpsc::Receiver<RingRecord>>> {
        self.hears.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the witness's health is looked after. `beats` where the programs count bytes.
    fn monitor(&mut self, beats: bool) -> io::Result<()> {
        let watched = health::Watched {
            probe: Arc::clone(&self.probe),
            table: Arc::clone(&self.table),
            correlator: Arc::clone(&self.correlator),
            pulse_ns: Arc::clone(&self.pulse_ns),
            drain_interval: self.drain_interval,
        };
        self.monitor = Some(health::Monitor::start(watched, Arc::clone(&self.state), beats)?);
        Ok(())
    }
}

impl Witness {
    /// Starts the witness and tests it on a loopback connection. With [`Mode::Auto`] this never fails: what
    /// is not possible is told in [`Witness::capability`].
    ///
    /// # Errors
    /// Only with [`Mode::Ebpf`], when the kernel does not allow it.
    pub fn start(mode: Mode, options: &WitnessOptions) -> Result<Self, StartWitnessError> {
        match mode {
            Mode::Off => Ok(Self::off()),
            Mode::TcpInfo => Ok(Self::tcp_info(vec![], "TCP_INFO by configuration".to_owned())),
            Mode::Ebpf => Self::ebpf(options).map_err(|refused| refused.error),
            Mode::Auto => Ok(Self::ebpf(options).unwrap_or_else(|refused| {
                let reason = probe::chain(&refused.error);
                tracing::warn!(%reason, "no eBPF witness, TCP_INFO takes its place");
                match refused.programs {
                    Some(programs) => Self::choosing_only(programs, refused.hooks, reason),
                    None => Self::tcp_info(refused.hooks, reason),
                }
            })),
        }
    }

    fn ebpf(options: &WitnessOptions) -> Result<Self, Refused> {
        if !options.slots.is_power_of_two() {
            let error = StartWitnessError::Slots(options.slots);
            return Err(Refused { error, hooks: vec![], programs: None });
        }
        let load = probe::LoadOptions {
            object: options.object.as_deref(),
            ring_bytes: options.ring_bytes,
            slots: options.slots,
            leave_out: &options.leave_out,
        };
        let mut loaded = probe::load(&load).map_err(|error| Refused {
            error: error.into(),
            hooks: vec![],
            programs: None,
        })?;
        let hooks = std::mem::take(&mut loaded.hooks);
        loaded.hooks.clone_from(&hooks);
        let counts = probe::counts_bytes(&hooks);
        let threads = |error| Refused {
            error: StartWitnessError::Threads(error),
            hooks: hooks.clone(),
            programs: None,
        };
        let programs = Box::new(Ebpf::start(loaded, options).map_err(threads)?);
        if !counts {
            let errors = hooks.iter().filter_map(|hook| Some((&hook.hook, hook.error.as_ref()?)));
            let errors: Vec<_> = errors.map(|(hook, error)| format!("{hook}: {error}")).collect();
            let error = StartWitnessError::Hooks(errors.join("; "));
            let programs = programs.chooses.then_some(programs);
            return Err(Refused { error, hooks, programs });
        }
        let mut witness = Self::new(Tier::T1, hooks.clone(), None, Means::Ebpf(programs));
        if let Err(why) = self_test::run(&witness) {
            let error = StartWitnessError::SelfTest(why);
            return Err(Refused { error, hooks, programs: None });
        }
        witness.passed_self_test();
        witness.begin(true).map_err(threads)?;
        Ok(witness)
    }

    /// Programs that only choose and tell: TCP's own counters stand for the gateway's sockets.
    fn choosing_only(programs: Box<Ebpf>, hooks: Vec<HookState>, reason: String) -> Self {
        let means = Means::TcpInfo(Some(programs));
        let mut witness = Self::new(Tier::T4, hooks.clone(), Some(reason.clone()), means);
        let tested = self_test::run(&witness).is_ok();
        if tested {
            witness.passed_self_test();
        }
        match witness.begin(false) {
            Ok(()) if tested => witness,
            _ => Self::tcp_info(hooks, reason),
        }
    }

    fn tcp_info(hooks: Vec<HookState>, reason: String) -> Self {
        let means = Means::TcpInfo(None);
        let mut witness = Self::new(Tier::T5, hooks.clone(), Some(reason.clone()), means);
        match self_test::run(&witness) {
            Ok(()) => {
                witness.passed_self_test();
                witness
            }
            Err(why) => {
                tracing::warn!(%why, "TCP_INFO failed its self-test: accounts will be unwitnessed");
                let reason = format!("{reason}; TCP_INFO failed its self-test: {why}");
                Self::new(Tier::T5, hooks, Some(reason), Means::TcpInfo(None))
            }
        }
    }

    fn off() -> Self {
        Self::new(Tier::Off, vec![], Some("switched off by configuration".to_owned()), Means::Off)
    }

    /// A witness over the table of another process's programs, by a descriptor that it passed: reads only,
    /// needs no right. Sockets that those programs did not choose are unwitnessed. `capability` is the other
    /// process's record of what its programs can see.
    ///
    /// # Errors
    /// When the descriptor is no such table.
    pub fn over_table(slots: &OwnedFd, capability: CapabilityRecord) -> io::Result<Self> {
        let table = Table::map(slots.as_fd())?;
        Ok(Self::with(capability, Means::Table(table)))
    }

    fn new(tier: Tier, hooks: Vec<HookState>, reason: Option<String>, means: Means) -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kernel = kernel.trim().to_owned();
        Self::with(CapabilityRecord { tier, kernel, hooks, self_test: false, reason }, means)
    }

    fn with(capability: CapabilityRecord, means: Means) -> Self {
        let zero = AtomicU64::default;
        Self {
            shared: Arc::new(Shared {
                capability,
                means,
                anchor: clock::Anchor::new(),
                adopted: zero(),
                closed: zero(),
                unwitnessed: zero(),
                unread_totals: zero(),
            }),
        }
    }

    fn passed_self_test(&mut self) {
        // The test's sockets are gone, so that this is the only handle.
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.capability.self_test = true;
        }
    }

    /// Tests how the programs choose sockets, and begins to look after the witness's health. Hooks that choose
    /// wrongly are told, and not used.
    fn begin(&mut self, beats: bool) -> io::Result<()> {
        let Some(shared) = Arc::get_mut(&mut self.shared) else { return Ok(()) };
        let ebpf = match &mut shared.means {
            Means::Ebpf(ebpf) | Means::TcpInfo(Some(ebpf)) => ebpf,
            Means::Table(_) | Means::TcpInfo(None) | Means::Off => return Ok(()),
        };
        if ebpf.chooses {
            match self_test::chosen(ebpf) {
                Ok(identity) => ebpf.identity = Some(identity),
                Err(why) => {
                    tracing::warn!(%why, "the programs choose sockets wrongly: not used for that");
                    ebpf.chooses = false;
                    probe::failed_test(&mut shared.capability.hooks, &why);
                }
            }
        }
        ebpf.monitor(beats)
    }

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
        self.shared.means.programs().filter(|ebpf| ebpf.chooses).map(|ebpf| ebpf.selection.clone())
    }

    /// What this process is in the eyes of the programs; None where they choose no sockets.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.shared.means.programs().and_then(|ebpf| ebpf.identity)
    }

    /// What the programs tell beside the gateway's own connections: connections to endpoints and of watched
    /// cgroups, who else binds the gateway's port ([`RingRecord::Connection`]), strangers on the gateway's
    /// sockets and ended owners ([`RingRecord::Socket`] of kind `INTRUDER` or `EXIT`). To the first who asks.
    /// What is not taken in time is counted, and told as [`Trouble::ConnectionsLost`].
    #[must_use]
    pub fn take_connections(&self) -> Option<mpsc::Receiver<RingRecord>> {
        self.shared.means.programs().and_then(|ebpf| ebpf.hears().take())
    }

    /// The witness's health now. A witness without programs is always fine.
    #[must_use]
    pub fn health(&self) -> Health {
        let health = self.shared.means.programs().map(|ebpf| ebpf.state.health());
        health.unwrap_or_default()
    }

    /// The changes of the witness's health, noticed within a second. To the first who asks.
    #[must_use]
    pub fn take_health(&self) -> Option<mpsc::Receiver<HealthEvent>> {
        self.shared.means.programs().and_then(|ebpf| ebpf.state.take_events())
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
            Means::Table(table) => table.for_each(each),
            Means::TcpInfo(None) | Means::Off => {}
        }
    }

    /// The descriptor of the table, for a process that shall read it by [`Witness::over_table`]; None without
    /// programs.
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
        stats
    }
}

/// eBPF is not to be had; what was tried is told all the same.
struct Refused {
    error: StartWitnessError,
    hooks: Vec<HookState>,
    /// Programs that choose sockets, where those that count are refused.
    programs: Option<Box<Ebpf>>,
}
