//! What is kept of a chosen socket: its storage, and its slot in the table.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_sk_storage_get},
};
use recorder_ebpf::{BUSY, Claim, PROBES, SLOT_WORDS, Slot, Storage, count, kind, role, tcp_state};

use crate::{
    atomic,
    maps::{SLOT_MASK, SLOTS, SOCKETS, increment},
    ring::emit,
};

/// The kernel's `struct sock`, of which nothing is read: helpers take the pointer as it is, so that no
/// structure offset of any kernel version matters.
pub type Sock = *mut c_void;

/// What is kept with a socket, or None: the early exit for all other sockets of the node.
///
/// # Safety
/// `sk` must be what the hook's context gives for this helper, not null.
#[inline(always)]
pub unsafe fn storage(sk: Sock) -> Option<*mut Storage> {
    // SAFETY: see above; flags 0 never creates storage.
    let found = unsafe { bpf_sk_storage_get(SOCKETS.as_ptr(), sk, ptr::null_mut(), 0) };
    if found.is_null() { None } else { Some(found.cast()) }
}

/// Keeps something with a socket, whatever was kept before. Counts when the kernel refuses.
///
/// # Safety
/// As for [`storage`].
#[inline(always)]
pub unsafe fn choose(sk: Sock, mut value: Storage) -> Option<*mut Storage> {
    let create = BPF_SK_STORAGE_GET_F_CREATE.into();
    // SAFETY: see above; the helper copies the value.
    let kept = unsafe {
        bpf_sk_storage_get(SOCKETS.as_ptr(), sk, ptr::from_mut(&mut value).cast(), create)
    };
    let kept: *mut Storage = kept.cast();
    if kept.is_null() {
        increment(count::STORAGE_REFUSED);
        return None;
    }
    // SAFETY: non-null storage that lives while the program runs. It may be older than this call: a socket
    // may connect once more after a failure.
    unsafe { kept.write(value) };
    Some(kept)
}

/// The slot of a socket that has one, in a tracing program. Claims it when this is the first that is seen of
/// the socket.
///
/// # Safety
/// As for [`storage`].
#[inline(always)]
pub unsafe fn slot(sk: Sock) -> Option<*mut Slot> {
    // SAFETY: see above.
    unsafe { claimed(storage(sk)?, sk) }
}

/// As [`slot`], where the socket is known to be no listener: what `accept` copied from one becomes the
/// gateway's connection.
///
/// # Safety
/// As for [`storage`].
#[inline(always)]
pub unsafe fn connected_slot(sk: Sock) -> Option<*mut Slot> {
    // SAFETY: see above.
    unsafe {
        let kept = storage(sk)?;
        accepted(kept);
        claimed(kept, sk)
    }
}

/// # Safety
/// As for [`storage`]; `kept` must be of this socket.
#[inline(always)]
unsafe fn claimed(kept: *mut Storage, sk: Sock) -> Option<*mut Slot> {
    // SAFETY: see above.
    unsafe {
        if (*kept).slot == 0 {
            if !has_slot((*kept).role) {
                return None;
            }
            claim(kept, bpf_get_socket_cookie(sk));
        }
        slot_of(kept)
    }
}

/// Turns the copy of a listener's storage into an accepted connection's.
///
/// # Safety
/// As for [`slot_of`].
#[inline(always)]
pub unsafe fn accepted(kept: *mut Storage) {
    // SAFETY: see above.
    unsafe {
        if (*kept).role == role::LISTENER {
            (*kept).role = role::ACCEPTED;
        }
    }
}

/// Whether sockets of this role have a slot in the table.
#[inline(always)]
pub const fn has_slot(role: u32) -> bool {
    role != role::CLIENT && role != role::LISTENER
}

/// The slot that a socket has been given.
///
/// # Safety
/// `kept` must come from [`storage`] in this run of the program.
#[inline(always)]
pub unsafe fn slot_of(kept: *mut Storage) -> Option<*mut Slot> {
    // SAFETY: see above; the lookup checks the index.
    unsafe {
        let index = (*kept).slot;
        if index == 0 || index == Storage::NO_SLOT {
            return None;
        }
        let slot = SLOTS.get_ptr_mut((index - 1) as u32)?;
        if (*slot).cookie == (*kept).cookie {
            return Some(slot);
        }
        // Closed for longer than a slot is kept: another socket has it.
        increment(count::LATE_CALLS);
        None
    }
}

