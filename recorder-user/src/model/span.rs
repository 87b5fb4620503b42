//! What one exchange had of its connections, and where its time went.

use serde::{Deserialize, Serialize};

use super::{ExchangeId, Timestamp, is_false, is_zero};

/// What passed on one socket while an exchange was under way, by offset among all bytes of that socket and
/// direction. Offsets are the kernel's totals where the socket is witnessed, else the gateway's counts of
/// ciphertext.
///
/// The outcome is written before the response's end goes to the client: `out_to` of a client's socket is where
/// that socket stood then. Where the response ended is told when the connection closes ([`ExchangeEnd`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExchangeSpan {
    /// Bytes that had been received when the exchange began. The head of a client's request was read by then
    /// and counts as the exchange's own: this is where its first byte is.
    pub in_from: u64,
    /// Bytes received when it settled.
    pub in_to: u64,
    /// Bytes that had been sent when it began.
    pub out_from: u64,
    /// Bytes sent when it settled.
    pub out_to: u64,
    /// Arrival of the first inbound byte: of the request's head, or of what the API server sent first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_in: Option<Timestamp>,
    /// When the last inbound byte was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_in: Option<Timestamp>,
    /// When the first outbound byte was sent; none when nothing was, or when it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_out: Option<Timestamp>,
    /// When the last outbound byte was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_out: Option<Timestamp>,
    /// Other exchanges used the connection meanwhile (HTTP/2): all numbers are of all of them together, and
    /// the exchange's own bytes are within the offsets.
    #[serde(default, skip_serializing_if = "is_false")]
    pub interleaved: bool,
    /// The kernel's totals and the gateway's own were not equal when one of the ends was taken: a call was under
    /// way, and that end may be off by its bytes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inexact: bool,
    /// How long received bytes waited in the kernel for the gateway to read them, in µs; none where the tier
    /// does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_us: Option<u64>,
    /// Segments that had to be sent again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retransmits: u64,
    /// Smoothed round-trip time in µs; none where the tier does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
}

/// Where an exchange's response ended on its client's connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExchangeEnd {
    /// The exchange, refused ones too.
    pub exchange: ExchangeId,
    /// Bytes that had been sent on the connection when the response was over.
    pub out_to: u64,
    /// When the last of them was sent; none where the tier does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_out: Option<Timestamp>,
}

/// Where the time of an exchange went, in whole microseconds. The parts add up to the time from the arrival of
/// the request's head to the outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spent {
    /// Bytes were there, in the kernel, and the gateway had not read them: on both sockets. None where the
    /// tier does not tell; then it is in the other parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u64>,
    /// Waiting for the client: for its request's body, and for it to take the response. Network included.
    pub client: u64,
    /// Waiting for the API server: to take the request, to answer, and for the response's body. Network and the
    /// making of a connection included.
    pub upstream: u64,
    /// All the rest: identify, authorize, record, TLS, HTTP.
    pub gateway: u64,
}

impl Spent {
    /// The sum of the parts.
    #[must_use]
    pub fn total(&self) -> u64 {
        let parts = [self.queue.unwrap_or(0), self.client, self.upstream, self.gateway];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}
