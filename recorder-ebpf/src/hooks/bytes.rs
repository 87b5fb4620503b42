//! What the two hooks that count bytes have in common.

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_ktime_get_ns,
};
use recorder_ebpf::{Slot, kind, role};

use crate::{atomic, ring::emit};

/// Counts a call that moved `bytes` in the direction of `kind`, and makes a notice when one is due.
///
/// # Safety
/// `slot` must come from the table in this run of the program, which must be in the caller's context.
#[inline(always)]
pub unsafe fn moved(slot: *mut Slot, kind: u16, bytes: u64) {
    // SAFETY: see above. Counters are added to atomically, since both directions run on different CPUs; the
    // rest may race (ABI).
    unsafe {
        let now = bpf_ktime_get_ns();
        let turned = (*slot).notice_kind != u64::from(kind);
        if kind == kind::SENT {
            if turned {
                (*slot).sent_run_ns = now;
            }
            (*slot).last_sent_ns = now;
            atomic::add(&raw mut (*slot).sent_bytes, bytes);
            atomic::add(&raw mut (*slot).sent_calls, 1);
        } else {
            queued(slot, now, turned);
            (*slot).last_received_ns = now;
            atomic::add(&raw mut (*slot).received_bytes, bytes);
            atomic::add(&raw mut (*slot).received_calls, 1);
        }
        if (*slot).first_ns == 0 {
            (*slot).first_ns = now;
        }
        by_whom(slot, now, bytes);
        if (*slot).notice_due(kind, now) {
            (*slot).notice_ns = now;
            (*slot).notice_bytes = (*slot).sent_bytes.wrapping_add((*slot).received_bytes);
            (*slot).notice_kind = kind.into();
            emit(slot, kind, now, [0, 0]);
        }
    }
}

/// Notes who looked at bytes that it left where they are: they are read all the same. An owner is one who moves some.
///
/// # Safety
/// As for [`moved`].
#[inline(always)]
pub unsafe fn looked_at(slot: *mut Slot) {
    // SAFETY: see above.
    unsafe {
        if (*slot).owner_tgid != 0 {
            by_whom(slot, bpf_ktime_get_ns(), 0);
        }
    }
}

/// Adds how long the oldest data waited, and notes where a run of receives began.
///
/// # Safety
/// As for [`moved`].
#[inline(always)]
unsafe fn queued(slot: *mut Slot, now: u64, turned: bool) {
    // SAFETY: see above.
    unsafe {
        let ready = (*slot).ready_ns;
        if turned {
            (*slot).received_run_ns = now;
            (*slot).run_ready_ns = ready;
        }
        if ready != 0 {
            (*slot).queue_ns = (*slot).queue_ns.wrapping_add(now.wrapping_sub(ready));
            (*slot).ready_ns = 0;
        }
    }
}

/// Notes calls of a process that is not the owner; on a gateway's socket that is worth a notice, at the
/// first of each such process's calls in a row.
///
/// # Safety
/// As for [`moved`].
#[inline(always)]
unsafe fn by_whom(slot: *mut Slot, now: u64, bytes: u64) {
    // SAFETY: see above.
    unsafe {
        let pid_tgid = bpf_get_current_pid_tgid();
        let tgid = (pid_tgid >> 32) as u32;
        if (*slot).owner_tgid == 0 {
            (*slot).owner_tgid = tgid;
            (*slot).cgroup_id = bpf_get_current_cgroup_id();
        }
        if (*slot).owner_tgid == tgid {
            return;
        }
        atomic::add(&raw mut (*slot).other_bytes, bytes);
        let known = (*slot).other_tgid == tgid;
        (*slot).other_tgid = tgid;
        let gateways = matches!((*slot).role, role::ACCEPTED | role::UPSTREAM | role::ADOPTED);
        if gateways && !known {
            emit(slot, kind::INTRUDER, now, [tgid, pid_tgid as u32]);
        }
    }
}
