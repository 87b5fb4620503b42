//! What all hooks share: the maps, the state of a socket, and the one place that writes to the ring.

use core::{ffi::c_void, intrinsics, ptr};

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    btf_maps::{PerCpuArray, RingBuf, SkStorage},
    helpers::generated::{
        bpf_get_smp_processor_id, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_sk_storage_get,
    },
    macros::btf_map,
};
use recorder_ebpf::v1::{ABI_VERSION, Notice, SocketState, count, kind};

/// The size is only a default: the loader sets it (`map_max_entries`), a power of two of pages.
#[btf_map]
static NOTICES: RingBuf<Notice, { 1 << 20 }> = RingBuf::new();
#[btf_map]
static SOCKETS: SkStorage<SocketState> = SkStorage::new();
#[btf_map]
static COUNTS: PerCpuArray<u64, { count::LEN }> = PerCpuArray::new();

/// The kernel's `struct sock`, of which nothing is read: helpers take the pointer as it is, so that no
/// structure offset of any kernel version matters.
pub type Sock = *mut c_void;

/// The state of an adopted socket, or None: the early exit for all other sockets of the node.
#[inline(always)]
pub fn adopted(sk: Sock) -> Option<*mut SocketState> {
    // The map type's own methods take another program type's context, hence the raw helper.
    let map = ptr::addr_of!(SOCKETS).cast_mut().cast();
    // SAFETY: `sk` is the tracepoint's trusted socket argument; flags 0 never creates storage.
    let state = unsafe { bpf_sk_storage_get(map, sk, ptr::null_mut(), 0) };
    if state.is_null() { None } else { Some(state.cast()) }
}

/// Counts a call that moved `bytes` in the direction of `kind`, and makes a notice when one is due.
#[inline(always)]
pub fn moved(sk: Sock, state: *mut SocketState, kind: u16, bytes: u64) {
    // SAFETY: `state` comes from `adopted`: non-null storage that lives while the program runs. Counters
    // are added to atomically, since both directions run on different CPUs; the rest may race (ABI).
    unsafe {
        let now = bpf_ktime_get_ns();
        if kind == kind::SENT {
            add(ptr::addr_of_mut!((*state).sent_bytes), bytes);
            add(ptr::addr_of_mut!((*state).sent_calls), 1);
        } else {
            add(ptr::addr_of_mut!((*state).received_bytes), bytes);
            add(ptr::addr_of_mut!((*state).received_calls), 1);
        }
        if (*state).first_ns == 0 {
            (*state).first_ns = now;
        }
        (*state).last_ns = now;
        if (*state).notice_due(kind, now) {
            emit(sk, state, Event { kind, now, old_state: 0, new_state: 0 });
        }
    }
}

/// What a hook has to say besides the totals.
pub struct Event {
    pub kind: u16,
    pub now: u64,
    pub old_state: u32,
    pub new_state: u32,
}

/// Writes a notice to the ring, or counts that the ring did not take it.
///
/// # Safety
/// `state` must come from [`adopted`] in this run of the program.
#[inline(always)]
pub unsafe fn emit(sk: Sock, state: *mut SocketState, event: Event) {
    // SAFETY: see above; the cookie helper takes the same trusted pointer.
    unsafe {
        let notice = Notice {
            version: ABI_VERSION,
            kind: event.kind,
            cpu: bpf_get_smp_processor_id(),
            seq: add(ptr::addr_of_mut!((*state).seq), 1),
            ktime_ns: event.now,
            cookie: bpf_get_socket_cookie(sk),
            sent_bytes: (*state).sent_bytes,
            received_bytes: (*state).received_bytes,
            old_state: event.old_state,
            new_state: event.new_state,
        };
        (*state).notice_ns = event.now;
        (*state).notice_bytes = notice.sent_bytes.wrapping_add(notice.received_bytes);
        (*state).notice_kind = event.kind.into();
        match NOTICES.reserve_untyped::<Notice>(0) {
            Some(mut entry) => {
                entry.write(notice);
                // A wake-up costs more than the send itself; user space drains on a timer.
                entry.submit(BPF_RB_NO_WAKEUP.into());
                increment(count::EMITTED);
            }
            None => {
                add(ptr::addr_of_mut!((*state).lost_notices), 1);
                increment(count::RING_FULL);
            }
        }
    }
}

#[inline(always)]
fn increment(index: u32) {
    if let Some(counter) = COUNTS.get_ptr_mut(index) {
        // SAFETY: the pointer is to this CPU's slot. Atomic all the same: a program in softirq context
        // may interrupt one in process context on this CPU.
        unsafe { add(counter, 1) };
    }
}

/// Adds atomically and returns the new value (`core::sync::atomic` lacks this on the target).
#[inline(always)]
unsafe fn add(counter: *mut u64, value: u64) -> u64 {
    // SAFETY: the caller gives a valid, aligned counter.
    let old = unsafe {
        intrinsics::atomic_xadd::<u64, u64, { intrinsics::AtomicOrdering::SeqCst }>(counter, value)
    };
    old.wrapping_add(value)
}
