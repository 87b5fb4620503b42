//! The words of the record: every type that is written to a segment, and the ids that tie them.
//!
//! These types are an on-disk contract. Fields may be added (readers ignore what they do not know, and
//! `#[serde(default)]` fills what an older writer did not know); none may change its meaning.

mod access;
mod account;
mod effect;
mod exchange;
mod health;
mod hold;
mod id;
mod record;
mod request;
mod seen;
mod session;
mod span;
mod stream;
mod time;
mod verdict;

pub use access::{AccessScope, LocalUser, RecordingRead, Through};
pub use account::{
    Account, AccountState, CapabilityRecord, Gap, GapStep, HookState, SocketEvidence, Tier,
};
pub use effect::{Change, Effect, ObjectChange};
pub use exchange::{
    BodyFacts, Command, Ending, ExchangeOpened, ExchangeSettled, Refusal, Removed, RequestEnded,
    ResponseStarted, Timing, Withheld,
};
pub use health::{WitnessChanged, WitnessEvent};
pub use hold::{HoldChanged, HoldOn, HoldReleased};
pub use id::{AccessId, BootId, ExchangeId, GatewayId, HoldId, ParseIdError, SegmentId, SessionId};
pub(crate) use record::CHUNK_HEADER_BYTES;
pub use record::{
    Chunk, ConnectionClosed, DecodeRecordError, Direction, GatewayStarted, GatewayStopped, Kind,
    Record, UnrecordedSpan,
};
pub use request::{RequestHead, RequestInfo, ResponseHead};
pub use seen::{ConnectionSeen, Origin, PodFacts, ProcessFacts, Relation, SeenBy};
pub use session::{
    IncompleteReason, Principal, SessionAccount, SessionChanged, SessionKey, SessionKind,
    SessionOpened, SessionState, SessionTotals, TokenFacts,
};
pub use span::{ExchangeEnd, ExchangeSpan, Spent};
pub use stream::{StreamFacts, StreamKind, StreamRequest};
pub use time::{MicrosSince, Timestamp};
pub use verdict::{Decision, Level, Obligations, StdinRecord, Undecodable, Verdict};

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
pub(crate) const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
pub(crate) const fn is_zero(count: &u64) -> bool {
    *count == 0
}
