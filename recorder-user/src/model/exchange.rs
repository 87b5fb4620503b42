//! The records of one exchange: intent, request, response, outcome.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Account, Effect, ExchangeId, MicrosSince, ObjectChange, Principal, RequestHead, RequestInfo,
    ResponseHead, SessionId, Spent, StreamFacts, StreamRequest, Timestamp, TokenFacts, Verdict,
};

/// What kubectl says of the invocation that made a request: a claim, not proof.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    /// The `Kubectl-Session` header: one per invocation.
    pub id: String,
    /// The `Kubectl-Command` header, for example `kubectl apply`.
    pub name: String,
}

/// Why a request was answered by the gateway itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The phase that refused: `identify`, `attribute`, `authorize`, `open`, `forward`.
    pub phase: String,
    /// The HTTP status that the client saw.
    pub status: u16,
    /// The `Status` reason that the client saw.
    pub reason: String,
    /// The `Status` message that the client saw.
    pub message: String,
}

/// The intent: on disk before anything is forwarded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExchangeOpened {
    /// The exchange.
    pub exchange: ExchangeId,
    /// None when nobody was identified.
    pub session: Option<SessionId>,
    /// When the request head was received.
    pub time: Timestamp,
    /// The cluster's name; empty when it was not found.
    pub cluster: String,
    /// The task label.
    pub task: Option<String>,
    /// kubectl's own word for the invocation.
    pub command: Option<Command>,
    /// Who asks; none when nobody was identified.
    pub principal: Option<Arc<Principal>>,
    /// What is kept of the token.
    pub token: Option<TokenFacts>,
    /// The client's `--as`, where policy permits it: what the API server was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acting_as: Option<Arc<Principal>>,
    /// Address and port of the client.
    pub peer: String,
    /// Cookie of the client's socket; 0 when unknown.
    pub client_cookie: u64,
    /// The HTTP head; none when refused before it may be kept.
    pub head: Option<RequestHead>,
    /// Kubernetes' view; none when the path could not be attributed.
    pub request: Option<RequestInfo>,
    /// What an exec, attach or port-forward asks to run or carry; none for other requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamRequest>,
    /// The policy's answer; none when refused before it was asked.
    pub verdict: Option<Verdict>,
    /// Present when the gateway answered itself; then no other record of this exchange need follow.
    pub refusal: Option<Refusal>,
    /// How many like refusals were not recorded one by one since the last (rate limit).
    #[serde(default)]
    pub suppressed: u64,
}

impl ExchangeOpened {
    /// Leaves what level `none` keeps: intent and verdict, and of a command the name of its program.
    pub fn drop_content(&mut self) {
        self.head = None;
        if let Some(stream) = &mut self.stream {
            stream.command.truncate(1);
        }
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::EPOCH
    }
}

/// Something was taken out of a body before it reached the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removed {
    /// Where, as a dot-separated path with `[]` for any index, e.g. `items[].data.password`.
    pub path: String,
    /// How many values.
    pub count: u64,
}

/// A body, or the rest of one, that was not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Withheld {
    /// Why: `unknown_encoding`, `undecodable`, `over_bound`, `policy`, …
    pub reason: String,
    /// How many bytes are not stored.
    pub bytes: u64,
}

/// What is known of one body after it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BodyFacts {
    /// Bytes that passed, before redaction.
    pub bytes: u64,
    /// Bytes that passed and that the recorder took, before redaction: equal to `bytes` unless lost.
    pub recorded_bytes: u64,
    /// Bytes stored, after redaction and decoding.
    pub stored_bytes: u64,
    /// BLAKE3 of the bytes as stored, in hexadecimal; empty when none are.
    pub hash: String,
    /// `Content-Encoding` as stored: `identity` when redaction had to decode, else as it was sent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub encoding: String,
    /// What redaction removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<Removed>,
    /// What was not kept at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<Withheld>,
    /// Whether the body came to its own end.
    pub ended: bool,
}

/// The request's body is on disk. Durable before the last request byte goes upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestEnded {
    /// The exchange.
    pub exchange: ExchangeId,
    /// When, since it was received.
    pub at_us: MicrosSince,
    /// The body.
    pub body: BodyFacts,
}

/// The API server's response head arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResponseStarted {
    /// The exchange.
    pub exchange: ExchangeId,
    /// When, since it was received.
    pub at_us: MicrosSince,
    /// Status and headers.
    pub head: ResponseHead,
}

/// How an exchange came to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The response was complete, or the client ended a stream that only it can end.
    #[default]
    Finished,
    /// The token expired and the gateway ended the stream.
    TokenExpired,
    /// The token was revoked, or its issuer is trusted no more, and the gateway ended the stream.
    TokenRevoked,
    /// Policy does not permit the stream any more, and the gateway ended it.
    GrantEnded,
    /// Someone killed the session.
    Killed,
    /// The stream was idle or lasted longer than the configuration allows.
    LimitReached,
    /// The client left half-way.
    ClientLost,
    /// The API server left half-way, or never answered.
    UpstreamLost,
    /// The recorder failed and the gateway ended the stream.
    RecorderFailed,
    /// The gateway was stopped and ended the stream.
    GatewayStopped,
}

/// Phase timings in whole microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timing {
    /// Token to principal.
    pub identify: u64,
    /// Policy.
    pub authorize: u64,
    /// Waiting for the record of the intent.
    pub open: u64,
    /// From the request going upstream to the response head.
    pub upstream: u64,
    /// From the request head to the response's end.
    pub total: u64,
}

/// The outcome: written before the last response byte goes to the client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExchangeSettled {
    /// The exchange.
    pub exchange: ExchangeId,
    /// Its session.
    pub session: Option<SessionId>,
    /// When the response ended.
    pub time: Timestamp,
    /// The status that the client saw.
    pub status: u16,
    /// How it ended.
    pub ending: Ending,
    /// What it did.
    pub effect: Effect,
    /// To which objects, at most 256; `object_count` counts them all.
    pub objects: Vec<ObjectChange>,
    /// How many objects it changed.
    pub object_count: u64,
    /// The API server's `Audit-ID`.
    pub audit_id: Option<String>,
    /// The request's body.
    pub request: BodyFacts,
    /// The response's body.
    pub response: BodyFacts,
    /// Phase timings.
    pub timing_us: Timing,
    /// Where the time went; none for live streams, and in records of a gateway that did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent_us: Option<Spent>,
    /// Comparison with the kernel at this instant; connections are compared again when they close.
    pub account: Account,
    /// What was seen of an upgraded connection; none for other exchanges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamFacts>,
    /// Whether the intent could not be recorded and policy let the read pass (`@unrecorded`).
    #[serde(default)]
    pub unrecorded: bool,
}