/// Finds room in the table for a socket and tells its storage. Two programs may do so for one socket at
/// once, on two CPUs: the storage's word decides which slot it is, and the other slot is given back before
/// anybody could read it.
///
/// # Safety
/// As for [`slot_of`].
#[inline(never)]
pub unsafe fn claim(kept: *mut Storage, cookie: u64) {
    // SAFETY: see above; pointers into the table come from lookups.
    unsafe {
        let now = bpf_ktime_get_ns();
        for attempt in 0..PROBES {
            let index = Slot::index(cookie, attempt, SLOT_MASK.load());
            let Some(slot) = SLOTS.get_ptr_mut(index) else { continue };
            if !take(slot, cookie, now) {
                continue;
            }
            (*kept).cookie = cookie;
            let decided = atomic::swap_if(&raw mut (*kept).slot, 0, u64::from(index) + 1);
            if decided == 0 {
                begin(slot, kept);
                increment(count::CLAIMED);
            } else {
                atomic::publish(&raw mut (*slot).cookie, 0);
            }
            return;
        }
        if atomic::swap_if(&raw mut (*kept).slot, 0, Storage::NO_SLOT) == 0 {
            increment(count::SLOTS_FULL);
        }
    }
}

/// Makes a slot this socket's, empty and not yet published. False when it is in use.
///
/// # Safety
/// `slot` must come from a lookup in the table.
#[inline(always)]
unsafe fn take(slot: *mut Slot, cookie: u64, now: u64) -> bool {
    // SAFETY: see above.
    unsafe {
        let held = (&raw const (*slot).cookie).read_volatile();
        match Slot::claim(held, (*slot).closed_ns, cookie, now) {
            Claim::Taken => false,
            Claim::Free => atomic::swap_if(&raw mut (*slot).cookie, 0, cookie) == 0,
            Claim::Expired => {
                if atomic::swap_if(&raw mut (*slot).cookie, held, BUSY) != held {
                    return false;
                }
                let words: *mut u64 = slot.cast();
                for word in 1..SLOT_WORDS {
                    // Volatile: else the compiler makes it a call of `memset`, byte by byte.
                    words.add(word).write_volatile(0);
                }
                atomic::publish(&raw mut (*slot).cookie, cookie);
                true
            }
        }
    }
}

/// Fills in what is known and publishes the slot.
///
/// # Safety
/// `slot` must have been taken, `kept` be of the same socket.
#[inline(always)]
unsafe fn begin(slot: *mut Slot, kept: *mut Storage) {
    // SAFETY: see above.
    unsafe {
        (*slot).flags = (*kept).flags;
        (*slot).owner_tgid = (*kept).tgid;
        (*slot).cgroup_id = (*kept).cgroup_id;
        (*slot).connect_ns = (*kept).connect_ns;
        atomic::publish32(&raw mut (*slot).role, (*kept).role);
    }
}

/// Notes a change of TCP state, once: `sock_ops` tells it just before the tracepoint does.
///
/// # Safety
/// As for [`slot_of`].
#[inline(always)]
pub unsafe fn state_changed(slot: *mut Slot, old: u32, new: u32) {
    // SAFETY: see above.
    unsafe {
        if (*slot).tcp_state == new {
            return;
        }
        (*slot).tcp_state = new;
        let now = bpf_ktime_get_ns();
        if new == u32::from(tcp_state::ESTABLISHED) && (*slot).established_ns == 0 {
            (*slot).established_ns = now;
        }
        if old == u32::from(tcp_state::ESTABLISHED) && (*slot).ended_ns == 0 {
            (*slot).ended_ns = now;
        }
        emit(slot, kind::STATE, now, [old, new]);
        if new == u32::from(tcp_state::CLOSE) {
            closed(slot, now);
        }
    }
}

/// Begins the time after which a slot may be given away.
///
/// # Safety
/// As for [`slot_of`].
#[inline(always)]
pub unsafe fn closed(slot: *mut Slot, now: u64) {
    // SAFETY: see above.
    unsafe {
        if (*slot).closed_ns == 0 {
            atomic::publish(&raw mut (*slot).closed_ns, now);
        }
    }
}
