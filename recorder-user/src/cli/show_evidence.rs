//! The evidence of an account, as `recorder show` prints it.

use super::{text, units};
use crate::{
    model::{
        Account, Direction, ExchangeEnd, ExchangeSpan, Gap, Kind, Record, SessionTotals,
        SocketEvidence, Spent, Timestamp,
    },
    store::{ExchangeRecords, ExchangeRow, Reader},
};

/// Segments after the outcome's own that are looked through for the end of its connection.
const SEGMENTS_AHEAD: usize = 2;

/// Where the response ended on the client's connection: told when that closes, which is after the outcome.
pub(super) fn response_end(
    reader: &Reader,
    row: &ExchangeRow,
    records: &ExchangeRecords,
) -> Option<ExchangeEnd> {
    let cookie = records.opened.client_cookie;
    let last = row.last.filter(|_| cookie != 0)?;
    let closed = reader
        .records_of_kind_ahead(Kind::CONNECTION_CLOSED, last, SEGMENTS_AHEAD)
        .ok()?
        .map_while(Result::ok)
        .find_map(|stored| match stored.record {
            Record::ConnectionClosed(closed) if closed.evidence.cookie == cookie => Some(closed),
            _ => None,
        })?;
    closed.ends.into_iter().find(|end| end.exchange == row.exchange)
}

/// `queue 1 ms, client 0 µs, gateway 2 ms, API server 51 ms`.
pub(super) fn spent(spent: &Spent) -> String {
    let queue = spent.queue.map_or_else(
        || "kernel queue not known".to_owned(),
        |us| format!("kernel queue {}", units::latency(us)),
    );
    format!(
        "{queue}, client {}, gateway {}, API server {}",
        units::latency(spent.client),
        units::latency(spent.gateway),
        units::latency(spent.upstream),
    )
}

/// What a session's exchanges add up to: a line or two, none while there is no outcome.
pub(super) fn totals(totals: &SessionTotals) -> Vec<String> {
    let all = totals.complete + totals.gaps + totals.unwitnessed;
    if all == 0 {
        return Vec::new();
    }
    let mut lines = vec![format!(
        "totals  {all} outcomes: {} complete ({} kernel-verified), {} with gaps, {} unwitnessed",
        totals.complete, totals.kernel_verified_exchanges, totals.gaps, totals.unwitnessed,
    )];
    let mut bytes = format!(
        "bytes   bodies {} in, {} out; kernel {} in, {} out until each outcome",
        units::bytes(totals.request_bytes),
        units::bytes(totals.response_bytes),
        units::bytes(totals.client_in_bytes),
        units::bytes(totals.client_out_bytes),
    );
    if totals.interleaved > 0 {
        bytes.push_str(&format!(", without {} interleaved", totals.interleaved));
    }
    lines.push(bytes);
    lines
}

/// A line for each socket, each part of one, and each gap.
pub(super) fn lines(account: &Account, end: Option<&ExchangeEnd>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(reason) = &account.reason {
        lines.push(text::short(reason, 200));
    }
    for (name, socket) in [("client", &account.client), ("API server", &account.upstream)] {
        let Some(socket) = socket else { continue };
        lines.push(socket_text(name, socket));
        if let Some(span) = &socket.span {
            lines.extend(span_text(span, end.filter(|_| name == "client")));
        }
    }
    lines.extend(account.gaps.iter().map(text::gap));
    lines.extend(account.unseen.iter().map(unseen));
    lines
}

fn socket_text(name: &str, socket: &SocketEvidence) -> String {
    let kernel = match (socket.kernel_in_bytes, socket.kernel_out_bytes) {
        (Some(received), Some(sent)) => format!("kernel {received} B in, {sent} B out"),
        _ => "kernel not asked".into(),
    };
    let lost = match socket.lost_events {
        0 => String::new(),
        lost => format!(", {lost} notices lost"),
    };
    format!(
        "{name} socket {}: {kernel}{lost}; gateway {} B in, {} B out; plaintext {} B in, {} B out",
        socket.cookie,
        socket.gateway_in_bytes,
        socket.gateway_out_bytes,
        socket.plain_in_bytes,
        socket.plain_out_bytes,
    )
}

/// What the exchange had of the socket, and how the network was.
fn span_text(span: &ExchangeSpan, end: Option<&ExchangeEnd>) -> Vec<String> {
    let mut bytes = format!(
        "  {} B in at {}..{}{}, {} B out at {}..{}{}",
        span.in_to - span.in_from.min(span.in_to),
        span.in_from,
        span.in_to,
        times(span.first_in, span.last_in),
        span.out_to - span.out_from.min(span.out_to),
        span.out_from,
        span.out_to,
        times(span.first_out, span.last_out),
    );
    if span.interleaved {
        bytes.push_str(", shared with other exchanges");
    }
    if span.inexact {
        bytes.push_str(", taken during a call");
    }
    let mut lines = vec![bytes];
    if let Some(end) = end {
        let last = end.last_out.map_or_else(String::new, |time| format!(", last byte {time}"));
        lines.push(format!("  response over at {} B out{last}", end.out_to));
    }
    let mut network = Vec::new();
    network.extend(span.rtt_us.map(|us| format!("round trip {}", units::latency(us))));
    network.extend(span.queue_us.map(|us| format!("in the kernel's queue {}", units::latency(us))));
    if span.retransmits > 0 {
        network.push(format!("{} segments sent again", span.retransmits));
    }
    if !network.is_empty() {
        lines.push(format!("  {}", network.join(", ")));
    }
    lines
}

fn times(first: Option<Timestamp>, last: Option<Timestamp>) -> String {
    match (first, last) {
        (Some(first), Some(last)) => {
            let lasted = units::latency(u64::try_from(last.micros_since(first)).unwrap_or(0));
            format!(" ({first} for {lasted})")
        }
        (None, Some(last)) => format!(" (until {last})"),
        _ => String::new(),
    }
}

fn unseen(span: &Gap) -> String {
    let way = match span.direction {
        Direction::Request => "request",
        Direction::Response => "response",
    };
    format!("not seen, {way}: {} B at {}..{}", span.bytes, span.from, span.to)
}
