//! The kernel's list of TCP sockets (`NETLINK_SOCK_DIAG`): those of this process's network namespace, with their
//! totals. It finds connections that were there before the programs, and takes their place where there are none.
//!
//! Sockets of other network namespaces, those of pods among them, are not in it.
#![allow(unsafe_code, reason = "a netlink socket is made through libc")]

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{FromRawFd as _, OwnedFd},
};

use super::tcp_info;

/// One socket of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedSocket {
    /// `SO_COOKIE`.
    pub cookie: u64,
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// The inode that descriptors show; 0 of a socket without one.
    pub inode: u64,
    /// The cgroup2 in which it was made; none before kernel 5.8.
    pub cgroup_id: Option<u64>,
    /// Bytes sent and received; none where the kernel does not count.
    pub totals: Option<(u64, u64)>,
}

/// The connected TCP sockets of this network namespace.
///
/// # Errors
/// When the kernel does not tell, or sends what cannot be read.
pub fn connected_sockets() -> io::Result<Vec<ListedSocket>> {
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = u8::try_from(family).unwrap_or_default();
        let mut attempt = 0;
        loop {
            let before = found.len();
            // Changed while it was read: some may be missing.
            if dump(family, &mut found)? == Dump::Whole || attempt == ATTEMPTS {
                break;
            }
            found.truncate(before);
            attempt += 1;
        }
    }
    Ok(found)
}

/// How a dump ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dump {
    Whole,
    Interrupted,
}

fn dump(family: u8, found: &mut Vec<ListedSocket>) -> io::Result<Dump> {
    let mut socket = netlink_socket()?;
    socket.write_all(&request(family))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut whole = Dump::Whole;
    loop {
        let length = socket.read(&mut buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for message in messages(buffer.get(..length).unwrap_or_default()) {
            if message.flags & NLM_F_DUMP_INTR != 0 {
                whole = Dump::Interrupted;
            }
            match message.kind {
                NLMSG_DONE => return Ok(whole),
                NLMSG_ERROR => return Err(refusal(message.payload)),
                SOCK_DIAG_BY_FAMILY if found.len() < SOCKETS_MAX => {
                    found.extend(parse(message.payload));
                }
                _ => {}
            }
        }
    }
}

fn netlink_socket() -> io::Result<File> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; a descriptor that is not negative is ours alone.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: see above.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2` (include/uapi/linux/inet_diag.h).
fn request(family: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + REQUEST_BYTES);
    bytes.extend(72_u32.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0]);
    bytes.extend(CONNECTED.to_ne_bytes());
    bytes.resize(HEADER_BYTES + REQUEST_BYTES, 0);
    bytes
}

struct Message<'b> {
    kind: u16,
    flags: u16,
    payload: &'b [u8],
}

/// The messages of a datagram; what is malformed ends it.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(word(bytes, 0)?).ok()?;
        let payload = bytes.get(HEADER_BYTES..length)?;
        let message = Message { kind: half(bytes, 4)?, flags: half(bytes, 6)?, payload };
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

fn refusal(payload: &[u8]) -> io::Error {
    match word(payload, 0).map(u32::cast_signed) {
        Some(errno) if errno < 0 => io::Error::from_raw_os_error(errno.saturating_neg()),
        _ => io::ErrorKind::InvalidData.into(),
    }
}

/// `struct inet_diag_msg` and its attributes.
fn parse(bytes: &[u8]) -> Option<ListedSocket> {
    let (family, id) = (*bytes.first()?, bytes.get(4..52)?);
    let port = |at: usize| id.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b));
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = *id.get(at..)?.first_chunk()?;
        Some(if i32::from(family) == libc::AF_INET {
            Ipv4Addr::from(*octets.first_chunk::<4>()?).into()
        } else {
            Ipv6Addr::from(octets).to_canonical()
        })
    };
    let cookie = u64::from(word(id, 40)?) | u64::from(word(id, 44)?) << 32;
    let mut socket = ListedSocket {
        cookie,
        local: SocketAddr::new(address(4)?, port(0)?),
        remote: SocketAddr::new(address(20)?, port(2)?),
        inode: word(bytes, 68)?.into(),
        cgroup_id: None,
        totals: None,
    };
    for (kind, value) in attributes(bytes.get(MESSAGE_BYTES..)?) {
        match kind {
            INET_DIAG_INFO => socket.totals = tcp_info::totals(value),
            INET_DIAG_CGROUP_ID => {
                socket.cgroup_id = value.first_chunk().map(|b| u64::from_ne_bytes(*b));
            }
            _ => {}
        }
    }
    Some(socket)
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(bytes, 0)?);
        let value = bytes.get(4..length)?;
        let kind = half(bytes, 2)? & NLA_TYPE_MASK;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_ne_bytes(*b))
}

// include/uapi/linux/netlink.h, sock_diag.h and inet_diag.h.
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_TYPE_MASK: u16 = 0x3fff;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_CGROUP_ID: u16 = 21;
const IPPROTO_TCP: u8 = 6;
const HEADER_BYTES: usize = 16;
const REQUEST_BYTES: usize = 56;
const MESSAGE_BYTES: usize = 72;
/// ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING: a bit each.
const CONNECTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// What the kernel fills at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// More of one namespace are not looked at (8 MB).
const SOCKETS_MAX: usize = 65_536;
const ATTEMPTS: u32 = 3;

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::fd::AsFd as _,
    };

    use proptest::prelude::*;

    use super::*;
    use crate::witness::sys;

    fn check(listen: &str) {
        let listener = TcpListener::bind(listen).expect("a port");
        let mut near = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (mut far, _) = listener.accept().expect("accepts");
        near.write_all(&[7; 5_000]).expect("sent");
        far.read_exact(&mut [0; 5_000]).expect("received");
        far.write_all(&[7; 300]).expect("sent");
        near.read_exact(&mut [0; 300]).expect("received");
        let sockets = connected_sockets().expect("the kernel tells");
        for (socket, totals) in [(&near, (5_000, 300)), (&far, (300, 5_000))] {
            let cookie = sys::cookie(socket.as_fd()).expect("a socket");
            let found = sockets.iter().find(|found| found.cookie == cookie).expect("listed");
            assert_eq!(found.local, socket.local_addr().expect("bound"), "{listen}");
            assert_eq!(found.remote, socket.peer_addr().expect("connected"), "{listen}");
            assert_eq!(found.totals, Some(totals), "{listen}");
            assert!(found.inode > 0);
        }
    }

    #[test]
    fn own_connections_are_listed_with_their_totals() {
        check("127.0.0.1:0");
        check("[::1]:0");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for message in messages(&bytes) {
                parse(message.payload);
                refusal(message.payload);
            }
            parse(&bytes);
            attributes(&bytes).count();
        }
    }

    #[test]
    fn a_length_that_is_too_short_ends_the_datagram() {
        for length in 0_u32..16 {
            let mut bytes = vec![0; 64];
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(messages(&bytes).count(), 0, "{length}");
        }
        assert_eq!(attributes(&[0, 0, 0, 0, 0, 0]).count(), 0);
    }
}
