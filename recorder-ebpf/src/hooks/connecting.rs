//! What the two hooks on `connect` have in common.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns};
use recorder_ebpf::{
    ConnectionNotice, Endpoint, GatewayKey, Storage, connection, flag, kind, role,
};

use crate::{
    maps::{ENDPOINTS, GATEWAYS, WATCHED},
    owner::{self, Place},
    ring::{emit_connection, emit_stranger},
    socket::{Sock, choose},
};

const IPPROTO_TCP: u32 = 6;
const IPPROTO_MPTCP: u32 = 262;

/// A call of `connect`.
pub struct Call {
    pub ctx: *mut c_void,
    pub sk: Sock,
    pub address: [u32; 4],
    pub port: u16,
    pub protocol: u32,
}

/// Chooses the socket when somebody wants to know of the connection, and tells of the call.
///
/// # Safety
/// `call` must be made of a hook's own context.
#[inline(always)]
pub unsafe fn connecting(call: Call) {
    let multipath = call.protocol == IPPROTO_MPTCP;
    if call.protocol != IPPROTO_TCP && !multipath {
        return;
    }
    // SAFETY: see above; `kept` lives while the program runs.
    unsafe {
        let place = owner::place(call.ctx);
        let Some((role, flags)) = chosen(&place, call.address, call.port) else { return };
        let mut who = owner::current(&place);
        (who.role, who.flags, who.connect_ns) = (role, flags, bpf_ktime_get_ns());
        let cookie = bpf_get_socket_cookie(call.ctx);
        let facts = ConnectionNotice {
            remote: call.address,
            remote_port: call.port,
            ..ConnectionNotice::default()
        };
        if role != role::UPSTREAM {
            owner::remember(who.tgid, role);
        }
        if multipath {
            // Its bytes travel on other sockets than this one; `sock_ops` sees those.
            emit_stranger(kind::CONNECT, cookie, told(&who, flag::MPTCP, facts));
            return;
        }
        let told_of = role != role::UPSTREAM;
        if let Some(kept) = choose(call.sk, who) {
            if told_of {
                emit_connection(kept, kind::CONNECT, cookie, facts);
            }
        } else if told_of {
            emit_stranger(kind::CONNECT, cookie, told(&who, flag::NO_SLOT, facts));
        }
    }
}

/// Role and flags of a connection from this place to this address.
#[inline(always)]
unsafe fn chosen(place: &Place, address: [u32; 4], port: u16) -> Option<(u32, u32)> {
    let endpoint = ENDPOINTS.get_ptr(Endpoint::new(address, port, place.netns_cookie));
    let gateway = GATEWAYS.get_ptr(GatewayKey::member(place.cgroup_id));
    // SAFETY: entries of maps, which are memory of the kernel's whatever happens to the entry.
    let (endpoint, gateway) =
        unsafe { (endpoint.map(|found| *found), gateway.map(|found| (*found).tgid)) };
    let watched = endpoint.is_none() && WATCHED.get_ptr(place.cgroup_id).is_some();
    connection(endpoint, gateway, owner::tgid(), watched)
}

/// Completes the facts of a socket that nothing is kept of.
#[inline(always)]
fn told(who: &Storage, flags: u32, mut facts: ConnectionNotice) -> ConnectionNotice {
    facts.netns_cookie = who.netns_cookie;
    facts.cgroup_id = who.cgroup_id;
    facts.tgid = who.tgid;
    facts.pid = who.pid;
    facts.comm = who.comm;
    facts.role = who.role;
    facts.flags = who.flags | flags;
    facts.connect_ns = who.connect_ns;
    facts
}
