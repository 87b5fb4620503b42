//! What the `recorder` command and a running gateway say to each other, over the gateway's Unix socket.
//!
//! A gateway holds the index while it runs, so whoever wants rows asks it; records are read from the segments.
//! HTTP/1.1, a connection for each request. Answers with rows are JSON lines; the last line says where to go on.
//!
//! | request | answer |
//! |---|---|
//! | `GET /rows` | nothing: rows can be had |
//! | `GET /rows/ids?part=DIGITS[&after=EXCHANGE]` | the ids that this is the beginning or end of |
//! | `POST /accesses` with an [`Announcement`] | a [`Welcome`], once the access is on record |
//! | `POST /prune` with a [`PruneRequest`] | what went, or would go: a [`PruneReport`](crate::store::PruneReport) |
//! | `POST /holds` with a [`HoldRequest`] | the legal hold, once it is on record |
//! | `DELETE /holds/ID` | the legal hold as it was released |
//! | `GET /rows/sessions[?after=ID]`, `GET /rows/sessions/ID` | rows of sessions |
//! | `GET /rows/exchanges?…`, `GET /rows/exchanges/ID` | rows of exchanges, see [`question`] |
//!
//! The last two of `/rows` need the id of an access in [`ACCESS_HEADER`]: **no row leaves a gateway before it is on record
//! who reads it**. Every answer carries the version of the rows in [`VERSION_HEADER`]. Ends of different versions
//! do not talk: their rows could differ, and the segments give the same to both.

mod ask;
mod gateway_rows;
mod keeper;
pub mod question;

use serde::{Deserialize, Serialize};

pub use ask::{AskError, ask, short};
pub use gateway_rows::GatewayRows;
pub use keeper::{GatewayKeeper, HoldRequest, PruneRequest};

use crate::model::{AccessId, AccessScope, ExchangeId, SessionId, Through};

/// The header of a request for rows that names its access.
pub const ACCESS_HEADER: &str = "decklog-access";

/// The header of an answer that tells [`crate::store::ROWS_VERSION`].
pub const VERSION_HEADER: &str = "decklog-rows-version";

/// What somebody is about to read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Announcement {
    /// The verb of the `recorder` command.
    pub verb: String,
    /// How the content will be read.
    pub through: Through,
    /// What.
    pub what: AccessScope,
}

/// The answer to an [`Announcement`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// Names the access in requests for rows.
    pub access: AccessId,
}

/// A line of the answer about ids: one of them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdLine {
    /// A session has it.
    Session(SessionId),
    /// An exchange has it.
    Exchange(ExchangeId),
}

/// The last line of an answer with rows.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageEnd<K> {
    /// What to go on after; null when there is no more.
    pub next: Option<K>,
}
