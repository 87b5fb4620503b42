//! What the programs choose sockets by: set by user space, once for all programs of a probe.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, PoisonError},
};

use recorder_ebpf::{Endpoint, GatewayKey, GatewayValue, Storage, bound, endpoint, role};

use super::{
    probe::{Probe, chain},
    split::Link,
    sys,
};

/// A process as the programs see it, whatever namespaces it and the reader live in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Thread group in the initial pid namespace; 0 for any process of the cgroup.
    pub tgid: u32,
    /// Its cgroup: the inode number of its directory.
    pub cgroup_id: u64,
    /// The network namespace of its sockets.
    pub netns_cookie: u64,
}

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointKind {
    /// An API server's.
    Api,
    /// A gateway's listener's.
    Gateway,
}

/// An address to look after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointAddress {
    /// The address, IPv4 or IPv6.
    pub address: SocketAddr,
    /// What it is.
    pub kind: EndpointKind,
    /// The network namespace in which a loopback address is meant; all others mean the same in each.
    pub netns_cookie: u64,
}

/// The programs could not be told.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// More than the programs' map takes.
    #[error("{given} {what} are more than the {max} that the programs can look after")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many were given.
        given: usize,
        /// How many are possible.
        max: usize,
    },
    /// The kernel refused.
    #[error("the kernel refuses {what}: {why}")]
    Refused {
        /// What was to be told.
        what: &'static str,
        /// The error and its causes.
        why: String,
    },
}

/// Sets what the programs choose sockets by. A clone sets the same.
#[derive(Clone)]
pub struct Selection {
    by: By,
}

#[derive(Clone)]
enum By {
    /// The programs of this process.
    Programs(Arc<Shared>),
    /// Those of the probe, which is asked. It does not believe who this process says it is, but knows it.
    Probe(Arc<Link>),
}

struct Shared {
    probe: Arc<Probe>,
    /// What was set last, so that a new set only changes what differs.
    endpoints: Mutex<HashMap<Endpoint, EndpointKind>>,
    watched: Mutex<BTreeSet<u64>>,
}

impl Selection {
    pub(super) fn new(probe: Arc<Probe>) -> Self {
        let (endpoints, watched) = (Mutex::default(), Mutex::default());
        Self { by: By::Programs(Arc::new(Shared { probe, endpoints, watched })) }
    }

    pub(super) fn by_probe(link: Arc<Link>) -> Self {
        Self { by: By::Probe(link) }
    }

