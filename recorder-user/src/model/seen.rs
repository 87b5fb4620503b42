//! Connections that are not the gateway's, as the witness saw them: who opened them, where to, how much passed.

use serde::{Deserialize, Serialize};

use super::{SessionId, Timestamp};

/// What a connection is to the session that it is recorded with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Relation {
    /// Somebody on this node spoke with the API server without the gateway. The session is of kind `bypass`.
    #[default]
    Direct,
    /// Somebody else moved bytes through a socket of the gateway. The session is of kind `bypass`.
    Intruder,
    /// Somebody else bound, or listens on, the gateway's port. The session is of kind `bypass`.
    Port,
    /// The other end of a connection that the session came through: the process that is the client.
    Client,
    /// Where else the client's cgroup connected to while the session was open.
    Egress,
}

impl Relation {
    /// The word as written in records and listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Intruder => "intruder",
            Self::Port => "port",
            Self::Client => "client",
            Self::Egress => "egress",
        }
    }
}

/// How a connection came to be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeenBy {
    /// The kernel told of it when it was opened.
    #[default]
    Hooks,
    /// It was in the kernel's list of sockets, which is read at the start and at intervals: its beginning
    /// and its process are what could be found then.
    SocketList,
}

/// A process, as far as it could be looked at. What is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessFacts {
    /// Its id in the initial pid namespace; 0 when unknown.
    pub pid: u32,
    /// Its command name: the process chooses it.
    pub comm: String,
    /// Its executable, as its own mount namespace names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// The user that it runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}

/// A pod's container, as the node's cgroups and log directories tell. What is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodFacts {
    /// The pod's uid; of a static pod the hash of its manifest.
    pub uid: String,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The container's name in the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The container's id at the runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
}

/// Who is behind a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The process.
    pub process: ProcessFacts,
    /// The number of its cgroup; 0 when unknown.
    pub cgroup_id: u64,
    /// The path of its cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The pod, where the cgroup is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodFacts>,
}

/// A connection that is not the gateway's, or several of one cgroup. What was written later of one connection takes the
/// place of what was written before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionSeen {
    /// The session that it is recorded with.
    pub session: SessionId,
    /// When this was written.
    pub time: Timestamp,
    /// What it is to that session.
    pub relation: Relation,
    /// How it came to be known.
    pub seen_by: SeenBy,
    /// Who opened it.
    pub origin: Origin,
    /// `SO_COOKIE` of its socket; 0 when unknown.
    pub cookie: u64,
    /// Address and port of this end; none before it was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<String>,
    /// Address and port of the other end; none for a port that was bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// When it was opened; none when that was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Timestamp>,
    /// When it was over; none while it goes on, or when that was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Bytes that the process sent; none when nobody counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
    /// Bytes that the process received; none when nobody counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_bytes: Option<u64>,
    /// How many connections this stands for: more than one where they came too fast to be recorded one by one.
    pub connections: u64,
    /// Whether this connection was on record with the session before.
    #[serde(default)]
    pub again: bool,
    /// What else to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}
