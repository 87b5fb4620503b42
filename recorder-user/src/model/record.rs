//! The records of a segment, and their codes.
//!
//! Payloads are JSON, so that they explain themselves and can grow; only [`Chunk`] is binary, since it
//! carries the bytes themselves. A kind that this version does not know is kept, chained and passed over.

use bytes::{Buf as _, BufMut as _, Bytes};
use serde::{Deserialize, Serialize};

use super::{
    Account, CapabilityRecord, ConnectionSeen, ExchangeEnd, ExchangeId, ExchangeOpened,
    ExchangeSettled, GatewayId, HoldChanged, MicrosSince, RecordingRead, RequestEnded,
    ResponseStarted, SessionChanged, SessionOpened, SocketEvidence, Timestamp, WitnessChanged,
};

/// Which way bytes flow: `request` from the client to the API server, `response` back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Towards the API server.
    Request,
    /// Towards the client.
    Response,
}

/// The code of a record's kind, as stored. Codes are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(pub u16);

impl Kind {
    /// The gateway started; holds the witness's capability record.
    pub const GATEWAY_STARTED: Self = Self(1);
    /// The gateway stopped in order.
    pub const GATEWAY_STOPPED: Self = Self(2);
    /// A session began.
    pub const SESSION_OPENED: Self = Self(3);
    /// A session changed its state.
    pub const SESSION_CHANGED: Self = Self(4);
    /// Intent and verdict of an exchange.
    pub const EXCHANGE_OPENED: Self = Self(5);
    /// Bytes of a body or stream.
    pub const CHUNK: Self = Self(6);
    /// A request's body is complete.
    pub const REQUEST_ENDED: Self = Self(7);
    /// A response's head.
    pub const RESPONSE_STARTED: Self = Self(8);
    /// The outcome of an exchange.
    pub const EXCHANGE_SETTLED: Self = Self(9);
    /// The final account of a connection.
    pub const CONNECTION_CLOSED: Self = Self(10);
    /// Reads that passed unrecorded while the store did not work.
    pub const UNRECORDED_SPAN: Self = Self(11);
    /// Somebody read recordings.
    pub const RECORDING_READ: Self = Self(12);
    /// The witness lost something, or sees again.
    pub const WITNESS_CHANGED: Self = Self(13);
    /// A connection that is not the gateway's, as the witness saw it.
    pub const CONNECTION_SEEN: Self = Self(14);
    /// A signed checkpoint of the chain.
    pub const CHECKPOINT: Self = Self(64);
    /// The end of a segment: totals and final hash.
    pub const SEAL: Self = Self(65);
    /// A signed statement that records were deleted.
    pub const TOMBSTONE: Self = Self(66);
    /// An older signing key's word that another one follows it.
    pub const KEY: Self = Self(67);
    /// A legal hold was added or released.
    pub const HOLD_CHANGED: Self = Self(68);

    /// Whether the payload is a signature and the JSON that it is of.
    #[must_use]
    pub const fn is_signed(self) -> bool {
        matches!(self, Self::CHECKPOINT | Self::SEAL | Self::TOMBSTONE | Self::KEY)
    }
}

/// The gateway started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStarted {
    /// Which gateway.
    pub gateway: GatewayId,
    /// When.
    pub time: Timestamp,
    /// Its version.
    pub version: String,
    /// What its witness can see.
    pub witness: CapabilityRecord,
    /// The clusters it serves.
    pub clusters: Vec<String>,
    /// The hash of the policy set in force.
    pub policy_set: String,
}

/// The gateway stopped in order: what is open goes on after the next start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStopped {
    /// Which gateway.
    pub gateway: GatewayId,
    /// When.
    pub time: Timestamp,
}

/// Bytes of a body or stream, as stored (after redaction).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The exchange.
    pub exchange: ExchangeId,
    /// Which way.
    pub direction: Direction,
    /// When the last of these bytes passed, since the exchange was received.
    pub at_us: MicrosSince,
    /// Offset of the first byte in the stored body.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
}

/// The final account of a connection, after its last byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionClosed {
    /// When.
    pub time: Timestamp,
    /// Whether it is the client's or the API server's.
    pub role: String,
    /// Address and port of the other end.
    pub peer: String,
    /// What was counted.
    pub evidence: SocketEvidence,
    /// Comparison of steps 1 and 2.
    pub account: Account,
    /// How many exchanges it carried.
    pub exchanges: u64,
    /// The sessions it carried, at most 64.
    pub sessions: Vec<super::SessionId>,
    /// Where the responses ended on a client's connection, of the last 64 exchanges that did not share it with
    /// others at that moment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<ExchangeEnd>,
}

/// Reads that passed while the store did not work, as policy allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnrecordedSpan {
    /// When the first passed.
    pub from: Timestamp,
    /// When the last passed.
    pub to: Timestamp,
    /// How many passed.
    pub exchanges: u64,
}

