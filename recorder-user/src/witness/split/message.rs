//! The messages. A frame is the payload's length (u32), its form (u32), both little-endian, and the payload:
//! JSON for all that is said seldom, and the ring's own records for notices.

use std::{io, net::SocketAddr};

use recorder_ebpf::{
    CONNECTION_NOTICE_BYTES, ConnectionNotice, Head, NOTICE_BYTES, Notice, RingRecord,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::super::health::{HealthEvent, Trouble};
use crate::model::CapabilityRecord;

/// The longest payload: all endpoints that the programs take, each at its longest, fit in.
pub(super) const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// The most records of one batch.
pub(super) const BATCH_RECORDS_MAX: usize = 512;

/// Length and form.
pub(super) const HEADER_BYTES: usize = 8;

/// How a payload is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// [`FromGateway`] or [`FromProbe`].
    Json,
    /// A batch of notices: see [`encode_batch`].
    Batch,
}

impl Form {
    const fn number(self) -> u32 {
        match self {
            Self::Json => 1,
            Self::Batch => 2,
        }
    }
}

/// The frame's header.
pub(super) fn header(form: Form, payload: &[u8]) -> io::Result<[u8; HEADER_BYTES]> {
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= PAYLOAD_BYTES_MAX);
    let length = length.ok_or_else(|| malformed("a message longer than 1 MiB"))?;
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..].copy_from_slice(&form.number().to_le_bytes());
    Ok(bytes)
}

/// Length and form by a frame's header.
pub(super) fn parse_header(bytes: [u8; HEADER_BYTES]) -> io::Result<(usize, Form)> {
    let [a, b, c, d, e, f, g, h] = bytes;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > PAYLOAD_BYTES_MAX {
        return Err(malformed("a message longer than 1 MiB"));
    }
    let form = match u32::from_le_bytes([e, f, g, h]) {
        1 => Form::Json,
        2 => Form::Batch,
        _ => return Err(malformed("a message of unknown form")),
    };
    Ok((length, form))
}

/// What a gateway says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum FromGateway {
    /// The first message.
    Hello {
        /// [`PROTOCOL_VERSION`](super::PROTOCOL_VERSION).
        protocol: u32,
        /// [`recorder_ebpf::ABI_VERSION`].
        abi: u16,
        /// The build, for the log.
        version: String,
    },
    /// With the descriptors of both ends of a loopback connection through which nothing passed: count them.
    Pair,
    /// The known bytes passed: who am I?
    WhoAmI,
    /// Notices may come.
    Start,
    /// This port is mine: to be told before `bind`.
    Gateway {
        /// Names the answer.
        request: u64,
        /// The listener's port.
        port: u16,
    },
    /// With the descriptor of a listener: it is mine, and so is what it accepts.
    Listener {
        /// Names the answer.
        request: u64,
    },
    /// The addresses to look after from now on.
    Endpoints {
        /// Names the answer.
        request: u64,
        /// All of them.
        addresses: Vec<Address>,
    },
    /// The cgroups to watch from now on.
    Watched {
        /// Names the answer.
        request: u64,
        /// Their numbers.
        cgroups: Vec<u64>,
    },
    /// A batch arrived; the next may come.
    Taken {
        /// Its number.
        batch: u64,
    },
}

/// What the probe says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum FromProbe {
    /// The answer to a gateway's first message, with the descriptor of the table.
    Hello {
        /// [`PROTOCOL_VERSION`](super::PROTOCOL_VERSION).
        protocol: u32,
        /// [`recorder_ebpf::ABI_VERSION`].
        abi: u16,
        /// The build, for the log.
        version: String,
        /// What its programs can see.
        capability: CapabilityRecord,
        /// Notices that are kept for this gateway.
        kept: u64,
    },
    /// No; the connection ends.
    Refused {
        /// Why, with a next step.
        why: String,
    },
    /// The pair is counted.
    Counted,
    /// What the gateway is in the eyes of the programs.
    Known {
        /// Thread group in the initial pid namespace.
        tgid: u32,
        /// The cgroup's number.
        cgroup_id: u64,
        /// The network namespace.
        netns_cookie: u64,
    },
    /// A request was done, or not.
    Done {
        /// The request's number.
        request: u64,
        /// Why not.
        error: Option<String>,
    },
    /// Sent five times a second: the probe lives.
    Pulse {
        /// Lasting troubles.
        troubles: Vec<Trouble>,
        /// What was counted so far.
        counts: Counts,
    },
    /// The probe's health changed.
    Event {
        /// How.
        event: HealthEvent,
    },
}

