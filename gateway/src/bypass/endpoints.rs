//! The addresses that matter: those of API servers, which nobody but the gateway should speak with, and the gateway's
//! own, which tell who its clients are. Names are resolved anew at intervals.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use recorder_user::witness::{EndpointAddress, EndpointKind, local_addresses};

use crate::config::{Config, HostPort};

/// A name to be resolved, and whose it is.
struct Place {
    at: HostPort,
    cluster: String,
}

/// The configured names.
pub(super) struct Places {
    api: Vec<Place>,
    gateway: Vec<HostPort>,
    listen: SocketAddr,
}

/// What the names mean now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Endpoints {
    /// API servers' addresses, and the cluster that each is of.
    pub(super) api: HashMap<SocketAddr, String>,
    /// The gateway's own addresses.
    pub(super) gateway: Vec<SocketAddr>,
}

impl Places {
    /// Of a configuration. `environment` names the API server's Service inside of a cluster.
    pub(super) fn new(config: &Config, environment: impl Fn(&str) -> Option<String>) -> Self {
        let mut api: Vec<Place> = config
            .clusters
            .iter()
            .map(|cluster| Place {
                at: HostPort { host: cluster.server.host.clone(), port: cluster.server.port },
                cluster: cluster.name.clone(),
            })
            .collect();
        let default = config.cluster(None).map_or_else(String::new, |cluster| cluster.name.clone());
        let service = environment("KUBERNETES_SERVICE_HOST")
            .zip(environment("KUBERNETES_SERVICE_PORT_HTTPS").and_then(|port| port.parse().ok()))
            .map(|(host, port)| HostPort { host, port });
        let further = config.witness.bypass.endpoints.iter().cloned().chain(service);
        api.extend(further.map(|at| Place { at, cluster: default.clone() }));
        Self {
            api,
            gateway: config.witness.bypass.gateway_addresses.clone(),
            listen: config.listen,
        }
    }

    /// What the names mean now. One that cannot be resolved keeps what it meant `before`.
    pub(super) async fn resolve(&self, before: &Endpoints) -> Endpoints {
        let mut api = HashMap::new();
        for place in &self.api {
            match lookup(&place.at).await {
                Some(found) => found.for_each(|address| {
                    api.entry(address).or_insert_with(|| place.cluster.clone());
                }),
                None => {
                    let kept = before.api.iter().filter(|(address, cluster)| {
                        address.port() == place.at.port && **cluster == place.cluster
                    });
                    for (address, cluster) in kept {
                        api.entry(*address).or_insert_with(|| cluster.clone());
                    }
                }
            }
        }
        let mut gateway = own(self.listen, &local_addresses().unwrap_or_default());
        for place in &self.gateway {
            match lookup(place).await {
                Some(found) => gateway.extend(found),
                None => {
                    let kept = before.gateway.iter().filter(|kept| kept.port() == place.port);
                    gateway.extend(kept);
                }
            }
        }
        // What is both is the API server's: a connection to it would go round the gateway.
        gateway.retain(|address| !api.contains_key(address));
        gateway.sort_unstable();
        gateway.dedup();
        Endpoints { api, gateway }
    }
}

impl Endpoints {
    /// The same for the programs. Loopback addresses are meant in the network namespace of the gateway.
    pub(super) fn addresses(&self, netns_cookie: u64) -> Vec<EndpointAddress> {
        let address =
            |address: &SocketAddr, kind| EndpointAddress { address: *address, kind, netns_cookie };
        let api = self.api.keys().map(|found| address(found, EndpointKind::Api));
        let gateway = self.gateway.iter().map(|found| address(found, EndpointKind::Gateway));
        api.chain(gateway).collect()
    }

    /// The cluster of an API server's address.
    pub(super) fn cluster(&self, address: Option<SocketAddr>) -> Option<&str> {
        self.api.get(&address?).map(String::as_str)
    }
}

/// The addresses of a listener: of one on all addresses every one of the namespace.
fn own(listen: SocketAddr, local: &[IpAddr]) -> Vec<SocketAddr> {
    let ip = listen.ip();
    if !ip.is_unspecified() {
        return vec![SocketAddr::new(ip.to_canonical(), listen.port())];
    }
    local
        .iter()
        .filter(|address| ip.is_ipv6() || address.is_ipv4())
        .map(|address| SocketAddr::new(*address, listen.port()))
        .collect()
}

async fn lookup(at: &HostPort) -> Option<impl Iterator<Item = SocketAddr> + use<>> {
    match tokio::net::lookup_host((at.host.as_str(), at.port)).await {
        Ok(found) => {
            let canonical =
                |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
            Some(found.take(ADDRESSES_MAX).map(canonical).collect::<Vec<_>>().into_iter())
        }
        Err(error) => {
            tracing::warn!(host = at.host, %error, "name not resolved: its former addresses count on");
            None
        }
    }
}

/// Addresses of one name.
const ADDRESSES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn place(host: &str, port: u16, cluster: &str) -> Place {
        Place { at: HostPort { host: host.into(), port }, cluster: cluster.into() }
    }

    #[tokio::test]
    async fn addresses_are_canonical_and_the_first_cluster_has_them() {
        let places = Places {
            api: vec![
                place("::ffff:10.0.0.1", 6443, "a"),
                place("10.0.0.1", 6443, "b"),
                place("fd00::1", 443, "b"),
            ],
            gateway: vec![HostPort { host: "10.0.0.1".into(), port: 6443 }],
            listen: address("127.0.0.9:8443"),
        };
        let found = places.resolve(&Endpoints::default()).await;
        assert_eq!(found.cluster(Some(address("10.0.0.1:6443"))), Some("a"));
        assert_eq!(found.cluster(Some(address("[fd00::1]:443"))), Some("b"));
        assert_eq!(found.cluster(Some(address("10.0.0.1:6444"))), None, "another port");
        assert_eq!(found.gateway, [address("127.0.0.9:8443")]);
        let given = found.addresses(7);
        assert_eq!(given.len(), 3);
        assert!(given.iter().all(|address| address.netns_cookie == 7));
    }

    #[tokio::test]
    async fn a_name_that_is_lost_keeps_its_addresses() {
        let places = Places {
            api: vec![place("no such name", 443, "a")],
            gateway: vec![],
            listen: address("127.0.0.9:8443"),
        };
        let api = HashMap::from([(address("10.0.0.1:443"), "a".to_owned())]);
        let before = Endpoints { api: api.clone(), gateway: vec![] };
        assert_eq!(places.resolve(&before).await.api, api);
        assert!(places.resolve(&Endpoints::default()).await.api.is_empty());
    }

    #[test]
    fn a_listener_on_all_addresses_has_each() {
        let local = [IpAddr::from([127, 0, 0, 1]), "fd00::1".parse().expect("an address")];
        assert_eq!(own(address("0.0.0.0:8443"), &local), [address("127.0.0.1:8443")]);
        assert_eq!(own(address("[::]:8443"), &local).len(), 2);
        assert_eq!(own(address("10.0.0.7:8443"), &local), [address("10.0.0.7:8443")]);
    }
}
