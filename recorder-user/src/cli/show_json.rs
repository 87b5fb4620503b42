//! `recorder show --json`: everything that is kept.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;

use super::{
    frame_json::FrameShown,
    json::{ExchangeLine, SessionLine, is_zero},
    show::body_facts,
    show_stream::{StreamLoaded, StreamShown},
};
use crate::{
    model::{
        Account, BodyFacts, Command, ConnectionSeen, Direction, Ending, ExchangeEnd, MicrosSince,
        Principal, Refusal, RequestHead, RequestInfo, ResponseHead, Spent, TokenFacts, Verdict,
    },
    replay::{BODY_BYTES_MAX, Form, Frame, Frames, assemble, is_stream, readable, watch_frames},
    store::{ExchangeRecords, ExchangeRow},
};

/// `recorder show SESSION --json`: the session as `ls` lists it, with its exchanges as `search`
/// does.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionShown<'a> {
    #[serde(flatten)]
    pub(super) session: SessionLine<'a>,
    pub(super) exchange_rows: Vec<ExchangeLine<'a>>,
    // What the witness recorded with the session.
    #[serde(skip_serializing_if = "<[ConnectionSeen]>::is_empty")]
    pub(super) connections: &'a [ConnectionSeen],
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) connections_left_out: u64,
}

/// `recorder show EXCHANGE --json`: the exchange as `search` lists it, and all the rest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExchangeShown<'a> {
    #[serde(flatten)]
    line: ExchangeLine<'a>,
    cluster: &'a str,
    task: Option<&'a str>,
    command_facts: Option<&'a Command>,
    principal: Option<&'a Principal>,
    acting_as: Option<&'a Principal>,
    token: Option<&'a TokenFacts>,
    peer: &'a str,
    request_info: Option<&'a RequestInfo>,
    verdict_facts: Option<&'a Verdict>,
    refusal: Option<&'a Refusal>,
    ending: Option<Ending>,
    request_head: Option<&'a RequestHead>,
    request_body: BodyShown,
    response_at_us: Option<MicrosSince>,
    response_head: Option<&'a ResponseHead>,
    response_body: BodyShown,
    frames: FramesShown,
    frames_left_out: u64,
    frames_undecoded_bytes: u64,
    evidence: Option<&'a Account>,
    spent_us: Option<Spent>,
    /// Where the response ended on the client's connection; null while that is open, and where it is not told.
    response_end: Option<ExchangeEnd>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<StreamShown<'a>>,
}

/// Frames of a watch, or of an upgraded connection.
#[derive(Serialize)]
#[serde(untagged)]
enum FramesShown {
    Watch(Vec<Frame>),
    Stream(Vec<FrameShown>),
}

/// A body: `text`, or base64 and then `encoding` says so.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BodyShown {
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
    /// Not all that was stored is in `text`: damaged, a hole, or over the reader's bound.
    truncated: bool,
    facts: BodyFacts,
}

impl<'a> ExchangeShown<'a> {
    pub(super) fn new(
        row: &'a ExchangeRow,
        records: &'a ExchangeRecords,
        response_end: Option<ExchangeEnd>,
        stream: Option<StreamLoaded>,
    ) -> Self {
        let opened = &records.opened;
        let started = records.response_started.as_ref();
        let request_type = opened.head.as_ref().and_then(|head| head.header("content-type"));
        let response_type = started.and_then(|started| started.head.header("content-type"));
        let encoding = body_facts(records, Direction::Response).encoding;
        let watched = if is_stream(row) {
            watch_frames(&records.chunks, response_type, &encoding)
        } else {
            Frames::default()
        };
        let (mut frames_left_out, mut frames_undecoded_bytes) =
            (watched.left_out, watched.undecoded_bytes);
        let mut frames = FramesShown::Watch(watched.frames);
        let stream = stream.map(|stream| {
            frames_left_out = stream.frames_left_out;
            frames_undecoded_bytes = stream.summary.raw_bytes;
            frames = FramesShown::Stream(stream.frames);
            let settled = records.settled.as_ref();
            StreamShown::new(opened, settled, stream.summary)
        });
        Self {
            line: ExchangeLine::from(row),
            cluster: &row.cluster,
            task: row.task.as_deref(),
            command_facts: opened.command.as_ref(),
            principal: opened.principal.as_deref(),
            acting_as: opened.acting_as.as_deref(),
            token: opened.token.as_ref(),
            peer: &opened.peer,
            request_info: opened.request.as_ref(),
            verdict_facts: opened.verdict.as_ref(),
            refusal: opened.refusal.as_ref(),
            ending: row.ending,
            request_head: opened.head.as_ref(),
            request_body: BodyShown::new(records, Direction::Request, request_type),
            response_at_us: started.map(|started| started.at_us),
            response_head: started.map(|started| &started.head),
            response_body: BodyShown::new(records, Direction::Response, response_type),
            frames_left_out,
            frames_undecoded_bytes,
            frames,
            stream,
            evidence: records.settled.as_ref().map(|settled| &settled.account),
            spent_us: records.settled.as_ref().and_then(|settled| settled.spent_us),
            response_end,
        }
    }
}

impl BodyShown {
    fn new(records: &ExchangeRecords, direction: Direction, content_type: Option<&str>) -> Self {
        let facts = body_facts(records, direction);
        let stored = assemble(&records.chunks, direction, BODY_BYTES_MAX);
        let shown = readable(&stored.bytes, content_type, &facts.encoding);
        let (text, encoding, summary) = match shown.form {
            Form::Empty => (String::new(), None, None),
            Form::Text(text) => (text, None, None),
            Form::Protobuf(summary, bytes) => {
                (BASE64_STANDARD.encode(bytes), Some("base64"), Some(summary))
            }
            Form::Binary(bytes) => (BASE64_STANDARD.encode(bytes), Some("base64"), None),
        };
        let missing = stored.missing_bytes(facts.stored_bytes) > 0;
        let truncated = shown.cut || stored.left_out_bytes > 0 || records.truncated || missing;
        Self { text, encoding, summary, truncated, facts }
    }
}
