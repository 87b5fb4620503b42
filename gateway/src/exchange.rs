//! The life of a request, in fixed phases: identify → attribute → authorize → open → forward → tap →
//! settle → account. (accept comes before, in [`crate::accept`]; the taps and what follows run while
//! the response flows, in [`crate::tap`] and [`crate::settle`].)

use std::{sync::Arc, time::Instant};

use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use recorder_user::{
    model::{
        Command, ExchangeId, ExchangeOpened, Level, Record, RequestInfo, StreamKind, Timestamp,
        Timing, Undecodable,
    },
    redact,
    store::Need,
    witness::SightMark,
};

use crate::{
    attribute, authorize,
    body::Body,
    connection::Connection,
    forward,
    gateway::{Cluster, Gateway},
    identify::{self, Identity},
    open,
    passage::Passage,
    refuse::Refused,
    sessions::{Session, SessionUse},
    tap::micros,
    upgrade::{self, Offer, Place, long_target::LongTarget},
};

/// A request that passed the phases up to authorize.
pub struct Authorized {
    /// Who asks.
    pub identity: Arc<Identity>,
    /// Where it goes.
    pub cluster: Arc<Cluster>,
    /// Path and query for the API server, without the gateway's prefix.
    pub target: String,
    /// What is asked.
    pub info: Arc<RequestInfo>,
    /// Its session.
    pub session: SessionUse,
    /// The task label.
    pub task: Option<String>,
    /// The upgrade that the client asks for, and its place among all.
    pub offer: Option<(Offer, Place)>,
}

/// One request's way through the gateway.
pub struct Draft {
    /// The exchange.
    pub id: ExchangeId,
    /// When its head was received.
    pub received: Instant,
    /// Its use of the client's connection.
    pub passage: Passage,
    /// How well the witness saw when it began.
    pub sight: SightMark,
    /// The record of intent, as far as it is known.
    pub opened: ExchangeOpened,
    /// Whether the client asks to leave HTTP.
    pub upgraded: bool,
    /// Its session, once it has one.
    pub session: Option<Arc<Session>>,
    /// Timings so far.
    pub timing: Timing,
}

/// Serves one request. Never fails: what goes wrong is an answer.
pub async fn serve(
    gateway: Arc<Gateway>,
    client: Arc<Connection>,
    request: Request<Incoming>,
) -> Response<Body> {
    let upgraded = attribute::is_upgrade(request.headers());
    let mut draft = Draft::new(&gateway, &client, upgraded);
    let long_target = client.take_long_target();
    let mut response = match authorized(&gateway, &request, long_target, &mut draft).await {
        Ok(authorized) => {
            joined(&gateway, &client, &draft);
            carry(gateway, request, draft, authorized).await
        }
        Err(refused) => {
            joined(&gateway, &client, &draft);
            refuse(&gateway, &client, draft, refused).await
        }
    };
    if upgraded {
        upgrade::end_connection(&mut response);
    }
    response
}

/// The first time that a session comes through a connection its client is looked for.
fn joined(gateway: &Gateway, client: &Connection, draft: &Draft) {
    if let Some(session) = client.carries(draft.opened.session, draft.id, &draft.passage) {
        gateway.bypass.used(session, client.peer());
    }
}

impl Draft {
    fn new(gateway: &Gateway, client: &Arc<Connection>, upgraded: bool) -> Self {
        let passage = Passage::accepted(client);
        let sight = gateway.witness.sight().mark();
        let id = ExchangeId::new();
        let opened = ExchangeOpened {
            exchange: id,
            time: Timestamp::now(),
            peer: client.peer().to_string(),
            client_cookie: client.cookie(),
            ..ExchangeOpened::default()
        };
        let timing = Timing::default();
        let (received, session) = (Instant::now(), None);
        Self { id, received, passage, sight, opened, upgraded, session, timing }
    }
}

async fn authorized(
    gateway: &Arc<Gateway>,
    request: &Request<Incoming>,
    long_target: Option<LongTarget>,
    draft: &mut Draft,
) -> Result<Authorized, Refused> {
    // identify
    let since = Instant::now();
    let token = identify::bearer(request.headers()).map_err(refused_identity)?;
    let identity =
        gateway.identifier.identify(&token, Timestamp::now()).await.map_err(refused_identity)?;
    draft.timing.identify = micros(since.elapsed());
    draft.opened.principal = Some(Arc::clone(&identity.principal));
    draft.opened.token = Some(identity.token.clone());

    // attribute
    let (path, query) = match &long_target {
        Some(target) => attribute::long_target(request.method(), &target.text),
        None => attribute::target(request.method(), request.uri(), request.version()),
    }
    .map_err(|error| refused_path(&error))?;
    let route = attribute::route(path).map_err(|error| refused_path(&error))?;
    let cluster = gateway.cluster(route.cluster).ok_or_else(|| unknown_cluster(gateway, &route))?;
    let cluster = Arc::clone(cluster);
    draft.opened.cluster.clone_from(&cluster.name);
    draft.opened.task = route.task.map(str::to_owned);
    draft.opened.command = command(request);
    let session =
        gateway.sessions.join(&identity.principal, &cluster.name, route.task, draft.opened.time)?;
    draft.opened.session = Some(session.id());
    draft.session = Some(Arc::clone(session.session()));
    draft.opened.head = Some(redact::request_head(
        request.method(),
        long_target.as_ref().map(|target| target.text.as_str()).unwrap_or_else(|| {
            request.uri().path_and_query().map_or(path, |target| target.as_str())
        }),
        request.version(),
        request.headers(),
    ));
    let info = attribute::request_info(request.method(), route.rest, query)
        .map_err(|error| refused_path(&error))?;
    draft.opened.request = Some(info.clone());
    draft.opened.stream = attribute::stream_request(&info, query, draft.upgraded)
        .map_err(|error| refused_path(&error))?;

    // authorize
    let since = Instant::now();
    let permitted = authorize::authorize(gateway, request, &info, route.task, draft);
    draft.timing.authorize = micros(since.elapsed());
    permitted?;
    let offer = match offer(request, &info, draft.upgraded, long_target.is_some())? {
        Some(offer) => {
            decodable(&offer, draft)?;
            Some((offer, gateway.upgrades.place(session.streams())?))
        }
        None => None,
    };
    let target = match query {
        Some(query) => format!("{}?{query}", route.rest),
        None => route.rest.to_owned(),
    };
    let task = route.task.map(str::to_owned);
    Ok(Authorized { identity, cluster, target, info: Arc::new(info), session, task, offer })
}

