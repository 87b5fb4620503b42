//! What the programs choose sockets by, and what they keep with a chosen one.
//!
//! User space writes the keys and the programs build the same ones from what a hook sees; both do it with
//! the functions here.

use core::net::{IpAddr, SocketAddr};

use crate::{flag, role};

/// A key of the map `GATEWAYS`. One gateway has three entries.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GatewayKey {
    /// The gateway's cgroup; 0 in the entry of its port.
    pub cgroup_id: u64,
    /// The gateway's network namespace; 0 in the entries of its cgroup.
    pub netns_cookie: u64,
    /// The listener's port; 0 in the entry of the cgroup alone.
    pub port: u32,
    /// Zero.
    pub reserved: u32,
}

impl GatewayKey {
    /// "This cgroup may listen on this port": its listener is marked, and what that accepts is the gateway's.
    #[inline(always)]
    #[must_use]
    pub const fn listener(cgroup_id: u64, port: u16) -> Self {
        Self { cgroup_id, netns_cookie: 0, port: port as u32, reserved: 0 }
    }

    /// "This cgroup is a gateway's": what it opens to an API endpoint is the gateway's.
    #[inline(always)]
    #[must_use]
    pub const fn member(cgroup_id: u64) -> Self {
        Self { cgroup_id, netns_cookie: 0, port: 0, reserved: 0 }
    }

    /// "This port in this network namespace is a gateway's": nobody else should bind it.
    #[inline(always)]
    #[must_use]
    pub const fn port(netns_cookie: u64, port: u16) -> Self {
        Self { cgroup_id: 0, netns_cookie, port: port as u32, reserved: 0 }
    }
}

/// A value of the map `GATEWAYS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewayValue {
    /// The gateway's process (thread group in the initial pid namespace): user space sets it where it knows
    /// it, else the programs when it begins to listen. 0: any process of the cgroup.
    pub tgid: u32,
    /// Zero.
    pub reserved: u32,
}

/// A key of the map `ENDPOINTS`: where a connection may go to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The network namespace, for addresses that mean another host in each; 0 for all others.
    pub netns_cookie: u64,
    /// IPv6, or IPv4 mapped into it (`::ffff:a.b.c.d`); four words as they lie in a packet.
    pub address: [u32; 4],
    /// Host byte order.
    pub port: u32,
    /// Zero.
    pub reserved: u32,
}

/// What an endpoint is: the value in the map `ENDPOINTS`.
pub mod endpoint {
    /// An API server, by one of its addresses.
    pub const API: u32 = 1;
    /// A gateway's listener, by one of its addresses.
    pub const GATEWAY: u32 = 2;
}

impl Endpoint {
    /// The key of an address. `address` is IPv6 or mapped IPv4, `netns_cookie` that of who connects.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: [u32; 4], port: u16, netns_cookie: u64) -> Self {
        let netns_cookie = if is_loopback(address) { netns_cookie } else { 0 };
        Self { netns_cookie, address, port: port as u32, reserved: 0 }
    }

    /// The key of an address as user space writes it. `netns_cookie` counts for loopback addresses only.
    #[must_use]
    pub fn of(address: SocketAddr, netns_cookie: u64) -> Self {
        let v6 = match address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        Self::new(words(v6.octets()), address.port(), netns_cookie)
    }
}

/// IPv4, as it lies in a packet, mapped into IPv6.
#[inline(always)]
#[must_use]
pub const fn v4_mapped(v4: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), v4]
}

/// Whether an address means the host, or rather the network namespace, itself: `127.0.0.0/8` or `::1`.
#[inline(always)]
#[must_use]
pub const fn is_loopback(address: [u32; 4]) -> bool {
    let [a, b, c, d] = address;
    if a != 0 || b != 0 {
        return false;
    }
    let (c, d) = (u32::from_be(c), u32::from_be(d));
    (c == 0 && d == 1) || (c == 0xffff && d >> 24 == 127)
}

/// An address of a connection notice as a socket address; `::ffff:a.b.c.d` becomes IPv4.
#[must_use]
pub fn socket_address(address: [u32; 4], port: u16) -> SocketAddr {
    let mut octets = [0; 16];
    for (at, word) in octets.chunks_exact_mut(4).zip(address) {
        at.copy_from_slice(&word.to_ne_bytes());
    }
    SocketAddr::new(IpAddr::from(octets).to_canonical(), port)
}

fn words(octets: [u8; 16]) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes)
}

/// What the kernel keeps with a chosen socket (`SOCKETS`). A listener's is copied to what it accepts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// `SO_COOKIE`; 0 while the socket has no slot. A slot with another cookie was given away.
    pub cookie: u64,
    /// Index of the socket's slot plus one; 0 while it has none, [`NO_SLOT`](Self::NO_SLOT) if none was free.
    pub slot: u64,
    /// See [`role`].
    pub role: u32,
    /// See [`flag`].
    pub flags: u32,
    /// Thread group of who connected or listens, in the initial pid namespace; 0 when unknown.
    pub tgid: u32,
    /// Its thread.
    pub pid: u32,
    /// Its cgroup; 0 when unknown.
    pub cgroup_id: u64,
    /// Its network namespace; 0 when unknown.
    pub netns_cookie: u64,
    /// `CLOCK_MONOTONIC` of the call to `connect`; 0 when it was not seen.
    pub connect_ns: u64,
    /// Its command name, NUL-padded.
    pub comm: [u8; 16],
}

