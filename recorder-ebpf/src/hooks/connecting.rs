//! What the two hooks on `connect` have in common.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns},
    programs::SockAddrContext,
};
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

/// Chooses the socket that is about to connect to this address when somebody wants to know of the connection, and
/// tells of the call.
///
/// # Safety
/// `address` must be read from this context.
#[inline(always)]
pub unsafe fn connecting(ctx: &SockAddrContext, address: [u32; 4]) {
    let addr = ctx.sock_addr;
    // SAFETY: the hook's own context, read field by field: a copy of it is refused by the verifier.
    let (protocol, port, sk): (u32, u16, Sock) = unsafe {
        (
            (&raw const (*addr).protocol).read_volatile(),
            u16::from_be((&raw const (*addr).user_port).read_volatile() as u16),
            (&raw const (*addr).__bindgen_anon_1.sk).read_volatile().cast(),
        )
    };
    let multipath = protocol == IPPROTO_MPTCP;
    if protocol != IPPROTO_TCP && !multipath {
        return;
    }
    // SAFETY: see above; `kept` lives while the program runs.
    unsafe {
        let place = owner::place(ctx.as_ptr());
        let Some((role, flags)) = chosen(&place, address, port) else { return };
        let mut who = owner::current(&place);
        (who.role, who.flags, who.connect_ns) = (role, flags, bpf_ktime_get_ns());
        let cookie = bpf_get_socket_cookie(ctx.as_ptr());
        let facts =
            ConnectionNotice { remote: address, remote_port: port, ..ConnectionNotice::default() };
        if role != role::UPSTREAM {
            owner::remember(who.tgid, role);
        }
        if multipath {
            // Its bytes travel on other sockets than this one; `sock_ops` sees those.
            emit_stranger(kind::CONNECT, cookie, told(&who, flag::MPTCP, facts));
            return;
        }
        let told_of = role != role::UPSTREAM;
        if let Some(kept) = choose(sk, who) {
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
