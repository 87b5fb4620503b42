//! The maps, and the constants that the loader sets.

use core::ptr;

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_map_type},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use recorder_ebpf::{
    Endpoint, GatewayKey, GatewayValue, Notice, SLOTS as SLOTS_DEFAULT, Slot, Storage, bound, count,
};

use crate::atomic;

/// The size is only a default: the loader sets it, and `SLOT_MASK` with it. It freezes the map, so that
/// nobody but these programs can write a total.
#[btf_map]
pub static SLOTS: Array<Slot, { SLOTS_DEFAULT as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();
/// The size is only a default: the loader sets it, a power of two of pages.
#[btf_map]
pub static NOTICES: RingBuf<Notice, { 1 << 20 }> = RingBuf::new();
#[btf_map]
pub static SOCKETS: SocketStorage = SocketStorage::new();
#[btf_map]
static COUNTS: PerCpuArray<u64, { count::LEN }> = PerCpuArray::new();
#[btf_map]
pub static GATEWAYS: HashMap<GatewayKey, GatewayValue, { bound::GATEWAYS }> = HashMap::new();
#[btf_map]
pub static ENDPOINTS: HashMap<Endpoint, u32, { bound::ENDPOINTS }> = HashMap::new();
#[btf_map]
pub static WATCHED: HashMap<u64, u32, { bound::WATCHED }> = HashMap::new();
#[btf_map]
pub static OWNERS: LruHashMap<u32, u32, { bound::OWNERS }> = LruHashMap::new();

/// Size of the table less one.
#[unsafe(no_mangle)]
pub static SLOT_MASK: Global<u32> = Global::new(SLOTS_DEFAULT - 1);

/// `BPF_F_CLONE` of `include/uapi/linux/bpf.h`: `accept` copies the listener's value.
const BPF_F_CLONE: usize = 1 << 9;
const STORAGE_FLAGS: usize = BPF_F_NO_PREALLOC as usize | BPF_F_CLONE;

/// A definition of `BPF_MAP_TYPE_SK_STORAGE`: aya's own cannot be given flags. The fields are what BTF
/// describes the map by; nothing reads them.
#[repr(C)]
pub struct SocketStorage {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const Storage,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; STORAGE_FLAGS],
}

// SAFETY: placeholders that the loader replaces; no code follows them.
unsafe impl Sync for SocketStorage {}

impl SocketStorage {
    const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }

    /// The map as helpers take it.
    #[inline(always)]
    pub const fn as_ptr(&self) -> *mut core::ffi::c_void {
        ptr::from_ref(self).cast_mut().cast()
    }
}

/// Counts one of [`count`].
#[inline(always)]
pub fn increment(index: u32) {
    if let Some(counter) = COUNTS.get_ptr_mut(index) {
        // SAFETY: the pointer is to this CPU's slot. Atomic all the same: a program in softirq context
        // may interrupt one in process context on this CPU.
        unsafe { atomic::add(counter, 1) };
    }
}
