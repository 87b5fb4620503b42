//! Phase forward: the request goes to the API server under the gateway's credential, for the principal,
//! and the response comes back through the tap.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderMap, Method, Request, Response, Uri, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use recorder_user::{
    model::{Direction, Ending},
    redact::{self, BodyPlan},
};

use crate::{
    body::Body,
    bounds::FORWARD_TRIES,
    gateway::Gateway,
    headers::{self, Provenance},
    open::Opened,
    passage::Passage,
    refuse::Refused,
    settle::Exchange,
    tap::{Cut, Live, Recording, RequestBody, RequestCut, ResponseTap, Returned, Shared, lock},
    upgrade,
    upstream::{Class, Lease, SendError},
};

/// How long an unfinished body may take to come back from a connection that let go of it.
const RETURN_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends the request, and gives the response as its head arrives.
pub async fn forward(gateway: &Arc<Gateway>, mut opened: Opened) -> Response<Body> {
    if let Some(asking) = opened.upgrade.take() {
        return upgrade::forward(gateway, opened, asking).await;
    }
    let head = match head(gateway, &opened, &opened.target) {
        Ok(head) => head,
        Err(refused) => return answer(opened.exchange, refused, false).await,
    };
    let class = if opened.exchange.is_live() { Class::LongRunning } else { Class::Ordinary };
    opened.exchange.forwarding();
    let upstream = &opened.cluster.upstream;
    let (body, mut returned) = match opened.tap.take() {
        Some(tap) => {
            let (body, returned) = RequestBody::lend(tap, VecDeque::new());
            (body, Some(returned))
        }
        None => (RequestBody::Own(None), None),
    };
    let mut sent = upstream.send(head.request(body), class).await;
    for _ in 1..FORWARD_TRIES {
        let Err(SendError::NotProcessed(why)) = &sent else { break };
        tracing::debug!(exchange = %opened.id, why, "sent again: the API server did not process it");
        let Some(body) = again(opened.exchange.shared(), &mut returned).await else { break };
        sent = upstream.send(head.request(body), class).await;
    }
    match sent {
        Ok((response, lease, passage)) => {
            respond(gateway, opened, response, passage, Some(lease)).await
        }
        Err(error) => {
            let sent = matches!(error, SendError::Lost(_));
            let refused = match lock(opened.exchange.shared()).request_cut {
                Some(RequestCut::Recorder) => Refused::recorder_failed(),
                _ => Refused::upstream(&opened.cluster.name, &error.to_string()),
            };
            gateway.metrics.upstream_failed(&opened.cluster.name);
            answer(opened.exchange, refused, sent).await
        }
    }
}

/// A request without its body, which may have to be sent more than once.
pub struct Head {
    method: Method,
    uri: Uri,
    /// Without hop-by-hop fields, with our credential and the principal's identity.
    pub headers: HeaderMap,
}

impl Head {
    /// The request with this body.
    pub fn request<B>(&self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        self.method.clone_into(request.method_mut());
        self.uri.clone_into(request.uri_mut());
        *request.version_mut() = Version::HTTP_2;
        self.headers.clone_into(request.headers_mut());
        request
    }
}

/// The head for the API server, for `target` of it.
///
/// # Errors
/// When target or identity cannot be written.
pub fn head(gateway: &Gateway, opened: &Opened, target: &str) -> Result<Head, Refused> {
    let upstream = &opened.cluster.upstream;
    let uri = upstream.uri(target).map_err(|error| {
        let why = format!("the path cannot be forwarded: {error}");
        Refused::new("forward", 500, "InternalError", why)
    })?;
    let mut headers = headers::end_to_end(&opened.headers);
    headers.remove(header::HOST);
    let provenance = Provenance {
        exchange: opened.id,
        session: opened.exchange.session().id(),
        task: opened.task.as_deref(),
        gateway: &gateway.id,
        peer: opened.peer,
    };
    let credential = upstream.credential();
    headers::identify(&mut headers, &opened.acting, &provenance, credential.as_ref())?;
    Ok(Head { method: opened.method.clone(), uri, headers })
}

/// The body once more: whole where it passed and was kept, else what passed and then the rest.
async fn again(shared: &Mutex<Shared>, returned: &mut Option<Returned>) -> Option<RequestBody> {
    if let Some(whole) = lock(shared).replay() {
        return Some(RequestBody::Own((!whole.is_empty()).then_some(whole)));
    }
    let tap = tokio::time::timeout(RETURN_TIMEOUT, returned.take()?).await.ok()?.ok()?;
    let sent = tap.sent()?;
    let (body, next) = RequestBody::lend(tap, sent);
    *returned = Some(next);
    Some(body)
}

/// Settles an exchange that the gateway answers itself after all.
pub async fn answer(mut exchange: Box<Exchange>, refused: Refused, sent: bool) -> Response<Body> {
    exchange.answered_by_gateway(refused.status, sent);
    let ending = match refused.phase {
        "open" => Ending::RecorderFailed,
        _ => Ending::UpstreamLost,
    };
    if let Err(error) = exchange.settle(ending).await {
        tracing::error!(%error, "outcome not recorded");
        return Refused::recorder_failed().response();
    }
    refused.response()
}

/// Gives the API server's answer through the tap.
pub async fn respond(
    gateway: &Gateway,
    mut opened: Opened,
    response: Response<Incoming>,
    passage: Passage,
    lease: Option<Lease>,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    headers::strip_response(&mut parts.headers);
    let head = redact::response_head(parts.status.as_u16(), &parts.headers);
    let plan = BodyPlan::response(&opened.info, &opened.head, &head, &opened.obligations);
    let content_type = head.header("content-type").map(str::to_owned);
    opened.exchange.answered(passage, lease, head);
    let bodyless = body.is_end_stream()
        || opened.method == Method::HEAD
        || matches!(parts.status.as_u16(), 204 | 304);
    parts.version = Version::HTTP_11;
    if bodyless {
        let none = Recording::empty(opened.id, Direction::Response, opened.received);
        lock(opened.exchange.shared()).response = Some(none);
        return match opened.exchange.settle(Ending::Finished).await {
            Ok(()) => Response::from_parts(parts, Body::empty()),
            Err(error) => {
                tracing::error!(exchange = %opened.id, %error, "outcome not recorded");
                Refused::recorder_failed().response()
            }
        };
    }
    let (id, received, key) = (opened.id, opened.received, &gateway.redact_key);
    let recording = Recording::new(id, Direction::Response, received, plan, key);
    lock(opened.exchange.shared()).response = Some(recording);
    let live = opened.exchange.is_live() && parts.status.is_success();
    let live = live.then(|| gateway.live.register(opened.live_stream()));
    // A live stream ends when its token does; the leeway is for clocks of new requests.
    let expires = opened.identity.token.expires.unwrap_or(opened.identity.expires);
    let live = live.map(|guard| {
        let cut = Cut::new(Some(expires), &gateway.stop, guard);
        Live::new(cut, opened.info.verb == "watch", content_type.as_deref())
    });
    let tap = ResponseTap::new(body, gateway.recorder.clone(), live, opened.exchange);
    Response::from_parts(parts, Body::Tapped(Box::new(tap)))
}