/// One record of a segment.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// See [`GatewayStarted`].
    GatewayStarted(GatewayStarted),
    /// See [`GatewayStopped`].
    GatewayStopped(GatewayStopped),
    /// See [`SessionOpened`].
    SessionOpened(SessionOpened),
    /// See [`SessionChanged`].
    SessionChanged(SessionChanged),
    /// See [`ExchangeOpened`].
    ExchangeOpened(Box<ExchangeOpened>),
    /// See [`Chunk`].
    Chunk(Chunk),
    /// See [`RequestEnded`].
    RequestEnded(RequestEnded),
    /// See [`ResponseStarted`].
    ResponseStarted(ResponseStarted),
    /// See [`ExchangeSettled`].
    ExchangeSettled(Box<ExchangeSettled>),
    /// See [`ConnectionClosed`].
    ConnectionClosed(Box<ConnectionClosed>),
    /// See [`UnrecordedSpan`].
    UnrecordedSpan(UnrecordedSpan),
    /// See [`HoldChanged`].
    HoldChanged(HoldChanged),
    /// See [`RecordingRead`].
    RecordingRead(Box<RecordingRead>),
    /// See [`WitnessChanged`].
    WitnessChanged(WitnessChanged),
    /// See [`ConnectionSeen`].
    ConnectionSeen(Box<ConnectionSeen>),
    /// A kind that this version does not know, or that it only reserves.
    Unknown {
        /// Its code.
        kind: Kind,
        /// Its payload.
        payload: Bytes,
    },
}

/// A payload does not have the form of its kind.
#[derive(Debug, thiserror::Error)]
pub enum DecodeRecordError {
    /// The JSON of a record could not be read.
    #[error("record kind {kind}: not the expected JSON")]
    Json {
        /// The record's kind.
        kind: u16,
        /// What serde_json says.
        #[source]
        source: serde_json::Error,
    },
    /// A chunk is shorter than its own header, or names an unknown direction.
    #[error("chunk record is malformed ({bytes} bytes)")]
    Chunk {
        /// The payload's length.
        bytes: usize,
    },
}

/// exchange id, direction, at_us, offset.
pub(crate) const CHUNK_HEADER_BYTES: usize = 16 + 1 + 8 + 8;

impl Record {
    /// The record's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::GatewayStarted(_) => Kind::GATEWAY_STARTED,
            Self::GatewayStopped(_) => Kind::GATEWAY_STOPPED,
            Self::SessionOpened(_) => Kind::SESSION_OPENED,
            Self::SessionChanged(_) => Kind::SESSION_CHANGED,
            Self::ExchangeOpened(_) => Kind::EXCHANGE_OPENED,
            Self::Chunk(_) => Kind::CHUNK,
            Self::RequestEnded(_) => Kind::REQUEST_ENDED,
            Self::ResponseStarted(_) => Kind::RESPONSE_STARTED,
            Self::ExchangeSettled(_) => Kind::EXCHANGE_SETTLED,
            Self::ConnectionClosed(_) => Kind::CONNECTION_CLOSED,
            Self::UnrecordedSpan(_) => Kind::UNRECORDED_SPAN,
            Self::HoldChanged(_) => Kind::HOLD_CHANGED,
            Self::RecordingRead(_) => Kind::RECORDING_READ,
            Self::WitnessChanged(_) => Kind::WITNESS_CHANGED,
            Self::ConnectionSeen(_) => Kind::CONNECTION_SEEN,
            Self::Unknown { kind, .. } => *kind,
        }
    }

    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::GatewayStarted(record) => json(out, record),
            Self::GatewayStopped(record) => json(out, record),
            Self::SessionOpened(record) => json(out, record),
            Self::SessionChanged(record) => json(out, record),
            Self::ExchangeOpened(record) => json(out, record),
            Self::Chunk(chunk) => {
                out.put_slice(chunk.exchange.as_bytes());
                out.put_u8(match chunk.direction {
                    Direction::Request => 0,
                    Direction::Response => 1,
                });
                out.put_u64_le(chunk.at_us);
                out.put_u64_le(chunk.offset);
                out.put_slice(&chunk.data);
            }
            Self::RequestEnded(record) => json(out, record),
            Self::ResponseStarted(record) => json(out, record),
            Self::ExchangeSettled(record) => json(out, record),
            Self::ConnectionClosed(record) => json(out, record),
            Self::UnrecordedSpan(record) => json(out, record),
            Self::HoldChanged(record) => json(out, record),
            Self::RecordingRead(record) => json(out, record),
            Self::WitnessChanged(record) => json(out, record),
            Self::ConnectionSeen(record) => json(out, record),
            Self::Unknown { payload, .. } => out.put_slice(payload),
        }
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// When the payload does not have the form of its kind. Unknown kinds are not an error.
    pub fn decode(kind: Kind, payload: Bytes) -> Result<Self, DecodeRecordError> {
        let bad = |source| DecodeRecordError::Json { kind: kind.0, source };
        Ok(match kind {
            Kind::GATEWAY_STARTED => Self::GatewayStarted(parse(&payload).map_err(bad)?),
            Kind::GATEWAY_STOPPED => Self::GatewayStopped(parse(&payload).map_err(bad)?),
            Kind::SESSION_OPENED => Self::SessionOpened(parse(&payload).map_err(bad)?),
            Kind::SESSION_CHANGED => Self::SessionChanged(parse(&payload).map_err(bad)?),
            Kind::EXCHANGE_OPENED => Self::ExchangeOpened(parse(&payload).map_err(bad)?),
            Kind::CHUNK => Self::Chunk(decode_chunk(payload)?),
            Kind::REQUEST_ENDED => Self::RequestEnded(parse(&payload).map_err(bad)?),
            Kind::RESPONSE_STARTED => Self::ResponseStarted(parse(&payload).map_err(bad)?),
            Kind::EXCHANGE_SETTLED => Self::ExchangeSettled(parse(&payload).map_err(bad)?),
            Kind::CONNECTION_CLOSED => Self::ConnectionClosed(parse(&payload).map_err(bad)?),
            Kind::UNRECORDED_SPAN => Self::UnrecordedSpan(parse(&payload).map_err(bad)?),
            Kind::HOLD_CHANGED => Self::HoldChanged(parse(&payload).map_err(bad)?),
            Kind::RECORDING_READ => Self::RecordingRead(parse(&payload).map_err(bad)?),
            Kind::WITNESS_CHANGED => Self::WitnessChanged(parse(&payload).map_err(bad)?),
            Kind::CONNECTION_SEEN => Self::ConnectionSeen(parse(&payload).map_err(bad)?),
            kind => Self::Unknown { kind, payload },
        })
    }

    /// The exchange that the record is part of.
    #[must_use]
    pub fn exchange(&self) -> Option<ExchangeId> {
        match self {
            Self::ExchangeOpened(record) => Some(record.exchange),
            Self::Chunk(chunk) => Some(chunk.exchange),
            Self::RequestEnded(record) => Some(record.exchange),
            Self::ResponseStarted(record) => Some(record.exchange),
            Self::ExchangeSettled(record) => Some(record.exchange),
            _ => None,
        }
    }
}

