//! Deletion and legal holds, on request.

use std::sync::Arc;

use http::StatusCode;
use recorder_user::{
    model::HoldId,
    socket::{HoldRequest, PruneRequest},
    store::{PruneError, PruneOrder, Retention},
};
use serde::Serialize;

use super::answer::{Answer, fault, json};
use crate::{bounds::HOLD_WORD_BYTES_MAX, gateway::Gateway};

/// Deletes, or says what would go.
pub(super) async fn prune(gateway: &Gateway, user: u32, body: &[u8]) -> Answer {
    let PruneRequest { rules, dry_run } = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return fault(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let order = PruneOrder { rules, who: Some(who(user)), dry_run };
    blocking(gateway, move |retention| retention.prune(&order)).await
}

/// Adds a hold.
pub(super) async fn hold(gateway: &Gateway, user: u32, body: &[u8]) -> Answer {
    let HoldRequest { on, reason } = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return fault(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let is_long = |word: &str| word.is_empty() || word.len() > HOLD_WORD_BYTES_MAX;
    if is_long(&reason) || on.name().is_some_and(is_long) {
        let message = format!("reason and name have 1 to {HOLD_WORD_BYTES_MAX} bytes");
        return fault(StatusCode::BAD_REQUEST, &message);
    }
    blocking(gateway, move |retention| retention.add_hold(on, reason, who(user))).await
}

/// Ends a hold.
pub(super) async fn release(gateway: &Gateway, user: u32, id: &str) -> Answer {
    let Ok(hold) = id.parse::<HoldId>() else {
        return fault(StatusCode::BAD_REQUEST, "DELETE /holds/ID, with a hold's id");
    };
    blocking(gateway, move |retention| retention.release_hold(hold, who(user))).await
}

// Cancel-safe: once begun the work goes on to its end, and the gateway waits for it before it stops.
async fn blocking<T: Serialize + Send + 'static>(
    gateway: &Gateway,
    work: impl FnOnce(&Retention) -> Result<T, PruneError> + Send + 'static,
) -> Answer {
    let retention = Arc::clone(&gateway.retention);
    match gateway.tasks.spawn_blocking(move || work(&retention)).await {
        Ok(Ok(done)) => Ok(json(StatusCode::OK, &done)),
        Ok(Err(error @ PruneError::NoHold(_))) => fault(StatusCode::NOT_FOUND, &error.to_string()),
        Ok(Err(error)) => {
            let said = format!("{:#}", anyhow::Error::from(error));
            fault(StatusCode::INTERNAL_SERVER_ERROR, &said)
        }
        Err(error) => fault(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn who(user: u32) -> String {
    format!("uid {user}")
}