/// What the probe counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::witness) struct Counts {
    /// Records that the programs wrote to the ring.
    pub(in crate::witness) emitted: u64,
    /// Notices that the ring did not take.
    pub(in crate::witness) lost_ring: u64,
    /// Ring records of another ABI.
    pub(in crate::witness) malformed: u64,
    /// Notices of sockets that were dropped, since no gateway took them.
    pub(in crate::witness) dropped_notices: u64,
    /// Notices of connections that were dropped, since no gateway took them.
    pub(in crate::witness) dropped_connections: u64,
}

/// An address to look after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Address {
    /// Address and port.
    pub(super) address: SocketAddr,
    /// Whether it is a gateway's; else it is an API server's.
    pub(super) gateway: bool,
    /// The network namespace in which a loopback address is meant.
    pub(super) netns_cookie: u64,
}

/// A message as JSON.
pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(message)?)
}

/// A message from JSON.
pub(super) fn decode<T: DeserializeOwned>(payload: &[u8]) -> io::Result<T> {
    serde_json::from_slice(payload).map_err(|error| malformed(&format!("a message: {error}")))
}

/// A numbered batch: the number (u64, little-endian), then each record's length (u16, little-endian) and its
/// bytes as they lie in the ring.
pub(super) fn encode_batch(number: u64, records: &[RingRecord]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + records.len() * (CONNECTION_NOTICE_BYTES + 2));
    bytes.extend_from_slice(&number.to_le_bytes());
    for record in records {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 2]);
        match record {
            RingRecord::Socket(notice) => put_notice(&mut bytes, notice),
            RingRecord::Connection(notice) => put_connection(&mut bytes, notice),
        }
        let length = (bytes.len() - start - 2) as u16;
        bytes[start..start + 2].copy_from_slice(&length.to_le_bytes());
    }
    bytes
}

/// Number and records of a batch.
pub(super) fn decode_batch(payload: &[u8]) -> io::Result<(u64, Vec<RingRecord>)> {
    let (number, mut rest) =
        payload.split_first_chunk().ok_or_else(|| malformed("a batch without a number"))?;
    let mut records = Vec::new();
    while !rest.is_empty() {
        if records.len() == BATCH_RECORDS_MAX {
            return Err(malformed("a batch with too many records"));
        }
        let cut = || malformed("a batch that ends within a record");
        let (length, after) = rest.split_first_chunk().ok_or_else(cut)?;
        let (record, after) =
            after.split_at_checked(u16::from_le_bytes(*length).into()).ok_or_else(cut)?;
        let record =
            RingRecord::parse(record).ok_or_else(|| malformed("a record of another ABI"))?;
        records.push(record);
        rest = after;
    }
    Ok((u64::from_le_bytes(*number), records))
}

const _: () = assert!(BATCH_RECORDS_MAX * (CONNECTION_NOTICE_BYTES + 2) + 8 <= PAYLOAD_BYTES_MAX);
const _: () = assert!(CONNECTION_NOTICE_BYTES > NOTICE_BYTES && CONNECTION_NOTICE_BYTES < 1 << 16);

/// Native byte order, as in the ring: both ends run on one machine.
fn put_head(into: &mut Vec<u8>, head: &Head) {
    into.extend_from_slice(&head.version.to_ne_bytes());
    into.extend_from_slice(&head.kind.to_ne_bytes());
    into.extend_from_slice(&head.cpu.to_ne_bytes());
    doubles(into, &[head.seq, head.ktime_ns, head.cookie]);
}

fn put_notice(into: &mut Vec<u8>, notice: &Notice) {
    put_head(into, &notice.head);
    doubles(into, &[notice.sent_bytes, notice.received_bytes]);
    words(into, &notice.detail);
    words(into, &[notice.role, notice.owner_tgid]);
}

fn put_connection(into: &mut Vec<u8>, notice: &ConnectionNotice) {
    put_head(into, &notice.head);
    doubles(into, &[notice.netns_cookie, notice.cgroup_id]);
    words(into, &[notice.tgid, notice.pid]);
    into.extend_from_slice(&notice.comm);
    words(into, &notice.local);
    words(into, &notice.remote);
    into.extend_from_slice(&notice.local_port.to_ne_bytes());
    into.extend_from_slice(&notice.remote_port.to_ne_bytes());
    words(into, &[notice.role, notice.flags, notice.old_state]);
    doubles(into, &[notice.sent_bytes, notice.received_bytes]);
    doubles(into, &[notice.tcp_acked_bytes, notice.tcp_received_bytes]);
    words(into, &[notice.srtt_us, notice.retransmits]);
    doubles(into, &[notice.connect_ns]);
}

