//! `gateway sessions` and `gateway kill`: the other end of the admin socket.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use recorder_user::{model::SessionId, socket};
use serde_json::{Value, json};

use super::{KilledView, LiveView, SessionList};
use crate::{bounds::ADMIN_TIMEOUT, config::Config};

/// An answer may have this many bytes: [`crate::bounds::SESSIONS_MAX`] sessions and their streams.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// The open sessions as text: a table, or with `json` one object a line.
///
/// # Errors
/// When the gateway does not answer.
pub fn sessions(config: &Config, json: bool) -> anyhow::Result<String> {
    let (status, body) = ask(&config.admin.socket, Method::GET, "/sessions", None)?;
    if status != StatusCode::OK {
        bail!("the gateway answers {status}: {}", said(&body));
    }
    let list: SessionList = serde_json::from_slice(&body).context("read the answer")?;
    if json {
        let lines = list.sessions.iter().map(serde_json::to_string);
        return Ok(lines.map(|line| line.map(|line| line + "\n")).collect::<Result<_, _>>()?);
    }
    Ok(table(&list))
}

/// Kills a session; what it says, and whether there was one.
///
/// # Errors
/// When the gateway does not answer.
pub fn kill(
    config: &Config,
    session: SessionId,
    why: Option<&str>,
) -> anyhow::Result<(String, bool)> {
    let order = json!({"why": why}).to_string();
    let path = format!("/sessions/{session}");
    let (status, body) = ask(&config.admin.socket, Method::DELETE, &path, Some(order))?;
    match status {
        StatusCode::OK => {
            let killed: KilledView = serde_json::from_slice(&body).context("read the answer")?;
            Ok((
                format!("killed {}, live streams ended: {}\n", killed.session, killed.streams),
                true,
            ))
        }
        StatusCode::NOT_FOUND => Ok((format!("{}\n", said(&body)), false)),
        status => bail!("the gateway answers {status}: {}", said(&body)),
    }
}

/// Users, clusters, tasks and paths hold no control characters: the gateway refuses them. Commands may, and are
/// only in the JSON.
fn table(list: &SessionList) -> String {
    let mut text = String::new();
    for session in &list.sessions {
        let task = session.task.as_deref().unwrap_or("-");
        let state = session.incomplete.map_or("open", |reason| reason.as_str());
        let (id, user, cluster) = (session.session, &session.username, &session.cluster);
        writeln!(text, "{id}  {user}  {cluster}  {task}  {state}  since {}", session.started)
            .expect("a String takes everything");
        for stream in &session.streams {
            let LiveView { verb, path, since, .. } = stream;
            writeln!(text, "  {verb} {path}  since {since}").expect("a String takes everything");
        }
    }
    if text.is_empty() { "no session is open\n".to_owned() } else { text }
}

fn said(body: &[u8]) -> String {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let error = value.as_ref().and_then(|value| value["error"].as_str());
    error.unwrap_or("something that is not understood").to_owned()
}

fn ask(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<String>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let body = Bytes::from(body.unwrap_or_default());
    let request = Request::builder().method(method).uri(path).body(body)?;
    let answer =
        socket::ask(socket, request, ADMIN_TIMEOUT, ANSWER_BYTES_MAX).with_context(|| {
            format!("ask {}: does the gateway run, and are you its user or root?", socket.display())
        })?;
    Ok((answer.status(), answer.into_body()))
}
