//! The configuration: one YAML file, checked as a whole before anything starts.
//!
//! The text becomes a loose tree first, and each section of it a DTO that refuses unknown keys, so
//! that a mistake in one section does not hide the mistakes in the others: [`Config::load`] reports
//! all problems at once, each with its key path and what to do. What comes out is typed and needs
//! no further checks. Secrets are never part of a [`Config`]: it holds the paths to them, and
//! [`ClusterAccess`] reads them when an upstream is set up.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use recorder_user::store::{IndexBackend, RetentionRules, encryption::KeySource};

use crate::upgrade::Limits;

mod archive;
mod authentication;
mod certificates;
mod claims;
mod clusters;
mod credential;
mod kubeconfig;
mod masked;
mod problem;
mod raw;
mod units;
mod validate;
mod witness;

#[cfg(test)]
mod tests;

pub use archive::{Archive, ArchiveCredentials};
pub use authentication::{
    Authentication, ExtraMapping, Issuer, KeyOptions, PrefixedClaim, RequiredClaim,
};
pub use certificates::Certificates;
pub use clusters::{Cluster, Credential, Server};
pub(crate) use credential::tls_builder;
pub use credential::{ClusterAccess, LoadCredentialError, TokenSource};
pub use problem::{LoadConfigError, Problem};
pub use witness::{Bypass, HostPaths, HostPort, Witness};

/// The validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from.
    pub file: PathBuf,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The gateway's own certificate and key.
    pub tls: ServerTls,
    /// The listener for `/livez`, `/readyz` and `/metrics`; none when not configured.
    pub health: Option<Health>,
    /// Where operators on this machine reach the gateway.
    pub admin: Admin,
    /// Threads that carry requests; those that record, index and witness are besides.
    pub threads: usize,
    /// Where and how recordings are kept.
    pub store: Store,
    /// Where finished segments are copied to; none when not configured.
    pub archive: Option<Archive>,
    /// The clusters, at least one.
    pub clusters: Vec<Cluster>,
    /// Whose tokens are believed.
    pub authentication: Authentication,
    /// The policy sets.
    pub policy: PolicyDirectories,
    /// How connections are witnessed, and what else is looked at on the gateway's node.
    pub witness: Witness,
    /// How sessions end.
    pub sessions: Sessions,
}

/// The gateway's certificate and key, as PEM files; reloaded when the files change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The certificate chain, leaf first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The health listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Where it listens; plain HTTP.
    pub listen: SocketAddr,
}

/// Where operators on this machine reach the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The Unix socket.
    pub socket: PathBuf,
}

/// Where and how recordings are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// The directory of segments and index; made when it is not there.
    pub directory: PathBuf,
    /// A segment is sealed at this size.
    pub segment_bytes_max: u64,
    /// Bytes of records that may wait for the writer before requests wait.
    pub queue_bytes_max: usize,
    /// How long a written record may wait for the disk.
    pub sync_interval: Duration,
    /// Below so many free bytes nothing new is forwarded; none for the default.
    pub free_floor_bytes: Option<u64>,
    /// The database of the index.
    pub index: IndexBackend,
    /// A segment is sealed at this age.
    pub segment_age_max: Duration,
    /// The operator's key, where the store is to be encrypted.
    pub encryption: Option<KeySource>,
    /// Whether it is put on record who reads recordings through the admin socket.
    pub record_access: bool,
    /// How long records may stay unsigned.
    pub checkpoint_interval: Duration,
    /// What is deleted; none where everything is kept.
    pub retention: Option<Retention>,
}

/// What is kept for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The rules.
    pub rules: RetentionRules,
    /// How often it is looked what they do not keep.
    pub interval: Duration,
}

/// The directories of Cedar policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDirectories {
    /// May a request pass.
    pub access: PathBuf,
    /// How much of it is kept; none means that everything is kept in full.
    pub recording: Option<PathBuf>,
}

/// How connections are witnessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WitnessMode {
    /// eBPF where possible, else `TCP_INFO`. The default: it always starts.
    #[default]
    Auto,
    /// eBPF, or the gateway does not start.
    Ebpf,
    /// `TCP_INFO` only.
    TcpInfo,
    /// None: every account says `unwitnessed`.
    Off,
}

impl WitnessMode {
    /// The word as written in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ebpf => "ebpf",
            Self::TcpInfo => "tcp-info",
            Self::Off => "off",
        }
    }
}

/// How sessions end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// A session without requests and streams for this long has ended.
    pub idle: Duration,
    /// How long an exec, attach or port-forward may be silent, and may last.
    pub streams: Limits,
}

impl Config {
    /// Reads and checks the configuration file.
    ///
    /// # Errors
    /// Names the file that cannot be read, or every problem found in it.
    pub fn load(path: &Path) -> Result<Self, LoadConfigError> {
        let length = std::fs::metadata(path)
            .map_err(|source| LoadConfigError::Read { path: path.into(), source })?
            .len();
        if length > FILE_BYTES_MAX {
            return Err(LoadConfigError::invalid(
                path,
                "",
                format!("the file has {length} bytes, more than {FILE_BYTES_MAX}"),
            ));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|source| LoadConfigError::Read { path: path.into(), source })?;
        validate::config(&text, path, &|name| std::env::var(name).ok())
    }

    /// The cluster of this name, or the default cluster for none.
    #[must_use]
    pub fn cluster(&self, name: Option<&str>) -> Option<&Cluster> {
        match name {
            Some(name) => self.clusters.iter().find(|cluster| cluster.name == name),
            None => self.clusters.iter().find(|cluster| cluster.default),
        }
    }

    /// The effective configuration as YAML, defaults filled in, paths absolute where the file's own
    /// path is. It shows where secrets are, never what they are.
    #[must_use]
    pub fn masked(&self) -> String {
        masked::text(self)
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

/// A larger file is refused: a configuration that long is a mistake, or an attempt to exhaust
/// memory.
const FILE_BYTES_MAX: u64 = 1 << 20;