/// The upgrade that the client asks for, if it does.
fn offer(
    request: &Request<Incoming>,
    info: &RequestInfo,
    upgraded: bool,
    long_target: bool,
) -> Result<Option<Offer>, Refused> {
    if upgraded {
        let has_body = !request.body().is_end_stream();
        return Offer::read(info, request.version(), request.headers(), has_body).map(Some);
    }
    // Only a command line needs that much.
    if long_target {
        let message = "the request's path and query are longer than 60 KiB";
        return Err(Refused::new("attribute", 414, "RequestURITooLong", message));
    }
    Ok(None)
}

/// What is spoken behind a proxy cannot be decoded; policy may want only what can.
fn decodable(offer: &Offer, draft: &Draft) -> Result<(), Refused> {
    let verdict = draft.opened.verdict.as_ref();
    let undecodable = verdict.map(|verdict| verdict.obligations.undecodable);
    let opaque = matches!(offer.kind(), StreamKind::Proxy | StreamKind::Other);
    if opaque && undecodable == Some(Undecodable::Refuse) {
        let message = "policy permits only streams that can be decoded, and this is none";
        return Err(Refused::new("authorize", 403, "Forbidden", message));
    }
    Ok(())
}

async fn carry(
    gateway: Arc<Gateway>,
    request: Request<Incoming>,
    draft: Draft,
    authorized: Authorized,
) -> Response<Body> {
    match open::open(&gateway, request, draft, authorized).await {
        Ok(opened) => forward::forward(&gateway, opened).await,
        Err(refused) => refused.response(),
    }
}

/// Records a refusal and answers it. What cannot be recorded is refused as that.
async fn refuse(
    gateway: &Gateway,
    client: &Connection,
    mut draft: Draft,
    refused: Refused,
) -> Response<Body> {
    draft.timing.total = micros(draft.received.elapsed());
    let verb = draft.opened.request.as_ref().map_or("", |info| info.verb.as_str());
    gateway.metrics.refused(
        &draft.opened.cluster,
        verb,
        refused.phase,
        refused.status,
        &draft.timing,
    );
    tracing::info!(
        exchange = %draft.id,
        session = draft.opened.session.map(tracing::field::display),
        phase = refused.phase,
        status = refused.status,
        reason = refused.message,
        "refused"
    );
    if draft.opened.principal.is_none() {
        match gateway.refusals.admit(client.peer().ip()) {
            Some(suppressed) => draft.opened.suppressed = suppressed,
            None => return refused.response(),
        }
    }
    if draft.opened.verdict.as_ref().is_some_and(|verdict| verdict.obligations.level == Level::None)
    {
        draft.opened.drop_content();
    }
    draft.opened.refusal = Some(refused.record());
    let record = Record::ExchangeOpened(Box::new(draft.opened));
    let announced = draft.session.map_or(Ok(()), |session| gateway.sessions.announce(&session));
    let appended = match announced {
        Ok(()) => gateway.recorder.append(record, Need::Written).await,
        Err(error) => Err(error),
    };
    match appended {
        Ok(()) => refused.response(),
        Err(error) => {
            tracing::error!(exchange = %draft.id, %error, "refusal not recorded");
            Refused::recorder_failed().response()
        }
    }
}

fn command(request: &Request<Incoming>) -> Option<Command> {
    const LENGTH_MAX: usize = 256;
    let text = |name: &str| {
        let value = request.headers().get(name)?.to_str().ok()?;
        Some(value.chars().take(LENGTH_MAX).collect::<String>())
    };
    let id = text("kubectl-session")?;
    Some(Command { id, name: text("kubectl-command").unwrap_or_default() })
}

fn refused_identity(error: identify::IdentifyError) -> Refused {
    let (status, reason, message) = error.status();
    Refused::new("identify", status, reason, message)
}

fn refused_path(error: &attribute::AttributeError) -> Refused {
    let (status, reason, message) = error.status();
    Refused::new("attribute", status, reason, message)
}

fn unknown_cluster(gateway: &Gateway, route: &attribute::Route<'_>) -> Refused {
    let mut names: Vec<_> = gateway.clusters.keys().map(String::as_str).collect();
    names.sort_unstable();
    let message = match route.cluster {
        Some(name) => format!("this gateway serves no cluster {name:?}; it serves {names:?}"),
        None => {
            format!("no default cluster: put /clusters/NAME before the path, NAME one of {names:?}")
        }
    };
    Refused::new("attribute", 404, "NotFound", message)
}
