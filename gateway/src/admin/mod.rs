//! The local admin socket: what is open, and the end of it; and rows of what is recorded. HTTP/1.1 and JSON over a
//! Unix socket that only root and the gateway's own user may use; `gateway sessions`, `gateway kill` and
//! `recorder` are its clients.
//!
//! | request | answer |
//! |---|---|
//! | `GET /sessions` | the open sessions with their live streams |
//! | `DELETE /sessions/ID`, with `{"why": "…"}` or nothing | kills the session; 404 when none of this id is open |
//! | `POST /accesses`, `GET /rows…`, `POST /prune`, `POST /holds`, `DELETE /holds/ID` | see [`recorder_user::socket`] |

mod access;
mod answer;
pub mod client;
mod keeper;
mod rows;
mod socket;
mod users;
mod view;

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{UnixStream, unix::UCred},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

pub use self::{
    access::Accesses,
    socket::{AdminSocket, OpenSocketError},
    view::{KilledView, LiveView, SessionList, SessionView},
};
use crate::{
    bounds::{ADMIN_CONNECTIONS_MAX, ADMIN_LIFETIME, HEAD_TIMEOUT},
    gateway::Gateway,
};

/// Answers on `socket` until `stop`.
pub async fn serve(gateway: Arc<Gateway>, socket: AdminSocket, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            // cancel-safe: a place that is taken and not used is given back, and accept is by its documentation.
            () = stop.cancelled() => return,
            accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, socket.accept().await)
            } => accepted,
        };
        let (Ok(place), Ok((stream, user))) = accepted else {
            tokio::time::sleep(AFTER_ERROR).await;
            continue;
        };
        let (gateway, stop) = (Arc::clone(&gateway), stop.clone());
        gateway.tasks.clone().spawn(async move {
            let _place = place;
            tokio::select! {
                // cancel-safe: an answer may be lost when the gateway stops; what it says is done.
                () = stop.cancelled() => {}
                _ = tokio::time::timeout(ADMIN_LIFETIME, converse(gateway, stream, user)) => {}
            }
        });
    }
}

async fn converse(gateway: Arc<Gateway>, stream: UnixStream, user: UCred) {
    let service = hyper::service::service_fn(move |request| {
        let gateway = Arc::clone(&gateway);
        async move { Ok::<_, Infallible>(answer::answer(&gateway, user, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin connection broke off");
    }
}

/// So that an accept that fails for want of descriptors does not spin.
const AFTER_ERROR: Duration = Duration::from_millis(100);
