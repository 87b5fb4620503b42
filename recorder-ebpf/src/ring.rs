//! The one place that writes to the ring, and counts what the ring does not take.

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
};
use recorder_ebpf::{ABI_VERSION, ConnectionNotice, Head, Notice, Slot, Storage, count};

use crate::{
    atomic,
    maps::{NOTICES, increment},
    socket::slot_of,
};

/// Writes a notice about a witnessed socket, or counts that the ring did not take it.
///
/// # Safety
/// `slot` must come from the table in this run of the program.
#[inline(always)]
pub unsafe fn emit(slot: *mut Slot, kind: u16, now: u64, detail: [u32; 2]) {
    // SAFETY: see above.
    unsafe {
        let seq = atomic::add(&raw mut (*slot).seq, 1);
        let notice = Notice {
            head: head(kind, seq, now, (*slot).cookie),
            sent_bytes: (*slot).sent_bytes,
            received_bytes: (*slot).received_bytes,
            detail,
            role: (*slot).role,
            owner_tgid: (*slot).owner_tgid,
        };
        if submit(notice) {
            increment(count::EMITTED);
        } else {
            atomic::add(&raw mut (*slot).lost_notices, 1);
            increment(count::RING_FULL);
        }
    }
}

/// Writes a notice that is about no socket.
#[inline(always)]
pub fn emit_process(kind: u16, detail: [u32; 2], role: u32, owner_tgid: u32) {
    // SAFETY: the helper has no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let head = head(kind, 0, now, 0);
    let (sent_bytes, received_bytes) = (0, 0);
    let taken = submit(Notice { head, sent_bytes, received_bytes, detail, role, owner_tgid });
    increment(if taken { count::EMITTED } else { count::RING_FULL });
}

/// Writes a connection notice: `facts`, completed with what is kept of the socket and its totals.
///
/// # Safety
/// `kept` must come from the socket's storage in this run of the program, and `cookie` be the socket's.
#[inline(always)]
pub unsafe fn emit_connection(
    kept: *mut Storage,
    kind: u16,
    cookie: u64,
    mut facts: ConnectionNotice,
) {
    // SAFETY: see above.
    unsafe {
        let slot = slot_of(kept);
        let mut seq = 0;
        if let Some(slot) = slot {
            seq = atomic::add(&raw mut (*slot).seq, 1);
            facts.sent_bytes = (*slot).sent_bytes;
            facts.received_bytes = (*slot).received_bytes;
        }
        facts.head = head(kind, seq, bpf_ktime_get_ns(), cookie);
        facts.netns_cookie = (*kept).netns_cookie;
        facts.cgroup_id = (*kept).cgroup_id;
        facts.tgid = (*kept).tgid;
        facts.pid = (*kept).pid;
        facts.comm = (*kept).comm;
        facts.role = (*kept).role;
        facts.flags = (*kept).flags;
        facts.connect_ns = (*kept).connect_ns;
        if submit(facts) {
            increment(count::EMITTED);
            return;
        }
        if let Some(slot) = slot {
            atomic::add(&raw mut (*slot).lost_notices, 1);
        }
        increment(count::CONNECTIONS_LOST);
    }
}

/// Writes a connection notice about a socket that nothing is kept of.
#[inline(always)]
pub fn emit_stranger(kind: u16, cookie: u64, mut facts: ConnectionNotice) {
    // SAFETY: the helper has no arguments.
    facts.head = head(kind, 0, unsafe { bpf_ktime_get_ns() }, cookie);
    increment(if submit(facts) { count::EMITTED } else { count::CONNECTIONS_LOST });
}

#[inline(always)]
fn head(kind: u16, seq: u64, ktime_ns: u64, cookie: u64) -> Head {
    // SAFETY: the helper has no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    Head { version: ABI_VERSION, kind, cpu, seq, ktime_ns, cookie }
}

/// False when the ring is full.
#[inline(always)]
fn submit<T: 'static>(record: T) -> bool {
    let Some(mut entry) = NOTICES.reserve_untyped::<T>(0) else { return false };
    entry.write(record);
    // A wake-up costs more than the send itself; user space drains on a timer.
    entry.submit(BPF_RB_NO_WAKEUP.into());
    true
}
