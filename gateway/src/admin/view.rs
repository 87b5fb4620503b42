//! What the admin socket says, as JSON; the same types on both ends.

use recorder_user::model::{ExchangeId, IncompleteReason, SessionId, StreamRequest, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{gateway::Gateway, live::LiveStream, sessions::Session};

/// The answer to `GET /sessions`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionList {
    /// The open sessions, oldest first.
    pub sessions: Vec<SessionView>,
}

/// An open session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// Its id.
    pub session: SessionId,
    /// Who acts in it.
    pub username: String,
    /// The cluster's name.
    pub cluster: String,
    /// The client's label.
    pub task: Option<String>,
    /// When its first exchange was received.
    pub started: Timestamp,
    /// When it was last used.
    pub last_used: Timestamp,
    /// Why it is incomplete, if it is.
    pub incomplete: Option<IncompleteReason>,
    /// Its live streams, oldest first.
    pub streams: Vec<LiveView>,
}

/// A live stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveView {
    /// The exchange that carries it.
    pub exchange: ExchangeId,
    /// When its request was received.
    pub since: Timestamp,
    /// The verb, as the API server sees it.
    pub verb: String,
    /// The decoded path.
    pub path: String,
    /// What it runs or carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamRequest>,
}

/// The answer to a kill.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KilledView {
    /// The session.
    pub session: SessionId,
    /// How many live streams it had.
    pub streams: usize,
}

impl SessionList {
    /// What is open at this moment.
    pub(super) fn of(gateway: &Gateway) -> Self {
        let sessions = gateway.sessions.all();
        let mut views: Vec<SessionView> =
            sessions.iter().map(|session| SessionView::of(session)).collect();
        views.sort_by_key(|view| view.session);
        gateway.live.each(|stream| {
            let place = views.binary_search_by_key(&stream.session.id(), |view| view.session);
            if let Some(view) = place.ok().and_then(|place| views.get_mut(place)) {
                view.streams.push(LiveView::of(stream));
            }
        });
        for view in &mut views {
            view.streams.sort_by_key(|stream| stream.since);
        }
        views.sort_by_key(|view| view.started);
        Self { sessions: views }
    }
}

impl SessionView {
    fn of(session: &Session) -> Self {
        let key = session.key();
        Self {
            session: session.id(),
            username: session.principal().username.clone(),
            cluster: key.cluster.clone(),
            task: key.task.clone(),
            started: session.opened(),
            last_used: session.last_used(),
            incomplete: session.incomplete(),
            streams: Vec::new(),
        }
    }
}

impl LiveView {
    fn of(stream: &LiveStream) -> Self {
        Self {
            exchange: stream.exchange,
            since: stream.since,
            verb: stream.info.verb.clone(),
            path: stream.info.path.clone(),
            stream: stream.stream.as_deref().cloned(),
        }
    }
}