fn json<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("records have string keys and a Vec cannot fail");
}

fn parse<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(payload)
}

fn decode_chunk(mut payload: Bytes) -> Result<Chunk, DecodeRecordError> {
    let bytes = payload.len();
    if bytes < CHUNK_HEADER_BYTES {
        return Err(DecodeRecordError::Chunk { bytes });
    }
    let mut id = [0; 16];
    payload.copy_to_slice(&mut id);
    let direction = match payload.get_u8() {
        0 => Direction::Request,
        1 => Direction::Response,
        _ => return Err(DecodeRecordError::Chunk { bytes }),
    };
    let (at_us, offset) = (payload.get_u64_le(), payload.get_u64_le());
    Ok(Chunk { exchange: ExchangeId::from_bytes(id), direction, at_us, offset, data: payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(record: Record) {
        let mut payload = Vec::new();
        record.encode(&mut payload);
        let read = Record::decode(record.kind(), payload.into()).expect("own encoding");
        assert_eq!(read, record);
    }

    #[test]
    fn every_kind_round_trips() {
        round_trip(Record::Chunk(Chunk {
            exchange: ExchangeId::new(),
            direction: Direction::Response,
            at_us: 7,
            offset: 1 << 40,
            data: Bytes::from_static(b"\0bytes\xff"),
        }));
        round_trip(Record::ExchangeOpened(Box::default()));
        round_trip(Record::ExchangeSettled(Box::default()));
        round_trip(Record::RecordingRead(Box::new(RecordingRead {
            access: crate::model::AccessId::new(),
            time: Timestamp::from_micros(7),
            by: crate::model::LocalUser { uid: 7, user: None, pid: Some(8) },
            through: crate::model::Through::Files,
            verb: "show".into(),
            what: crate::model::AccessScope {
                exchanges: vec![ExchangeId::new()],
                ..crate::model::AccessScope::default()
            },
        })));
        round_trip(Record::WitnessChanged(WitnessChanged {
            time: Timestamp::from_micros(7),
            event: crate::model::WitnessEvent::Detached,
            tier: crate::model::Tier::T1,
            blind: true,
            uncounted: true,
            lost: 0,
            detail: "sock_send_length".into(),
        }));
        round_trip(Record::ConnectionSeen(Box::new(ConnectionSeen {
            session: crate::model::SessionId::new(),
            relation: crate::model::Relation::Egress,
            remote: Some("10.0.0.1:6443".into()),
            sent_bytes: Some(7),
            ..ConnectionSeen::default()
        })));
        round_trip(Record::Unknown { kind: Kind(999), payload: Bytes::from_static(b"later") });
    }

    #[test]
    fn malformed_payloads_are_errors() {
        for length in 0..CHUNK_HEADER_BYTES {
            assert!(Record::decode(Kind::CHUNK, vec![0; length].into()).is_err());
        }
        assert!(Record::decode(Kind::EXCHANGE_SETTLED, Bytes::from_static(b"{")).is_err());
    }
}