impl Storage {
    /// No slot was free for this socket.
    pub const NO_SLOT: u64 = u64::MAX;
}

/// Whose connection it is that a process opens, and its [flags](flag); None when nobody asks for it.
///
/// `endpoint` is what the other end is, `gateway` the process that is the gateway in the caller's cgroup (0 for
/// any), `tgid` the caller, `watched` whether its cgroup is.
#[inline(always)]
#[must_use]
pub const fn connection(
    endpoint: Option<u32>,
    gateway: Option<u32>,
    tgid: u32,
    watched: bool,
) -> Option<(u32, u32)> {
    match (endpoint, gateway) {
        (Some(endpoint::GATEWAY), _) => Some((role::CLIENT, 0)),
        (Some(_), Some(owner)) if owner == 0 || owner == tgid => Some((role::UPSTREAM, 0)),
        (Some(_), Some(_)) => Some((role::FOREIGN, flag::GATEWAY_CGROUP)),
        (Some(_), None) => Some((role::FOREIGN, 0)),
        (None, _) if watched => Some((role::WATCHED, 0)),
        (None, _) => None,
    }
}

const _: () = assert!(size_of::<Storage>() == 72 && align_of::<Storage>() == 8);
const _: () = assert!(size_of::<GatewayKey>() == 24 && size_of::<GatewayValue>() == 8);
const _: () = assert!(size_of::<Endpoint>() == 32 && align_of::<Endpoint>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, netns: u64) -> Endpoint {
        Endpoint::of(text.parse().expect("a socket address"), netns)
    }

    #[test]
    fn v4_and_mapped_v4_are_the_same_endpoint() {
        let plain = of("10.96.0.1:443", 9);
        assert_eq!(plain, of("[::ffff:10.96.0.1]:443", 9));
        // As connect4 sees it: the address in network byte order.
        let seen = u32::from_ne_bytes([10, 96, 0, 1]);
        assert_eq!(plain, Endpoint::new(v4_mapped(seen), 443, 77));
        assert_ne!(plain, of("10.96.0.1:444", 9));
        assert_ne!(plain, of("10.96.0.2:443", 9));
        assert_ne!(plain, of("[::10.96.0.1]:443", 9), "compatible is not mapped");
    }

    #[test]
    fn v6_endpoints_match_as_connect6_sees_them() {
        let seen = [[0xfd, 0, 0, 1], [0; 4], [0; 4], [0, 0, 0, 7]].map(u32::from_ne_bytes);
        assert_eq!(of("[fd00:1::7]:6443", 0), Endpoint::new(seen, 6_443, 5));
    }

    #[test]
    fn only_loopback_addresses_belong_to_a_network_namespace() {
        for (text, netns) in [
            ("127.0.0.1:6443", 9),
            ("127.8.0.3:6443", 9),
            ("[::1]:6443", 9),
            ("[::ffff:127.0.0.1]:6443", 9),
            ("128.0.0.1:6443", 0),
            ("10.0.0.1:6443", 0),
            ("[::2]:6443", 0),
            ("[::]:6443", 0),
        ] {
            assert_eq!(of(text, 9).netns_cookie, netns, "{text}");
        }
    }

    #[test]
    fn addresses_survive_the_way_back() {
        for text in ["10.96.0.1:443", "[fd00:1::7]:6443", "127.0.0.1:1", "[::1]:65535"] {
            let key = of(text, 0);
            let port = u16::try_from(key.port).expect("a port");
            assert_eq!(socket_address(key.address, port), text.parse().expect("an address"));
        }
        let mapped = of("[::ffff:10.0.0.1]:1", 0);
        assert_eq!(socket_address(mapped.address, 1), "10.0.0.1:1".parse().expect("an address"));
    }

    #[test]
    fn a_connection_is_the_gateways_only_from_its_own_process() {
        let api = Some(endpoint::API);
        assert_eq!(connection(api, Some(0), 7, false), Some((role::UPSTREAM, 0)));
        assert_eq!(connection(api, Some(7), 7, true), Some((role::UPSTREAM, 0)));
        let borrowed = Some((role::FOREIGN, flag::GATEWAY_CGROUP));
        assert_eq!(connection(api, Some(7), 8, false), borrowed);
        assert_eq!(connection(api, None, 7, true), Some((role::FOREIGN, 0)));
        let client = Some((role::CLIENT, 0));
        assert_eq!(connection(Some(endpoint::GATEWAY), Some(7), 7, true), client);
        assert_eq!(connection(None, Some(7), 7, false), None);
        assert_eq!(connection(None, None, 7, true), Some((role::WATCHED, 0)));
    }

    #[test]
    fn a_gateways_three_entries_differ() {
        let entries =
            [GatewayKey::listener(7, 8_443), GatewayKey::member(7), GatewayKey::port(7, 8_443)];
        assert!(entries[0] != entries[1] && entries[1] != entries[2] && entries[0] != entries[2]);
    }
}
