//! Questions for rows, answered from the index while it is written.
//!
//! An answer is put together from bounded looks at the index, for a fraction of a second at most; the last line
//! says where to go on.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use recorder_user::{
    model::{ExchangeId, SessionId},
    socket::{IdLine, PageEnd, question},
    store::{IdPart, LiveRows, LiveRowsError, MATCHING_IDS_MAX, Query},
};
use serde::Serialize;
use url::form_urlencoded;

use super::answer::{Answer, fault};
use crate::bounds::{ROWS_ANSWER_MAX, ROWS_TIME};

/// Answers `GET /rows/…`; the path is what follows.
pub(super) async fn answer(rows: &LiveRows, path: &str, query: &str) -> Answer {
    match path.split_once('/').unwrap_or((path, "")) {
        ("sessions", "") => sessions(rows, query).await,
        ("sessions", id) => match id.parse::<SessionId>() {
            Ok(id) => one(rows.session(id).await),
            Err(error) => fault(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        ("exchanges", "") => match question::from_text(query) {
            Ok(query) => exchanges(rows, query).await,
            Err(error) => fault(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        ("exchanges", id) => match id.parse::<ExchangeId>() {
            Ok(id) => one(rows.exchange(id).await),
            Err(error) => fault(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        _ => fault(StatusCode::NOT_FOUND, "try GET /rows/sessions or GET /rows/exchanges"),
    }
}

/// Answers `GET /rows`: whether the index answers.
pub(super) async fn ready(rows: &LiveRows) -> Answer {
    match rows.ready().await {
        Ok(()) => Ok(Lines::new().end::<ExchangeId>(None)),
        Err(error) => cannot(&error),
    }
}

/// Answers `GET /rows/ids`. Ids tell nothing of what was recorded, and are what an access is announced with.
pub(super) async fn ids(rows: &LiveRows, query: &str) -> Answer {
    let value = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(given, _)| given == name).map(|(_, value)| value)
    };
    let part = value("part").unwrap_or_default().parse::<IdPart>();
    let (part, after) =
        match (part, value("after").map(|after| after.parse::<ExchangeId>()).transpose()) {
            (Ok(part), Ok(after)) => (part, after),
            (Err(error), _) => return fault(StatusCode::BAD_REQUEST, &error.to_string()),
            (_, Err(error)) => return fault(StatusCode::BAD_REQUEST, &error.to_string()),
        };
    match matching(rows, part, after).await {
        Ok((lines, next)) => Ok(lines.end(next)),
        Err(error) => cannot(&error),
    }
}

/// Sessions are looked for first, and exchanges only where no session fits: `after` is one of those.
async fn matching(
    rows: &LiveRows,
    part: IdPart,
    mut after: Option<ExchangeId>,
) -> Result<(Lines, Option<ExchangeId>), LiveRowsError> {
    let mut lines = Lines::new();
    if let Some((session, exchange)) = part.whole() {
        if rows.session(session).await?.is_some() {
            lines.add(&IdLine::Session(session));
        } else if rows.exchange(exchange).await?.is_some() {
            lines.add(&IdLine::Exchange(exchange));
        }
        return Ok((lines, None));
    }
    let mut session = None;
    while after.is_none() && lines.count < MATCHING_IDS_MAX {
        let page = rows.matching_sessions(part.clone(), session).await?;
        page.rows.into_iter().for_each(|id| lines.add(&IdLine::Session(id)));
        session = page.next;
        if session.is_none() {
            break;
        }
    }
    if lines.count > 0 {
        return Ok((lines, None));
    }
    let until = Instant::now() + ROWS_TIME;
    loop {
        let page = rows.matching_exchanges(part.clone(), after).await?;
        page.rows.into_iter().for_each(|id| lines.add(&IdLine::Exchange(id)));
        after = page.next;
        if after.is_none() || lines.count >= MATCHING_IDS_MAX || Instant::now() >= until {
            return Ok((lines, after));
        }
    }
}

async fn sessions(rows: &LiveRows, query: &str) -> Answer {
    let pair = form_urlencoded::parse(query.as_bytes()).next();
    let mut after = match pair {
        None => None,
        Some((name, id)) if name == "after" => match id.parse::<SessionId>() {
            Ok(id) => Some(id),
            Err(error) => return fault(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        Some(_) => return fault(StatusCode::BAD_REQUEST, "GET /rows/sessions?after=ID"),
    };
    let (mut lines, until) = (Lines::new(), Instant::now() + ROWS_TIME);
    loop {
        let page = match rows.sessions(after).await {
            Ok(page) => page,
            Err(error) => return cannot(&error),
        };
        page.rows.iter().for_each(|row| lines.add(row));
        after = page.next;
        if after.is_none() || lines.count >= ROWS_ANSWER_MAX || Instant::now() >= until {
            return Ok(lines.end(after));
        }
    }
}

async fn exchanges(rows: &LiveRows, mut query: Query) -> Answer {
    let limit = if query.limit == 0 { ROWS_ANSWER_MAX } else { query.limit.min(ROWS_ANSWER_MAX) };
    let (mut lines, until) = (Lines::new(), Instant::now() + ROWS_TIME);
    loop {
        query.limit = limit.saturating_sub(lines.count);
        let page = match rows.exchanges(query.clone()).await {
            Ok(page) => page,
            Err(error) => return cannot(&error),
        };
        page.rows.iter().for_each(|row| lines.add(row));
        query.after = page.next;
        if query.after.is_none() || lines.count >= limit || Instant::now() >= until {
            return Ok(lines.end(query.after));
        }
    }
}

fn one<T: Serialize>(found: Result<Option<T>, LiveRowsError>) -> Answer {
    let mut lines = Lines::new();
    match found {
        Ok(found) => found.iter().for_each(|row| lines.add(row)),
        Err(error) => return cannot(&error),
    }
    Ok(lines.end::<ExchangeId>(None))
}

fn cannot(error: &LiveRowsError) -> Answer {
    if let LiveRowsError::Index(error) = error {
        tracing::warn!(%error, "the index could not be read for an operator");
    }
    fault(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
}

/// JSON lines in the making.
struct Lines {
    text: Vec<u8>,
    count: usize,
}

impl Lines {
    const fn new() -> Self {
        Self { text: Vec::new(), count: 0 }
    }

    fn add(&mut self, row: &impl Serialize) {
        serde_json::to_writer(&mut self.text, row).expect("rows are plain data");
        self.text.push(b'\n');
        self.count += 1;
    }

    fn end<K: Serialize>(mut self, next: Option<K>) -> Response<Full<Bytes>> {
        self.add(&PageEnd { next });
        let mut response = Response::new(Full::new(self.text.into()));
        let kind = HeaderValue::from_static("application/x-ndjson");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}
