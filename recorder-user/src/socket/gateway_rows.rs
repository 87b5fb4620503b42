//! The rows of a store whose gateway is asked for them.

use std::{
    cell::OnceCell,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;

use super::{
    ACCESS_HEADER, Announcement, AskError, IdLine, PageEnd, VERSION_HEADER, Welcome, ask, question,
};
use crate::{
    model::{AccessId, ExchangeId, SessionId},
    store::{
        CatalogError, ExchangeRow, IdPart, MATCHING_IDS_MAX, MatchingIds, Query, ROWS_VERSION,
        RowSource, SessionView,
    },
};

/// Asks a gateway. Rows are only given after [`GatewayRows::announce`].
pub struct GatewayRows {
    socket: PathBuf,
    access: OnceCell<AccessId>,
}

impl GatewayRows {
    /// Finds out whether a gateway of our version answers on this socket.
    ///
    /// # Errors
    /// When none does.
    pub fn connect(socket: &Path) -> Result<Self, AskError> {
        let rows = Self { socket: socket.to_owned(), access: OnceCell::new() };
        rows.send(Method::GET, "/rows", Bytes::new())?;
        Ok(rows)
    }

    /// Tells the gateway what will be read. It returns once that is on record; further calls do nothing.
    ///
    /// # Errors
    /// When the gateway does not take it.
    pub fn announce(&self, announcement: &Announcement) -> Result<(), AskError> {
        if self.access.get().is_none() {
            let body = serde_json::to_vec(announcement)?;
            let answer = self.send(Method::POST, "/accesses", body.into())?;
            let welcome: Welcome = serde_json::from_slice(&answer)?;
            self.access.get_or_init(|| welcome.access);
        }
        Ok(())
    }

    fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, AskError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        let refused = |said: String| AskError::Refused { status: StatusCode::URI_TOO_LONG, said };
        *request.uri_mut() = path.parse().map_err(|error: http::uri::InvalidUri| {
            // Words over 64 KiB: no row has one as long.
            refused(error.to_string())
        })?;
        if let Some(access) = self.access.get() {
            let value = access.to_string().parse().map_err(|_| refused("no header".into()))?;
            request.headers_mut().insert(ACCESS_HEADER, value);
        }
        understood(ask(&self.socket, request, PATIENCE, ANSWER_BYTES_MAX)?)
    }

    /// A page of rows, and what to go on after.
    fn page<T: DeserializeOwned, K: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<(Vec<T>, Option<K>), AskError> {
        let answer = self.send(Method::GET, path, Bytes::new())?;
        let mut lines: Vec<_> =
            answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        let end: PageEnd<K> = serde_json::from_slice(lines.pop().ok_or(AskError::Incomplete)?)?;
        let rows = lines.into_iter().map(serde_json::from_slice).collect::<Result<_, _>>()?;
        Ok((rows, end.next))
    }

    fn one<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, AskError> {
        let (mut rows, _) = self.page::<T, ExchangeId>(path)?;
        Ok(rows.pop())
    }

    fn all_sessions(&self) -> Result<Vec<SessionView>, AskError> {
        let mut views = Vec::new();
        let mut path = "/rows/sessions".to_owned();
        loop {
            let (mut page, next) = self.page::<_, SessionId>(&path)?;
            views.append(&mut page);
            let Some(next) = next else { return Ok(views) };
            path = format!("/rows/sessions?after={next}");
        }
    }

    fn found(&self, query: &Query) -> Result<Vec<ExchangeRow>, AskError> {
        let mut rows = Vec::new();
        let mut query = query.clone();
        loop {
            let path = format!("/rows/exchanges?{}", question::to_text(&query));
            let (mut page, next) = self.page::<_, ExchangeId>(&path)?;
            let limited = query.limit > 0;
            page.truncate(if limited { query.limit } else { page.len() });
            query.limit = query.limit.saturating_sub(page.len());
            rows.append(&mut page);
            if next.is_none() || (limited && query.limit == 0) {
                return Ok(rows);
            }
            query.after = next;
        }
    }

    fn ids(&self, part: &IdPart) -> Result<MatchingIds, AskError> {
        let mut found = MatchingIds::default();
        let mut path = format!("/rows/ids?part={}", part.as_str());
        loop {
            let (page, next) = self.page::<_, ExchangeId>(&path)?;
            for line in page {
                match line {
                    IdLine::Session(id) => found.sessions.push(id),
                    IdLine::Exchange(id) => found.exchanges.push(id),
                }
            }
            found.sessions.truncate(MATCHING_IDS_MAX);
            found.exchanges.truncate(MATCHING_IDS_MAX);
            match next {
                Some(next) if found.exchanges.len() < MATCHING_IDS_MAX => {
                    path = format!("/rows/ids?part={}&after={next}", part.as_str());
                }
                _ => return Ok(found),
            }
        }
    }
}

impl RowSource for GatewayRows {
    fn sessions(&self) -> Result<Vec<SessionView>, CatalogError> {
        self.all_sessions().map_err(asked)
    }

    fn session(&self, id: SessionId) -> Result<Option<SessionView>, CatalogError> {
        self.one(&format!("/rows/sessions/{id}")).map_err(asked)
    }

    fn exchange(&self, id: ExchangeId) -> Result<Option<ExchangeRow>, CatalogError> {
        self.one(&format!("/rows/exchanges/{id}")).map_err(asked)
    }

    fn search(&self, query: &Query) -> Result<Vec<ExchangeRow>, CatalogError> {
        self.found(query).map_err(asked)
    }

    fn matching_ids(&self, part: &IdPart) -> Result<MatchingIds, CatalogError> {
        self.ids(part).map_err(asked)
    }
}

fn asked(error: AskError) -> CatalogError {
    CatalogError::Asked(Box::new(error))
}

/// The body of a good answer of our version.
fn understood(answer: Response<Bytes>) -> Result<Bytes, AskError> {
    let version = answer.headers().get(VERSION_HEADER).and_then(|value| value.to_str().ok());
    // An older gateway does not know the path, and does not say its version.
    if version != Some(ROWS_VERSION.to_string().as_str()) {
        return Err(AskError::OtherVersion);
    }
    let status = answer.status();
    if !status.is_success() {
        let said: Option<serde_json::Value> = serde_json::from_slice(answer.body()).ok();
        let said = said.as_ref().and_then(|value| value["error"].as_str()).unwrap_or("no reason");
        return Err(AskError::Refused { status, said: said.to_owned() });
    }
    Ok(answer.into_body())
}

/// How long one answer may take. A page is the work of a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// A page is less than 2 MiB.
const ANSWER_BYTES_MAX: usize = 16 << 20;
