//! What an upgraded connection was asked for, and how it went.

use serde::{Deserialize, Serialize};

/// What a request asks to run or to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamKind {
    /// `pods/exec`.
    Exec,
    /// `pods/attach`.
    Attach,
    /// `pods/portforward`.
    PortForward,
    /// A proxied connection that was upgraded (`pods/proxy`, `services/proxy`, `nodes/proxy`).
    Proxy,
    /// Any other upgraded connection (aggregated API servers).
    Other,
}

impl StreamKind {
    /// The word as written in records and listings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Proxy => "proxy",
            Self::Other => "other",
        }
    }
}

/// The query of an exec, attach or port-forward as the API server reads it: the first value of a parameter
/// that is repeated, except `command` and `ports`, which are lists; `0` and `false` are false, everything
/// else that is present is true.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamRequest {
    /// What is asked.
    pub kind: StreamKind,
    /// The container; none where the client leaves it to the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The argument vector of an exec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Whether stdin is carried.
    #[serde(default)]
    pub stdin: bool,
    /// Whether stdout is carried.
    #[serde(default)]
    pub stdout: bool,
    /// Whether stderr is carried.
    #[serde(default)]
    pub stderr: bool,
    /// Whether there is a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Ports of a port-forward, where the query names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
}

/// What the gateway saw of an upgraded connection while it carried it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamFacts {
    /// The `Upgrade` that both ends agreed on: `spdy/3.1`, `websocket`, or whatever is spoken behind a proxy.
    pub transport: String,
    /// The subprotocol that both ends agreed on; empty where none was named.
    pub protocol: String,
    /// The exit code of a command that came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What the error channel said last, shortened.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Bytes of stdin that were replaced by zeros in the record (`@stdin("sizes")`).
    #[serde(default)]
    pub stdin_masked_bytes: u64,
    /// Why the bytes could not be decoded from some point on; they are kept raw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecodable: Option<String>,
}