fn doubles(into: &mut Vec<u8>, values: &[u64]) {
    values.iter().for_each(|value| into.extend_from_slice(&value.to_ne_bytes()));
}

fn words(into: &mut Vec<u8>, values: &[u32]) {
    values.iter().for_each(|value| into.extend_from_slice(&value.to_ne_bytes()));
}

pub(super) fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use recorder_ebpf::{ABI_VERSION, kind};

    use super::*;

    fn head(kind: u16) -> Head {
        Head { version: ABI_VERSION, kind, cpu: 3, seq: 7, ktime_ns: 1 << 40, cookie: 42 }
    }

    fn records() -> Vec<RingRecord> {
        let notice = Notice {
            head: head(kind::STATE),
            sent_bytes: 1 << 33,
            received_bytes: 9,
            detail: [1, 8],
            role: 2,
            owner_tgid: 4_711,
        };
        let connection = ConnectionNotice {
            head: head(kind::CLOSED),
            netns_cookie: 1,
            cgroup_id: 2,
            tgid: 3,
            pid: 4,
            comm: *b"kubectl\0\0\0\0\0\0\0\0\0",
            local: [5, 6, 7, 8],
            remote: [9, 10, 11, 12],
            local_port: 13,
            remote_port: 14,
            role: 15,
            flags: 16,
            old_state: 17,
            sent_bytes: 18,
            received_bytes: 19,
            tcp_acked_bytes: 20,
            tcp_received_bytes: 21,
            srtt_us: 22,
            retransmits: 23,
            connect_ns: 24,
        };
        vec![RingRecord::Socket(notice), RingRecord::Connection(connection)]
    }

    #[test]
    fn a_batch_is_read_back_record_by_record() {
        let bytes = encode_batch(5, &records());
        assert_eq!(bytes.len(), 8 + 2 + NOTICE_BYTES + 2 + CONNECTION_NOTICE_BYTES);
        assert_eq!(decode_batch(&bytes).expect("our own"), (5, records()));
        let whole_records = [8, 8 + 2 + NOTICE_BYTES];
        for cut in 0..bytes.len() {
            let decoded = decode_batch(&bytes[..cut]);
            assert_eq!(decoded.is_ok(), whole_records.contains(&cut), "cut at {cut}");
        }
        let many = vec![records()[0]; BATCH_RECORDS_MAX + 1];
        assert!(decode_batch(&encode_batch(1, &many)).is_err(), "above the bound");
    }

    #[test]
    fn a_header_names_length_and_form() {
        for form in [Form::Json, Form::Batch] {
            let bytes = header(form, &[0; 300]).expect("short enough");
            assert_eq!(parse_header(bytes).expect("our own"), (300, form));
        }
        assert!(header(Form::Json, &vec![0; PAYLOAD_BYTES_MAX + 1]).is_err());
        assert!(parse_header([1, 0, 16, 0, 1, 0, 0, 0]).is_err(), "a byte above 1 MiB");
        assert!(parse_header([1, 0, 0, 0, 3, 0, 0, 0]).is_err(), "an unknown form");
    }

    #[test]
    fn messages_are_what_the_documents_say() {
        let message = FromGateway::Endpoints {
            request: 4,
            addresses: vec![Address {
                address: "10.96.0.1:443".parse().expect("an address"),
                gateway: false,
                netns_cookie: 0,
            }],
        };
        let text = r#"{"say":"endpoints","request":4,"addresses":[{"address":"10.96.0.1:443","gateway":false,"netnsCookie":0}]}"#;
        assert_eq!(encode(&message).expect("JSON"), text.as_bytes());
        assert_eq!(decode::<FromGateway>(text.as_bytes()).expect("ours"), message);
        assert!(decode::<FromGateway>(b"{\"say\":\"load\"}").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok((number, records)) = decode_batch(&bytes) {
                prop_assert_eq!(decode_batch(&encode_batch(number, &records)).expect("ours"), (number, records));
            }
            drop(decode::<FromProbe>(&bytes));
        }
    }
}