    /// From now on the listener that this process binds on `port` is a gateway's: what it accepts is
    /// witnessed from the first byte, as is what the process opens to an API endpoint. Call it before
    /// `bind`; a listener that is there already is marked by [`adopt_listener`](Self::adopt_listener).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_gateway(&self, process: Identity, port: u16) -> Result<(), SelectError> {
        let shared = match &self.by {
            By::Programs(shared) => shared,
            By::Probe(link) => return link.set_port(port).map_err(asked("a gateway")),
        };
        let value = GatewayValue { tgid: process.tgid, reserved: 0 };
        for key in keys(process, port) {
            shared.probe.add_gateway(key, value).map_err(|error| refused("a gateway", &error))?;
        }
        if process.tgid != 0 {
            let owned = shared.probe.own(process.tgid, role::LISTENER);
            owned.map_err(|error| refused("a process", &error))?;
        }
        Ok(())
    }

    /// The gateway is gone. Its other ports, if any, must be added again. A probe leaves the keys as they are
    /// until the next gateway comes, so that no time between the two goes unseen.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove_gateway(&self, process: Identity, port: u16) -> Result<(), SelectError> {
        let shared = match &self.by {
            By::Programs(shared) => shared,
            By::Probe(link) => {
                link.forget_listener();
                return Ok(());
            }
        };
        for key in keys(process, port) {
            shared.probe.remove_gateway(key).map_err(|error| refused("a gateway", &error))?;
        }
        Ok(())
    }

    /// Marks a listener by its descriptor: what it accepts from now on is the gateway's. By a probe, the
    /// programs have marked it when it was bound; a copy of the descriptor is kept for a probe that comes
    /// later, until [`remove_gateway`](Self::remove_gateway): without that its port stays open.
    ///
    /// # Errors
    /// When the descriptor is no socket, or the programs chose it as something else than a listener.
    pub fn adopt_listener(&self, fd: BorrowedFd<'_>, process: Identity) -> Result<(), SelectError> {
        let shared = match &self.by {
            By::Programs(shared) => shared,
            By::Probe(link) => {
                return link.set_listener(fd).map_err(|error| refused("a listener", &error));
            }
        };
        let storage = Storage {
            role: role::LISTENER,
            tgid: process.tgid,
            pid: process.tgid,
            cgroup_id: process.cgroup_id,
            netns_cookie: process.netns_cookie,
            ..Storage::default()
        };
        match shared.probe.adopt(fd, storage) {
            // By the hook on `bind`, or for this process when it came before.
            Err(_) if shared.probe.storage(fd).is_ok_and(|kept| kept.role == role::LISTENER) => {
                Ok(())
            }
            adopted => adopted.map_err(|error| refused("a listener", &error)),
        }
    }

    /// The addresses to look after from now on, instead of those before. A connection to an API server's by
    /// anybody who is no gateway is told and counted; one to a gateway's is told.
    ///
    /// # Errors
    /// When there are too many, or the kernel refuses: then the set before stays, but for what was done.
    pub fn set_endpoints(&self, addresses: &[EndpointAddress]) -> Result<(), SelectError> {
        let shared = match &self.by {
            By::Programs(shared) => shared,
            By::Probe(link) => return link.set_endpoints(addresses).map_err(asked("an endpoint")),
        };
        let wanted: HashMap<Endpoint, EndpointKind> = addresses
            .iter()
            .map(|one| (Endpoint::of(one.address, one.netns_cookie), one.kind))
            .collect();
        within("endpoints", wanted.len(), bound::ENDPOINTS)?;
        let refused = |error| refused("an endpoint", &error);
        let mut current = shared.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<Endpoint> =
            current.keys().filter(|key| !wanted.contains_key(*key)).copied().collect();
        for key in gone {
            shared.probe.remove_endpoint(key).map_err(refused)?;
            current.remove(&key);
        }
        for (key, kind) in wanted {
            if current.get(&key) != Some(&kind) {
                let value = match kind {
                    EndpointKind::Api => endpoint::API,
                    EndpointKind::Gateway => endpoint::GATEWAY,
                };
                shared.probe.add_endpoint(key, value).map_err(refused)?;
                current.insert(key, kind);
            }
        }
        Ok(())
    }

    /// This process is about to connect to this API server's address. Programs of this process choose a
    /// connection by its descriptor afterwards; a probe's must know the address before.
    ///
    /// # Errors
    /// When the probe refuses.
    pub fn expect(&self, address: SocketAddr, netns_cookie: u64) -> Result<(), SelectError> {
        match &self.by {
            By::Programs(_) => Ok(()),
            By::Probe(link) => {
                let address = EndpointAddress { address, kind: EndpointKind::Api, netns_cookie };
                link.expect(address).map_err(asked("an endpoint"))
            }
        }
    }

    /// The cgroups all of whose connections are told and counted from now on, instead of those before.
    ///
    /// # Errors
    /// When there are too many, or the kernel refuses: then the set before stays, but for what was done.
    pub fn set_watched(&self, cgroup_ids: &[u64]) -> Result<(), SelectError> {
        let shared = match &self.by {
            By::Programs(shared) => shared,
            By::Probe(link) => return link.set_watched(cgroup_ids).map_err(asked("a cgroup")),
        };
        let wanted: BTreeSet<u64> = cgroup_ids.iter().copied().collect();
        within("watched cgroups", wanted.len(), bound::WATCHED)?;
        let refused = |error| refused("a cgroup", &error);
        let mut current = shared.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<u64> = current.difference(&wanted).copied().collect();
        for id in gone {
            shared.probe.unwatch(id).map_err(refused)?;
            current.remove(&id);
        }
        for id in wanted {
            if !current.contains(&id) {
                shared.probe.watch(id).map_err(refused)?;
                current.insert(id);
            }
        }
        Ok(())
    }
}

/// The cookie of the network namespace of a socket: unique within a boot. Needs kernel 5.14.
///
/// # Errors
/// When the descriptor is no socket, or the kernel is too old.
pub fn netns_cookie(fd: BorrowedFd<'_>) -> std::io::Result<u64> {
    sys::netns_cookie(fd)
}

fn keys(process: Identity, port: u16) -> [GatewayKey; 3] {
    [
        GatewayKey::member(process.cgroup_id),
        GatewayKey::listener(process.cgroup_id, port),
        GatewayKey::port(process.netns_cookie, port),
    ]
}

fn within(what: &'static str, given: usize, max: usize) -> Result<(), SelectError> {
    if given <= max { Ok(()) } else { Err(SelectError::TooMany { what, given, max }) }
}

fn asked(what: &'static str) -> impl FnOnce(String) -> SelectError {
    move |why| SelectError::Refused { what, why }
}

fn refused(what: &'static str, error: &dyn std::error::Error) -> SelectError {
    SelectError::Refused { what, why: chain(error) }
}
