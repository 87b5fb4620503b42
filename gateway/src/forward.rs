//! Phase forward: the request goes to the API server under the gateway's credential, for the principal,
//! and the response comes back through the tap.

use std::sync::Arc;

use http::{HeaderMap, Method, Request, Response, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use recorder_user::{
    model::{Direction, Ending},
    redact::{self, BodyPlan},
};

use crate::{
    body::Body,
    gateway::Gateway,
    headers::{self, Provenance},
    open::Opened,
    refuse::Refused,
    settle::Exchange,
    tap::{Cut, Live, Recording, RequestBody, RequestCut, ResponseTap, lock},
    upstream::{Class, Lease, SendError},
};

/// Sends the request, and gives the response as its head arrives.
pub async fn forward(gateway: &Arc<Gateway>, mut opened: Opened) -> Response<Body> {
    let request = match request(gateway, &mut opened) {
        Ok(request) => request,
        Err(refused) => return answer(opened.exchange, refused, false).await,
    };
    let class = if opened.exchange.is_live() { Class::LongRunning } else { Class::Ordinary };
    opened.exchange.forwarding();
    let again = (request.method().clone(), request.uri().clone(), request.headers().clone());
    let upstream = &opened.cluster.upstream;
    let mut sent = upstream.send(request, class).await;
    if let Err(SendError::NotProcessed(why)) = &sent
        && let Some(request) = repeat(&opened, again)
    {
        tracing::debug!(exchange = %opened.id, why, "sent again: the API server did not process it");
        sent = upstream.send(request, class).await;
    }
    match sent {
        Ok((response, lease)) => respond(gateway, opened, response, lease).await,
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

fn request(gateway: &Gateway, opened: &mut Opened) -> Result<Request<RequestBody>, Refused> {
    let cluster = &opened.cluster;
    let internal = |why: String| Refused::new("forward", 500, "InternalError", why);
    let uri = cluster
        .upstream
        .uri(&opened.target)
        .map_err(|error| internal(format!("the path cannot be forwarded: {error}")))?;
    let credential = cluster.upstream.credential();
    let mut fields = headers::end_to_end(&opened.headers);
    fields.remove(header::HOST);
    let provenance = Provenance {
        exchange: opened.id,
        session: opened.exchange.session().id(),
        task: opened.task.as_deref(),
        gateway: &gateway.id,
        peer: opened.peer,
    };
    headers::identify(&mut fields, &opened.acting, &provenance, credential.as_ref())?;
    let body = std::mem::replace(&mut opened.body, RequestBody::Own(None));
    let mut request = Request::new(body);
    *request.method_mut() = opened.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = fields;
    Ok(request)
}

/// The same request again: without a body, or with one that passed whole and was kept.
fn repeat(
    opened: &Opened,
    (method, uri, headers): (Method, http::Uri, HeaderMap),
) -> Option<Request<RequestBody>> {
    let body = lock(opened.exchange.shared()).replay()?;
    let mut request = Request::new(RequestBody::Own((!body.is_empty()).then_some(body)));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Some(request)
}

/// Settles an exchange that the gateway answers itself after all.
async fn answer(mut exchange: Box<Exchange>, refused: Refused, sent: bool) -> Response<Body> {
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

async fn respond(
    gateway: &Gateway,
    mut opened: Opened,
    response: Response<Incoming>,
    lease: Lease,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    headers::strip_response(&mut parts.headers);
    lease.connection().carries(Some(opened.exchange.session().id()));
    let head = redact::response_head(parts.status.as_u16(), &parts.headers);
    let plan = BodyPlan::response(&opened.info, &opened.head, &head, &opened.obligations);
    let content_type = head.header("content-type").map(str::to_owned);
    opened.exchange.answered(lease, head);
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
    // A live stream ends when its token does; the leeway is for clocks of new requests.
    let expires = opened.identity.token.expires.unwrap_or(opened.identity.expires);
    let cut = || Cut::new(Some(expires), &gateway.stop);
    let live = live.then(|| Live::new(cut(), opened.info.verb == "watch", content_type.as_deref()));
    let tap = ResponseTap::new(body, gateway.recorder.clone(), live, opened.exchange);
    Response::from_parts(parts, Body::Tapped(Box::new(tap)))
}
