//! Phase open: the intent, the verdict and (for changes) the body are on record before the API server
//! can act on them. If they cannot be recorded, nothing is forwarded.

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, Method, Request};
use http_body::Body as _;
use hyper::body::Incoming;
use recorder_user::{
    effect::Observer,
    model::{
        Direction, Level, Obligations, Record, RequestEnded, RequestHead, StreamRequest, Timestamp,
    },
    redact::BodyPlan,
    store::Need,
};

use crate::{
    attribute,
    exchange::{Authorized, Draft},
    gateway::{Cluster, Gateway},
    identify::Identity,
    live::LiveStream,
    refuse::Refused,
    settle::{Exchange, Start},
    tap::{Recording, RequestTap, Shared, micros},
    upgrade,
};

/// A request whose intent is on record (or will be before its last byte goes).
pub struct Opened {
    /// Its way to the record.
    pub exchange: Box<Exchange>,
    /// Who asks.
    pub identity: Arc<Identity>,
    /// Whom the API server is told: the principal, or whom policy lets it act as.
    pub acting: Arc<recorder_user::model::Principal>,
    /// Where it goes.
    pub cluster: Arc<Cluster>,
    /// The method.
    pub method: Method,
    /// Path and query for the API server.
    pub target: String,
    /// The client's headers.
    pub headers: HeaderMap,
    /// The upgrade that it asks for.
    pub upgrade: Option<upgrade::Asking>,
    /// The body; none where the request has none.
    pub tap: Option<Box<RequestTap>>,
    /// The request's head as recorded: redaction of the response looks at it.
    pub head: RequestHead,
    /// What the verdict adds.
    pub obligations: Obligations,
    /// What is asked.
    pub info: Arc<recorder_user::model::RequestInfo>,
    /// What an exec, attach or port-forward asks to run or carry.
    pub stream: Option<Arc<StreamRequest>>,
    /// Whether the client asks to leave HTTP.
    pub upgraded: bool,
    /// The task label.
    pub task: Option<String>,
    /// The client.
    pub peer: std::net::IpAddr,
    /// The exchange's id.
    pub id: recorder_user::model::ExchangeId,
    /// When the head was received.
    pub received: Instant,
    /// The same, by the wall clock.
    pub since: Timestamp,
}

impl Opened {
    /// What is kept of it while it is a live stream.
    #[must_use]
    pub fn live_stream(&self) -> LiveStream {
        let own = Arc::ptr_eq(&self.acting, &self.identity.principal);
        LiveStream {
            exchange: self.id,
            identity: Arc::clone(&self.identity),
            acting_as: (!own).then(|| Arc::clone(&self.acting)),
            session: Arc::clone(self.exchange.session().session()),
            info: Arc::clone(&self.info),
            stream: self.stream.clone(),
            upgraded: self.upgraded,
            recorded: self.exchange.recorded(),
            since: self.since,
        }
    }
}

/// Records the intent.
///
/// # Errors
/// When it cannot be recorded.
pub async fn open(
    gateway: &Arc<Gateway>,
    mut request: Request<Incoming>,
    mut draft: Draft,
    authorized: Authorized,
) -> Result<Opened, Refused> {
    let Authorized { identity, cluster, target, info, session, task, offer } = authorized;
    let asking = match offer {
        Some((offer, place)) => Some(upgrade::Asking {
            place,
            client: hyper::upgrade::on(&mut request),
            ports: draft.opened.stream.as_ref().map(|s| s.ports.clone()).unwrap_or_default(),
            offer,
        }),
        None => None,
    };
    let upgraded = asking.is_some();
    let peer = draft.passage.connection().peer().ip();
    let (parts, incoming) = request.into_parts();
    let (id, received) = (draft.id, draft.received);
    let need = if attribute::may_change(&info, upgraded) { Need::Durable } else { Need::Written };
    let verdict = draft.opened.verdict.as_ref();
    let obligations = verdict.map(|verdict| verdict.obligations.clone()).unwrap_or_default();
    let acting = draft.opened.acting_as.clone().unwrap_or_else(|| Arc::clone(&identity.principal));
    let head = draft.opened.head.clone().unwrap_or_default();
    // Policy is asked again about all of it while the stream lives, whatever is kept.
    let (stream, time) = (draft.opened.stream.clone().map(Arc::new), draft.opened.time);
    if obligations.level == Level::None {
        draft.opened.drop_content();
    }
    let observer = Observer::new(&info, &head);

    let has_body = !incoming.is_end_stream();
    // What an upgraded connection carries comes after the head, like a body.
    let recording = if has_body || upgraded {
        let plan = BodyPlan::request(&info, &head, &obligations);
        Recording::new(id, Direction::Request, received, plan, &gateway.redact_key)
    } else {
        Recording::empty(id, Direction::Request, received)
    };
    let shared = Shared::new(recording, observer);
    let intent = Record::ExchangeOpened(Box::new(draft.opened));
    let (since, epoch) = (Instant::now(), gateway.recorder.epoch());
    let appended = if let Err(error) = gateway.sessions.announce(&session) {
        Err(error)
    } else if has_body {
        // Written before the first byte goes, so that what the API server sees of a request that is cut
        // off half-way has a record; the body's last byte waits until all of it is as durable as it must.
        gateway.recorder.append(intent, Need::Written).await
    } else if upgraded {
        gateway.recorder.append(intent, need).await
    } else {
        let at_us = micros(received.elapsed());
        let body = {
            let mut shared = crate::tap::lock(&shared);
            shared.complete_request();
            shared.request.finish(true, &mut Vec::new())
        };
        let ended = Record::RequestEnded(RequestEnded { exchange: id, at_us, body });
        gateway.recorder.append_all(vec![intent, ended], need).await
    };
    let recorded = match appended {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(exchange = %id, %error, "intent not recorded");
            let reads = matches!(info.verb.as_str(), "get" | "list" | "watch");
            let reads = reads && !has_body && !upgraded;
            if !(obligations.unrecorded && reads && info.resource != "secrets") {
                return Err(Refused::recorder_failed());
            }
            false
        }
    };
    draft.timing.open = micros(since.elapsed());

    let tap = has_body.then(|| {
        let (shared, recorder) = (Arc::clone(&shared), gateway.recorder.clone());
        Box::new(RequestTap::new(incoming, id, received, shared, recorder, epoch, need))
    });
    let live = upgraded || attribute::is_long_running(&info, parts.uri.query());
    let exchange = Exchange::start(Start {
        gateway: Arc::clone(gateway),
        id,
        session,
        info: Arc::clone(&info),
        client: draft.passage,
        sight: draft.sight,
        shared,
        received,
        timing: draft.timing,
        live,
        upgraded,
        epoch,
        recorded,
    });
    Ok(Opened {
        exchange,
        identity,
        acting,
        cluster,
        method: parts.method,
        target,
        headers: parts.headers,
        upgrade: asking,
        tap,
        head,
        obligations,
        info,
        stream,
        upgraded,
        task,
        since: time,
        peer,
        id,
        received,
    })
}
