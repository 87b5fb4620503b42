//! The eBPF programs of this process: loaded, attached, and their maps. The only place that knows aya.

use std::{
    error::Error,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf, SkStorage},
};
use recorder_ebpf::{Endpoint, GatewayKey, GatewayValue, RingRecord, Storage, name};

use self::pod::Pod;
use super::{sys, table::Table};
use crate::model::HookState;

mod attach;
mod cost;
pub(super) mod object;
mod pod;

pub use cost::{HookCost, MeasureCostError, Runs, measure};

/// The kernel does not take the programs.
#[derive(Debug, thiserror::Error)]
pub enum LoadProbeError {
    /// There is no object to load.
    #[error("no eBPF programs")]
    Object(#[from] object::FindObjectError),
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
    /// The table of totals could not be frozen and mapped.
    #[error("cannot freeze and map the table of totals")]
    Table(#[source] std::io::Error),
    /// The programs' links could not be listed.
    #[error("cannot list the links of the programs")]
    Links(#[source] std::io::Error),
}

/// How to load the programs.
pub(super) struct LoadOptions<'o> {
    /// An object to use instead of the embedded one.
    pub(super) object: Option<&'o Path>,
    /// Size of the ring.
    pub(super) ring_bytes: u32,
    /// Size of the table, a power of two.
    pub(super) slots: u32,
    /// Hooks not to attach.
    pub(super) leave_out: &'o [String],
}

/// Attached programs and their maps. Dropping it detaches them.
pub(super) struct Probe {
    /// Lookups by file descriptor; a second handle, so that they wait for no adoption.
    lookups: SkStorage<MapData, Pod<Storage>>,
    adoptions: Mutex<SkStorage<MapData, Pod<Storage>>>,
    counts: PerCpuArray<MapData, u64>,
    gateways: Mutex<HashMap<MapData, Pod<GatewayKey>, Pod<GatewayValue>>>,
    endpoints: Mutex<HashMap<MapData, Pod<Endpoint>, u32>>,
    watched: Mutex<HashMap<MapData, u64, u32>>,
    owners: Mutex<HashMap<MapData, u32, u32>>,
    slots: MapData,
    links: Vec<attach::Link>,
    loaded: Vec<attach::Loaded>,
    programs: Ebpf,
}

/// A probe and what others take over.
pub(super) struct Loaded {
    pub(super) probe: Probe,
    pub(super) table: Table,
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
pub(super) fn load(options: &LoadOptions<'_>) -> Result<Loaded, LoadProbeError> {
    let bytes = object::find(options.object)?;
    // Logging costs verified instructions and ring space: where nobody listens it is not even loaded.
    let level =
        if tracing::enabled!(tracing::Level::DEBUG) { aya_log::Level::Debug as u8 } else { 0 };
    let mask = options.slots - 1;
    let mut programs = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::STATS)
        .override_global(aya_log::LEVEL, &level, false)
        .override_global(name::SLOT_MASK, &mask, true)
        .map_max_entries(name::NOTICES, options.ring_bytes)
        .map_max_entries(name::SLOTS, options.slots)
        .load(&bytes)
        .map_err(|source| LoadProbeError::Load(Box::new(source)))?;
    let slots = match take(&mut programs, name::SLOTS)? {
        Map::Array(slots) => slots,
        _ => return Err(LoadProbeError::Map { map: name::SLOTS, source: None }),
    };
    let table = sys::freeze_map(slots.fd().as_fd())
        .and_then(|()| Table::map(slots.fd().as_fd()))
        .map_err(LoadProbeError::Table)?;
    let hooks = attach::attach_all(&mut programs, options.leave_out);
    let log = match aya_log::EbpfLogger::init(&mut programs) {
        Ok(mut logger) if level > 0 => Some(Box::new(move || logger.flush()) as FlushLog),
        _ => None,
    };
    let ring = typed(name::NOTICES, take(&mut programs, name::NOTICES)?)?;
    let probe = Probe {
        lookups: typed(name::SOCKETS, second_handle(&programs, name::SOCKETS)?)?,
        adoptions: taken(&mut programs, name::SOCKETS)?,
        counts: typed(name::COUNTS, take(&mut programs, name::COUNTS)?)?,
        gateways: taken(&mut programs, name::GATEWAYS)?,
        endpoints: taken(&mut programs, name::ENDPOINTS)?,
        watched: taken(&mut programs, name::WATCHED)?,
        owners: taken(&mut programs, name::OWNERS)?,
        slots,
        links: attach::links(&programs).map_err(LoadProbeError::Links)?,
        loaded: attach::loaded(&programs),
        programs,
    };
    Ok(Loaded { probe, table, ring: NoticeRing { ring }, log, hooks })
}

/// Whether the hooks that count are all attached.
pub(super) fn counts_bytes(hooks: &[HookState]) -> bool {
    all_attached(hooks, &attach::NEEDED)
}

/// Whether totals depend on a hook.
pub(super) fn is_counted_by(hook: &str) -> bool {
    attach::NEEDED.contains(&hook)
}

/// Whether the hooks that choose sockets are all attached.
pub(super) fn chooses(hooks: &[HookState]) -> bool {
    all_attached(hooks, &attach::CHOOSING)
}

/// Notes that the hooks which choose sockets are attached and do it wrongly.
pub(super) fn failed_test(hooks: &mut [HookState], why: &str) {
    for hook in hooks.iter_mut().filter(|hook| attach::CHOOSING.contains(&&*hook.hook)) {
        hook.error.get_or_insert_with(|| format!("attached, but failed the self-test: {why}"));
    }
}

fn all_attached(hooks: &[HookState], wanted: &[&str]) -> bool {
    let attached = |hook: &&str| hooks.iter().any(|h| h.hook == **hook && h.error.is_none());
    wanted.iter().all(attached)
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

fn taken<T: TryFrom<Map, Error = MapError>>(
    programs: &mut Ebpf,
    name: &'static str,
) -> Result<Mutex<T>, LoadProbeError> {
    typed(name, take(programs, name)?).map(Mutex::new)
}

fn locked<T>(map: &Mutex<T>) -> MutexGuard<'_, T> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Probe {
    /// Begins to count a socket. Nothing may have passed through it yet, unless `storage` makes it a listener.
    pub(super) fn adopt(&self, fd: BorrowedFd<'_>, storage: Storage) -> Result<(), MapError> {
        // Never a second time: that would make it another socket's slot.
        locked(&self.adoptions).insert(&fd, Pod(storage), BPF_NOEXIST)
    }

    /// What is kept with a socket: one system call.
    pub(super) fn storage(&self, fd: BorrowedFd<'_>) -> Result<Storage, MapError> {
        self.lookups.get(&fd, 0).map(|storage| storage.0)
    }

    /// A counter, summed over the CPUs; 0 when it cannot be read.
    pub(super) fn count(&self, index: u32) -> u64 {
        self.counts.get(&index, 0).map_or(0, |cpus| cpus.iter().sum())
    }

    /// Adds a key of a gateway.
    pub(super) fn add_gateway(&self, key: GatewayKey, value: GatewayValue) -> Result<(), MapError> {
        locked(&self.gateways).insert(Pod(key), Pod(value), 0)
    }

    /// Removes a key of a gateway; one that is not there is no error.
    pub(super) fn remove_gateway(&self, key: GatewayKey) -> Result<(), MapError> {
        absent_is_fine(locked(&self.gateways).remove(&Pod(key)))
    }

    /// Adds an endpoint.
    pub(super) fn add_endpoint(&self, endpoint: Endpoint, kind: u32) -> Result<(), MapError> {
        locked(&self.endpoints).insert(Pod(endpoint), kind, 0)
    }

    /// Removes an endpoint; one that is not there is no error.
    pub(super) fn remove_endpoint(&self, endpoint: Endpoint) -> Result<(), MapError> {
        absent_is_fine(locked(&self.endpoints).remove(&Pod(endpoint)))
    }

    /// Watches a cgroup.
    pub(super) fn watch(&self, cgroup_id: u64) -> Result<(), MapError> {
        locked(&self.watched).insert(cgroup_id, 1, 0)
    }

    /// Watches a cgroup no longer; one that was not is no error.
    pub(super) fn unwatch(&self, cgroup_id: u64) -> Result<(), MapError> {
        absent_is_fine(locked(&self.watched).remove(&cgroup_id))
    }

    /// Has the end of a process told.
    pub(super) fn own(&self, tgid: u32, role: u32) -> Result<(), MapError> {
        locked(&self.owners).insert(tgid, role, 0)
    }

    /// The hooks whose programs somebody cut off.
    pub(super) fn lost_hooks(&self) -> impl Iterator<Item = &str> {
        self.links.iter().filter(|link| !link.holds()).map(|link| &*link.hook)
    }

    /// How often the kernel left each program out so far.
    pub(super) fn misses(&self) -> impl Iterator<Item = (&str, u64)> {
        self.loaded.iter().map(|program| (&*program.hook, program.misses()))
    }

    /// The descriptor of the table, to be passed on.
    pub(super) fn table(&self) -> BorrowedFd<'_> {
        self.slots.fd().as_fd()
    }
}

fn absent_is_fine(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(ENOENT) => {
            Ok(())
        }
        other => other,
    }
}

const ENOENT: i32 = 2;

/// `BPF_NOEXIST` of `include/uapi/linux/bpf.h`.
const BPF_NOEXIST: u64 = 1;

/// The reading end of the kernel's ring.
pub(super) struct NoticeRing {
    ring: RingBuf<MapData>,
}

impl NoticeRing {
    /// Takes at most `max` records out of the ring, or None for what is not of our ABI. Returns how many it
    /// took.
    pub(super) fn drain(&mut self, max: usize, mut each: impl FnMut(Option<RingRecord>)) -> usize {
        for taken in 0..max {
            match self.ring.next() {
                Some(bytes) => each(RingRecord::parse(&bytes)),
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
