//! Deletion and legal holds, asked of the gateway that writes the store.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{AskError, ask};
use crate::{
    model::{HoldChanged, HoldId, HoldOn},
    store::{PruneReport, RetentionRules},
};

/// What is to be deleted now.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PruneRequest {
    /// What is kept.
    pub rules: RetentionRules,
    /// Whether only to say what would go.
    #[serde(default)]
    pub dry_run: bool,
}

/// A legal hold that is wanted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HoldRequest {
    /// On what.
    pub on: HoldOn,
    /// Why.
    pub reason: String,
}

/// Asks a gateway to delete, and to keep holds.
pub struct GatewayKeeper {
    socket: PathBuf,
}

impl GatewayKeeper {
    /// The gateway on this socket; nothing is asked yet.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Deletes what the rules do not keep, or says what would go.
    ///
    /// # Errors
    /// When the gateway cannot, or does not answer within an hour; it then goes on.
    pub fn prune(&self, request: PruneRequest) -> Result<PruneReport, AskError> {
        self.send(Method::POST, "/prune", serde_json::to_vec(&request)?.into())
    }

    /// Adds a legal hold.
    ///
    /// # Errors
    /// When the gateway cannot.
    pub fn hold(&self, request: &HoldRequest) -> Result<HoldChanged, AskError> {
        self.send(Method::POST, "/holds", serde_json::to_vec(request)?.into())
    }

    /// Releases a legal hold.
    ///
    /// # Errors
    /// When the gateway cannot, or there is none of this id in force.
    pub fn release(&self, hold: HoldId) -> Result<HoldChanged, AskError> {
        self.send(Method::DELETE, &format!("/holds/{hold}"), Bytes::new())
    }

    fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, AskError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        let uri = http::Uri::try_from(path);
        *request.uri_mut() = uri.expect("a path of letters and digits");
        let answer = ask(&self.socket, request, PATIENCE, ANSWER_BYTES_MAX)?;
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(serde_json::from_slice(answer.body())?);
        }
        let said: Option<Said> = serde_json::from_slice(answer.body()).ok();
        let said = said.map_or_else(|| "nothing that is understood".into(), |said| said.error);
        Err(AskError::Refused { status, said })
    }
}

/// What the gateway says when it cannot.
#[derive(Deserialize)]
struct Said {
    error: String,
}

/// A hold waits for a deletion that is under way.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
/// Lists of segments, sessions and holds.
const ANSWER_BYTES_MAX: usize = 64 << 20;
