//! Phase forward of a request that asks for an upgrade: over a connection of its own, at most once, and
//! without a byte of the client's before the API server's 101.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Empty;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use recorder_user::{
    model::{Direction, StdinRecord, StreamFacts, StreamKind, Undecodable},
    redact::{self, BodyPlan},
    wire::stream::{Agreement, Asked, Decoder},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Offer,
    book::{Book, Keep},
    long_target::STAND_IN,
    stream::{self, Carried, Limits},
};
use crate::{
    body::Body,
    bounds::{LONG_TARGETS_MAX, SHORT_TARGET_BYTES_MAX, UPGRADES_MAX},
    forward,
    gateway::Gateway,
    headers,
    open::Opened,
    passage::Passage,
    refuse::Refused,
    tap::{Cut, Recording, lock},
    upstream::SendError,
};

/// All upgraded connections of a gateway.
pub struct Upgrades {
    room: Arc<Semaphore>,
    long_targets: Arc<Semaphore>,
    limits: Limits,
}

impl Upgrades {
    /// With these limits for each.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            room: Arc::new(Semaphore::new(UPGRADES_MAX)),
            long_targets: Arc::new(Semaphore::new(LONG_TARGETS_MAX)),
            limits,
        }
    }

    /// Room for targets that are too long for hyper, before anybody is identified.
    #[must_use]
    pub const fn long_targets(&self) -> &Arc<Semaphore> {
        &self.long_targets
    }

    /// A place for one of a principal that has these.
    ///
    /// # Errors
    /// When all are taken.
    pub fn place(&self, principal: &Arc<Semaphore>) -> Result<Place, Refused> {
        let full = |_| {
            Refused::new(
                "authorize",
                429,
                "TooManyRequests",
                "too many exec, attach and port-forward streams are open: end some, or try later",
            )
        };
        let of_principal = Arc::clone(principal).try_acquire_owned().map_err(full)?;
        let of_gateway = Arc::clone(&self.room).try_acquire_owned().map_err(full)?;
        Ok(Place { _of_principal: of_principal, _of_gateway: of_gateway })
    }
}

/// One stream's place; dropping it gives it back.
pub struct Place {
    _of_principal: OwnedSemaphorePermit,
    _of_gateway: OwnedSemaphorePermit,
}

/// A request that asks for an upgrade.
pub struct Asking {
    /// What the client asks.
    pub offer: Offer,
    /// The client's connection, once the 101 is written.
    pub client: OnUpgrade,
    /// Its place.
    pub place: Place,
    /// Ports that the query names.
    pub ports: Vec<u16>,
}

/// Sends the request. After a 101 the stream goes on in a task of its own; any other answer goes to the
/// client as it is, and its connection ends with it.
pub async fn forward(gateway: &Arc<Gateway>, mut opened: Opened, asking: Asking) -> Response<Body> {
    let (request, long_target) = match request(gateway, &opened, &asking.offer) {
        Ok(request) => request,
        Err(refused) => return forward::answer(opened.exchange, refused, false).await,
    };
    opened.exchange.forwarding();
    let cluster = Arc::clone(&opened.cluster);
    match cluster.upstream.upgrade(request, long_target).await {
        Ok((response, passage)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            match asking.offer.agreed(response.headers()) {
                Ok(protocol) => switch(gateway, opened, asking, &protocol, response, passage).await,
                Err(why) => {
                    let message = format!(
                        "the API server of cluster {:?} answered an upgrade wrongly: {why}",
                        cluster.name
                    );
                    let refused = Refused::new("forward", 502, "InternalError", message);
                    forward::answer(opened.exchange, refused, true).await
                }
            }
        }
        Ok((response, passage)) => forward::respond(gateway, opened, response, passage, None).await,
        Err(error) => {
            gateway.metrics.upstream_failed(&cluster.name);
            let sent = matches!(error, SendError::Lost(_));
            let refused = Refused::upstream(&cluster.name, &error.to_string());
            forward::answer(opened.exchange, refused, sent).await
        }
    }
}

type Long = Option<String>;

fn request(
    gateway: &Gateway,
    opened: &Opened,
    offer: &Offer,
) -> Result<(Request<Empty<Bytes>>, Long), Refused> {
    let long = opened.target.len() > SHORT_TARGET_BYTES_MAX;
    let target = if long { STAND_IN } else { opened.target.as_str() };
    let mut head = forward::head(gateway, opened, target)?;
    offer.ask(&mut head.headers);
    let long_target = long.then(|| opened.cluster.upstream.path(&opened.target));
    Ok((head.request(Empty::new()), long_target))
}

/// Both ends agreed: the client gets the 101, and the stream begins.
async fn switch(
    gateway: &Arc<Gateway>,
    mut opened: Opened,
    asking: Asking,
    protocol: &str,
    response: Response<Incoming>,
    passage: Passage,
) -> Response<Body> {
    let Asking { offer, client, place, ports } = asking;
    let mut headers = response.headers().clone();
    headers::strip_response(&mut headers);
    // As the client gets it: whoever reads the record before the stream's end learns from it what is spoken.
    offer.answer(&mut headers);
    let head = redact::response_head(101, &headers);
    let upstream = match hyper::upgrade::on(response).await {
        Ok(upstream) => upstream,
        Err(error) => {
            let refused = Refused::upstream(&opened.cluster.name, &error.to_string());
            return forward::answer(opened.exchange, refused, true).await;
        }
    };
    let plan = BodyPlan::response(&opened.info, &opened.head, &head, &opened.obligations);
    let recording =
        Recording::new(opened.id, Direction::Response, opened.received, plan, &gateway.redact_key);
    opened.exchange.answered(passage, None, head);
    lock(opened.exchange.shared()).response = Some(recording);

    let agreement = Agreement::of(asked(offer.kind()), &offer.token(), Some(protocol), &ports);
    let facts = StreamFacts {
        transport: offer.token(),
        protocol: protocol.to_owned(),
        ..StreamFacts::default()
    };
    let keep = Keep {
        stdin_sizes: opened.obligations.stdin == StdinRecord::Sizes,
        refuse_undecodable: opened.obligations.undecodable == Undecodable::Refuse,
    };
    let guard = gateway.live.register(opened.live_stream());
    let recorder = gateway.recorder.clone();
    let decoder = Decoder::new(agreement);
    let book = Book::new(opened.exchange, recorder, offer.kind(), keep, decoder, facts);
    let expires = opened.identity.token.expires.unwrap_or(opened.identity.expires);
    let cut = Cut::new(Some(expires), &gateway.stop, guard);
    let limits = gateway.upgrades.limits;
    let carried = Carried { client, upstream, book, cut, limits, place };
    gateway.tasks.spawn(stream::carry(Arc::clone(gateway), carried));

    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    response
}

const fn asked(kind: StreamKind) -> Asked {
    match kind {
        StreamKind::Exec | StreamKind::Attach => Asked::Command,
        StreamKind::PortForward => Asked::PortForward,
        StreamKind::Proxy | StreamKind::Other => Asked::Other,
    }
}

/// Nothing of a connection is used again after an upgrade that was refused: the client may have sent
/// bytes of the other protocol already (CVE-2020-8559).
pub fn end_connection(response: &mut Response<Body>) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}
