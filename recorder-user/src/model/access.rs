//! That somebody read recordings.

use serde::{Deserialize, Serialize};

use super::{AccessId, ExchangeId, SessionId, Timestamp};

/// Somebody on the gateway's machine read recordings, and the gateway knew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordingRead {
    /// Names this access.
    pub access: AccessId,
    /// When it was announced: before anything was read.
    pub time: Timestamp,
    /// Who.
    pub by: LocalUser,
    /// How the content was read.
    pub through: Through,
    /// The verb of the `recorder` command, such as `show`.
    pub verb: String,
    /// What was asked for.
    pub what: AccessScope,
}

/// A user of the gateway's machine, as the kernel told of the other end of the socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalUser {
    /// The user's number.
    pub uid: u32,
    /// The name in `/etc/passwd`; none when it has none there.
    pub user: Option<String>,
    /// The process that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
}

/// How recordings were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Through {
    /// Only rows, which the gateway gave.
    Socket,
    /// From the files of the store, which the reader said beforehand.
    Files,
    /// A way that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Through {
    /// The word as recorded.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Files => "files",
            Self::Unknown => "unknown",
        }
    }
}

/// What was asked for: sessions and exchanges by id, or those that a query selects; all three empty is
/// everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessScope {
    /// These sessions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<SessionId>,
    /// These exchanges.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exchanges: Vec<ExchangeId>,
    /// What this selects, as the query of a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_writers_words_are_read() {
        let text = r#"{"access":"0190f3c2aaaabbbbccccddddeeee1234","time":"2026-09-21T14:13:20.000000Z",
            "by":{"uid":0,"user":null,"tty":"pts/1"},"through":"web","verb":"browse","what":{"pages":[1]}}"#;
        let read: RecordingRead = serde_json::from_str(text).expect("understood");
        assert_eq!((read.through, read.verb.as_str()), (Through::Unknown, "browse"));
        assert_eq!(read.what, AccessScope::default());
    }
}
