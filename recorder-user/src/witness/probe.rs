//! The eBPF programs of this process: loaded, attached, and their maps. The only file that knows aya.

use std::{
    error::Error,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    sync::{Mutex, PoisonError},
};

use aya::{
    Btf, Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Map, MapData, MapError, PerCpuArray, RingBuf, SkStorage},
    programs::BtfTracePoint,
};
use recorder_ebpf::v1::{Notice, SocketState, name};

use super::{object, pod::State};
use crate::model::HookState;

/// The hooks that count: without either there is no eBPF witness.
const NEEDED: [&str; 2] = [name::SOCK_RECV_LENGTH, name::SOCK_SEND_LENGTH];
/// The hook that only adds: without it the end of a connection has no kernel time.
const USEFUL: [&str; 1] = [name::INET_SOCK_SET_STATE];

/// The kernel does not take the programs.
#[derive(Debug, thiserror::Error)]
pub enum LoadProbeError {
    /// There is no object to load.
    #[error("no eBPF programs")]
    Object(#[from] object::FindObjectError),
    /// `/sys/kernel/btf/vmlinux` could not be read: tracepoints are typed by it.
    #[error("the kernel offers no BTF")]
    Btf(#[source] aya::BtfError),
    /// The maps could not be made, or the object is malformed.
    #[error("cannot load the eBPF object")]
    Load(#[source] Box<aya::EbpfError>),
    /// A map is missing in the object, or its form is not that of this build's ABI.
    #[error("the eBPF object lacks the map {map}, or it has another form")]
    Map {
        /// The map's name.
        map: &'static str,
        /// What aya says; none when it is missing.
        #[source]
        source: Option<MapError>,
    },
}

/// Attached programs and their maps. Dropping it detaches them.
pub(super) struct Probe {
    /// Lookups by file descriptor; a second handle, so that they wait for no adoption.
    lookups: SkStorage<MapData, State>,
    adoptions: Mutex<SkStorage<MapData, State>>,
    counts: PerCpuArray<MapData, u64>,
    _programs: Ebpf,
}

/// A probe and what its drain thread takes over.
pub(super) struct Loaded {
    pub(super) probe: Probe,
    pub(super) ring: NoticeRing,
    pub(super) log: Option<FlushLog>,
    pub(super) hooks: Vec<HookState>,
}

/// Hands what the programs logged since the last call to `log`, and by it to tracing.
pub(super) type FlushLog = Box<dyn FnMut() + Send>;

/// Loads the programs and attaches each hook that the kernel allows.
///
/// # Errors
/// When not even the maps can be made. A hook that is refused is told in `hooks`.
pub(super) fn load(path: Option<&Path>, ring_bytes: u32) -> Result<Loaded, LoadProbeError> {
    let bytes = object::find(path)?;
    // Logging costs verified instructions and ring space: where nobody listens it is not even loaded.
    let level =
        if tracing::enabled!(tracing::Level::DEBUG) { aya_log::Level::Debug as u8 } else { 0 };
    let mut programs = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::STATS)
        .override_global(aya_log::LEVEL, &level, false)
        .map_max_entries(name::NOTICES, ring_bytes)
        .load(&bytes)
        .map_err(|source| LoadProbeError::Load(Box::new(source)))?;
    let btf = Btf::from_sys_fs().map_err(LoadProbeError::Btf)?;
    let hooks =
        NEEDED.iter().chain(&USEFUL).map(|hook| attach(&mut programs, hook, &btf)).collect();
    let log = match aya_log::EbpfLogger::init(&mut programs) {
        Ok(mut logger) if level > 0 => Some(Box::new(move || logger.flush()) as FlushLog),
        _ => None,
    };
    let lookups = typed(name::SOCKETS, second_handle(&programs, name::SOCKETS)?)?;
    let adoptions = typed(name::SOCKETS, take(&mut programs, name::SOCKETS)?)?;
    let counts = typed(name::COUNTS, take(&mut programs, name::COUNTS)?)?;
    let ring = typed(name::NOTICES, take(&mut programs, name::NOTICES)?)?;
    Ok(Loaded {
        probe: Probe { lookups, adoptions: Mutex::new(adoptions), counts, _programs: programs },
        ring: NoticeRing { ring },
        log,
        hooks,
    })
}

/// Whether the hooks that count are all attached.
pub(super) fn counts_bytes(hooks: &[HookState]) -> bool {
    let attached = |hook: &str| hooks.iter().any(|h| h.hook == hook && h.error.is_none());
    NEEDED.iter().all(|hook| attached(hook))
}

fn attach(programs: &mut Ebpf, hook: &str, btf: &Btf) -> HookState {
    let result = (|| -> Result<(), Box<dyn Error>> {
        let program = programs.program_mut(hook).ok_or("not in the object")?;
        let program: &mut BtfTracePoint = program.try_into()?;
        program.load(hook, btf)?;
        program.attach()?;
        Ok(())
    })();
    let error = result.err().map(|error| chain(&*error));
    HookState { hook: hook.to_owned(), error }
}

fn take(programs: &mut Ebpf, map: &'static str) -> Result<Map, LoadProbeError> {
    programs.take_map(map).ok_or(LoadProbeError::Map { map, source: None })
}

/// The same map once more, by a descriptor of its own.
fn second_handle(programs: &Ebpf, map: &'static str) -> Result<Map, LoadProbeError> {
    let bad = |source| LoadProbeError::Map { map, source };
    let Some(Map::SkStorage(data)) = programs.map(map) else { return Err(bad(None)) };
    let descriptor =
        data.fd().as_fd().try_clone_to_owned().map_err(|error| bad(Some(error.into())))?;
    Ok(Map::SkStorage(MapData::from_fd(descriptor).map_err(|error| bad(Some(error)))?))
}

fn typed<T: TryFrom<Map, Error = MapError>>(
    name: &'static str,
    map: Map,
) -> Result<T, LoadProbeError> {
    map.try_into().map_err(|source| LoadProbeError::Map { map: name, source: Some(source) })
}

impl Probe {
    /// Begins to count a socket. Nothing may have passed through it yet.
    pub(super) fn adopt(&self, fd: BorrowedFd<'_>) -> Result<(), MapError> {
        let mut adoptions = self.adoptions.lock().unwrap_or_else(PoisonError::into_inner);
        // Never a second time: that would set its totals back to zero.
        adoptions.insert(&fd, State::default(), BPF_NOEXIST)
    }

    /// A socket's state now: one system call.
    pub(super) fn state(&self, fd: BorrowedFd<'_>) -> Result<SocketState, MapError> {
        self.lookups.get(&fd, 0).map(|state| state.0)
    }

    /// A counter, summed over the CPUs; 0 when it cannot be read.
    pub(super) fn count(&self, index: u32) -> u64 {
        self.counts.get(&index, 0).map_or(0, |cpus| cpus.iter().sum())
    }
}

/// `BPF_NOEXIST` of `include/uapi/linux/bpf.h`.
const BPF_NOEXIST: u64 = 1;

/// The reading end of the kernel's ring.
pub(super) struct NoticeRing {
    ring: RingBuf<MapData>,
}

impl NoticeRing {
    /// Takes at most `max` records out of the ring: notices, or None for what is not of our ABI.
    /// Returns how many it took.
    pub(super) fn drain(&mut self, max: usize, mut each: impl FnMut(Option<Notice>)) -> usize {
        for taken in 0..max {
            match self.ring.next() {
                Some(bytes) => each(Notice::parse(&bytes)),
                None => return taken,
            }
        }
        max
    }
}

/// An error with its causes, on one line and bounded: verifier output can be very long.
pub(super) fn chain(error: &dyn Error) -> String {
    const CHARS_MAX: usize = 400;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(CHARS_MAX).collect()
}
