//! The witness: the kernel's own account of the gateway's sockets.
//!
//! The gateway has every socket adopted right after `accept` or `connect`, before the first byte, and asks
//! for its totals at the end of each exchange and before `close(2)`. With eBPF the totals are counted by
//! programs on the socket layer; without, they are TCP's own (`TCP_INFO`). What could be seen is in the
//! capability record, which is part of every track; the module `account` compares it with what was recorded.
//!
//! The witness only looks. It never fails a connection: a socket that cannot be adopted is unwitnessed,
//! with a reason and a count. It does not defend against the node's root, nor against the gateway itself.

use std::{
    fs,
    os::fd::BorrowedFd,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::model::{CapabilityRecord, HookState, Tier};

mod account;
mod clock;
mod drain;
mod notices;
mod object;
mod pod;
mod probe;
mod self_test;
mod socket;
mod sys;
mod tcp_info;

pub use account::{GAPS_MAX, Role, account_exchange, compare_socket};
pub use object::FindObjectError;
pub use probe::LoadProbeError;
pub use socket::{KernelTotals, SocketWitness};

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
}

impl Default for WitnessOptions {
    fn default() -> Self {
        Self { object: None, ring_bytes: 4 << 20, drain_interval: Duration::from_millis(25) }
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
    /// The programs run and count wrongly.
    #[error("the eBPF witness failed its self-test: {0}")]
    SelfTest(String),
}

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
}

impl WitnessStats {
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
        ]
        .into_iter()
        .map(|(name, value)| (name, value as f64))
    }
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
    adopted: AtomicU64,
    closed: AtomicU64,
    unwitnessed: AtomicU64,
    unread_totals: AtomicU64,
}

/// How sockets are watched.
enum Means {
    Ebpf(Box<Ebpf>),
    TcpInfo,
    Off,
}

struct Ebpf {
    // Declared first, dropped first: the threads end before the programs are detached.
    drain: drain::Drain,
    probe: probe::Probe,
    correlator: Arc<notices::Correlator>,
    anchor: Arc<clock::Anchor>,
    malformed: Arc<AtomicU64>,
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
                Self::tcp_info(refused.hooks, reason)
            })),
        }
    }

    fn ebpf(options: &WitnessOptions) -> Result<Self, Refused> {
        let loaded = probe::load(options.object.as_deref(), options.ring_bytes)
            .map_err(|error| Refused { error: error.into(), hooks: vec![] })?;
        let hooks = loaded.hooks;
        if !probe::counts_bytes(&hooks) {
            let errors = hooks.iter().filter_map(|hook| Some((&hook.hook, hook.error.as_ref()?)));
            let errors: Vec<_> = errors.map(|(hook, error)| format!("{hook}: {error}")).collect();
            return Err(Refused { error: StartWitnessError::Hooks(errors.join("; ")), hooks });
        }
        let correlator = Arc::new(notices::Correlator::default());
        let anchor = Arc::new(clock::Anchor::new());
        let malformed = Arc::new(AtomicU64::new(0));
        let source = drain::Source {
            ring: loaded.ring,
            log: loaded.log,
            anchor: Arc::clone(&anchor),
            malformed: Arc::clone(&malformed),
            interval: options.drain_interval,
        };
        let drain = match drain::Drain::start(source, Arc::clone(&correlator)) {
            Ok(drain) => drain,
            Err(error) => return Err(Refused { error: StartWitnessError::Threads(error), hooks }),
        };
        let probe = loaded.probe;
        let ebpf = Ebpf { drain, probe, correlator, anchor, malformed };
        let mut witness = Self::new(Tier::T1, hooks.clone(), None, Means::Ebpf(Box::new(ebpf)));
        match self_test::run(&witness) {
            Ok(()) => {
                witness.passed_self_test();
                Ok(witness)
            }
            Err(why) => Err(Refused { error: StartWitnessError::SelfTest(why), hooks }),
        }
    }

    fn tcp_info(hooks: Vec<HookState>, reason: String) -> Self {
        let mut witness = Self::new(Tier::T5, hooks.clone(), Some(reason.clone()), Means::TcpInfo);
        match self_test::run(&witness) {
            Ok(()) => {
                witness.passed_self_test();
                witness
            }
            Err(why) => {
                tracing::warn!(%why, "TCP_INFO failed its self-test: accounts will be unwitnessed");
                let reason = format!("{reason}; TCP_INFO failed its self-test: {why}");
                Self::new(Tier::T5, hooks, Some(reason), Means::TcpInfo)
            }
        }
    }

    fn off() -> Self {
        Self::new(Tier::Off, vec![], Some("switched off by configuration".to_owned()), Means::Off)
    }

    fn new(tier: Tier, hooks: Vec<HookState>, reason: Option<String>, means: Means) -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kernel = kernel.trim().to_owned();
        let capability = CapabilityRecord { tier, kernel, hooks, self_test: false, reason };
        let zero = AtomicU64::default;
        Self {
            shared: Arc::new(Shared {
                capability,
                means,
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

    /// What this witness can see: part of every track.
    #[must_use]
    pub fn capability(&self) -> &CapabilityRecord {
        &self.shared.capability
    }

    /// Begins to witness a socket. Call it right after `accept` or `connect`, before the first byte is
    /// read or written; it takes microseconds and cannot fail: what goes wrong makes the socket
    /// unwitnessed, see [`SocketWitness::unwitnessed`].
    #[must_use]
    pub fn adopt(&self, fd: BorrowedFd<'_>) -> SocketWitness {
        SocketWitness::new(Arc::clone(&self.shared), fd)
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn stats(&self) -> WitnessStats {
        let shared = &*self.shared;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let closed = load(&shared.closed);
        let adopted = load(&shared.adopted);
        let mut stats = WitnessStats {
            tier: shared.capability.tier,
            self_test: shared.capability.self_test,
            sockets: adopted.saturating_sub(closed),
            adopted,
            unwitnessed: load(&shared.unwitnessed),
            unread_totals: load(&shared.unread_totals),
            emitted: 0,
            events: 0,
            lost_ring: 0,
            lost_malformed: 0,
            late: 0,
            untracked: 0,
        };
        if let Means::Ebpf(ebpf) = &shared.means {
            stats.emitted = ebpf.probe.count(recorder_ebpf::v1::count::EMITTED);
            stats.lost_ring = ebpf.probe.count(recorder_ebpf::v1::count::RING_FULL);
            stats.events = ebpf.correlator.observed();
            stats.late = ebpf.correlator.late();
            stats.untracked = ebpf.correlator.untracked();
            stats.lost_malformed = load(&ebpf.malformed);
        }
        stats
    }
}

/// eBPF is not to be had; what was tried is told all the same.
struct Refused {
    error: StartWitnessError,
    hooks: Vec<HookState>,
}
