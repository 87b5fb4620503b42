//! What the two hooks on `bind` have in common.

use aya_ebpf::{bindings::bpf_sock, helpers::generated::bpf_get_socket_cookie};
use recorder_ebpf::{ConnectionNotice, GatewayKey, Storage, kind, role};

use crate::{
    maps::GATEWAYS,
    owner::{self, Place},
    ring::emit_stranger,
    socket::choose,
};

const IPPROTO_TCP: u32 = 6;

/// Marks a gateway's listener, or tells that somebody else took its port. `local` is the address bound.
///
/// # Safety
/// `sock` must be a hook's own context.
#[inline(always)]
pub unsafe fn bound(sock: *mut bpf_sock, local: [u32; 4]) {
    // SAFETY: see above; the context is read field by field, a copy of it is refused by the verifier.
    unsafe {
        let port = (&raw const (*sock).src_port).read_volatile() as u16;
        let protocol = (&raw const (*sock).protocol).read_volatile();
        if protocol != IPPROTO_TCP || port == 0 {
            return;
        }
        let place = owner::place(sock.cast());
        if may_listen(&place, port) {
            let who = Storage { role: role::LISTENER, ..owner::current(&place) };
            owner::remember(who.tgid, role::LISTENER);
            choose(sock.cast(), who);
        } else if GATEWAYS.get_ptr(GatewayKey::port(place.netns_cookie, port)).is_some() {
            let who = owner::current(&place);
            let facts = ConnectionNotice {
                netns_cookie: who.netns_cookie,
                cgroup_id: who.cgroup_id,
                tgid: who.tgid,
                pid: who.pid,
                comm: who.comm,
                local,
                local_port: port,
                ..ConnectionNotice::default()
            };
            emit_stranger(kind::BIND, bpf_get_socket_cookie(sock.cast()), facts);
        }
    }
}

/// Whether it is the gateway of its cgroup that binds this port. From the first time on its process is known.
#[inline(always)]
unsafe fn may_listen(place: &Place, port: u16) -> bool {
    if GATEWAYS.get_ptr(GatewayKey::listener(place.cgroup_id, port)).is_none() {
        return false;
    }
    let Some(member) = GATEWAYS.get_ptr_mut(GatewayKey::member(place.cgroup_id)) else {
        return false;
    };
    // SAFETY: an entry of a map, which is memory of the kernel's whatever happens to the entry.
    unsafe {
        let tgid = owner::tgid();
        if (*member).tgid == 0 {
            (*member).tgid = tgid;
        }
        (*member).tgid == tgid
    }
}
