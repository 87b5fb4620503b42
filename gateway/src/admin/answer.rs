//! One request on the admin socket.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use recorder_user::{model::SessionId, socket::VERSION_HEADER, store::ROWS_VERSION};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::unix::UCred;

use super::{KilledView, SessionList, access, keeper, rows};
use crate::{
    bounds::{ADMIN_BODY_BYTES_MAX, ADMIN_LIFETIME, ADMIN_TIMEOUT, KILL_REASON_BYTES_MAX},
    gateway::Gateway,
    sessions::KillOrder,
};

/// An answer, or a status and what to say.
pub(super) type Answer = Result<Response<Full<Bytes>>, (StatusCode, String)>;

/// Never fails: what goes wrong is an answer.
pub(super) async fn answer(
    gateway: &Gateway,
    user: UCred,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let patience =
        if matches!(request.uri().path(), "/prune") || request.uri().path().starts_with("/holds") {
            ADMIN_LIFETIME
        } else {
            ADMIN_TIMEOUT
        };
    let late = || fault(StatusCode::GATEWAY_TIMEOUT, "there is no answer in time");
    let answered = tokio::time::timeout(patience, route(gateway, user, request)).await;
    let answered = answered.unwrap_or_else(|_| late());
    let mut response =
        answered.unwrap_or_else(|(status, message)| json(status, &json!({"error": message})));
    response.headers_mut().insert(VERSION_HEADER, HeaderValue::from(ROWS_VERSION));
    response
}

async fn route(gateway: &Gateway, user: UCred, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    let rows = path.strip_prefix("/rows/");
    match (&head.method, path, path.strip_prefix("/sessions"), rows) {
        (&Method::GET, "/sessions", ..) => Ok(json(StatusCode::OK, &SessionList::of(gateway))),
        (&Method::DELETE, _, Some(id), _) => kill(gateway, user.uid(), id, body).await,
        (&Method::POST, "/accesses", ..) => {
            access::announce(gateway, user, &read(body).await?).await
        }
        (&Method::POST, "/prune", ..) => {
            keeper::prune(gateway, user.uid(), &read(body).await?).await
        }
        (&Method::POST, "/holds", ..) => {
            keeper::hold(gateway, user.uid(), &read(body).await?).await
        }
        (&Method::DELETE, path, ..) if path.starts_with("/holds/") => {
            let id = path.strip_prefix("/holds/").unwrap_or_default();
            keeper::release(gateway, user.uid(), id).await
        }
        (&Method::GET, "/rows", ..) => rows::ready(&gateway.rows).await,
        (&Method::GET, "/rows/ids", ..) => rows::ids(&gateway.rows, query).await,
        (&Method::GET, _, _, Some(path)) => {
            if !access::is_announced(gateway, user, &head.headers) {
                return fault(StatusCode::FORBIDDEN, "say what for first: POST /accesses");
            }
            rows::answer(&gateway.rows, path, query).await
        }
        (_, _, Some(_), _) => {
            fault(StatusCode::METHOD_NOT_ALLOWED, "GET /sessions, DELETE /sessions/ID")
        }
        (_, "/accesses" | "/rows", ..) | (_, _, _, Some(_)) => {
            fault(StatusCode::METHOD_NOT_ALLOWED, "POST /accesses, GET /rows")
        }
        _ => fault(StatusCode::NOT_FOUND, "try GET /sessions"),
    }
}

async fn read(body: Incoming) -> Result<Bytes, (StatusCode, String)> {
    let limited = Limited::new(body, ADMIN_BODY_BYTES_MAX).collect().await;
    limited
        .map(|body| body.to_bytes())
        .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
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
    let bytes = read(body).await?;
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

pub(super) fn fault(status: StatusCode, message: &str) -> Answer {
    Err((status, message.to_owned()))
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(value).expect("plain values with text keys become JSON");
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
