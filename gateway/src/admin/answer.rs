//! One request on the admin socket.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use recorder_user::model::SessionId;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{KilledView, SessionList};
use crate::{
    bounds::{ADMIN_BODY_BYTES_MAX, KILL_REASON_BYTES_MAX},
    gateway::Gateway,
    sessions::KillOrder,
};

type Answer = Result<Response<Full<Bytes>>, (StatusCode, String)>;

/// Never fails: what goes wrong is an answer.
pub(super) async fn answer(
    gateway: &Gateway,
    user: u32,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let answered = match (request.method(), path.strip_prefix("/sessions")) {
        (&Method::GET, Some("")) => Ok(json(StatusCode::OK, &SessionList::of(gateway))),
        (&Method::DELETE, Some(id)) => kill(gateway, user, id, request.into_body()).await,
        (_, Some(_)) => fault(StatusCode::METHOD_NOT_ALLOWED, "GET /sessions, DELETE /sessions/ID"),
        (_, None) => fault(StatusCode::NOT_FOUND, "try GET /sessions"),
    };
    answered.unwrap_or_else(|(status, message)| json(status, &json!({"error": message})))
}

/// The body of a kill.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    why: Option<String>,
}

async fn kill(gateway: &Gateway, user: u32, id: &str, body: Incoming) -> Answer {
    let session: SessionId = match id.strip_prefix('/').map(str::parse) {
        Some(Ok(session)) => session,
        _ => return fault(StatusCode::BAD_REQUEST, "DELETE /sessions/ID, with a session's id"),
    };
    let limited = Limited::new(body, ADMIN_BODY_BYTES_MAX).collect().await;
    let bytes = match limited {
        Ok(body) => body.to_bytes(),
        Err(error) => return fault(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let order: Order = match bytes.is_empty() {
        true => Order::default(),
        false => match serde_json::from_slice(&bytes) {
            Ok(order) => order,
            Err(error) => return fault(StatusCode::BAD_REQUEST, &error.to_string()),
        },
    };
    if order.why.as_ref().is_some_and(|why| why.len() > KILL_REASON_BYTES_MAX) {
        let message = format!("the reason is longer than {KILL_REASON_BYTES_MAX} bytes");
        return fault(StatusCode::BAD_REQUEST, &message);
    }
    let order = KillOrder { by: format!("uid {user}"), why: order.why };
    match gateway.kill(session, &order) {
        Some(streams) => Ok(json(StatusCode::OK, &KilledView { session, streams })),
        None => fault(StatusCode::NOT_FOUND, "no session of this id is open"),
    }
}

fn fault(status: StatusCode, message: &str) -> Answer {
    Err((status, message.to_owned()))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(value).expect("plain values with text keys become JSON");
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
