//! What both sides say, encoded by independent code, against the events that come out.

mod agreement;
mod any;
mod carry;
mod channels;
mod closing;
mod encode;
mod mask;
mod spdy;
mod tunnel;
mod websocket;

use super::{
    Agreement, Asked, Channel, CommandStatus, Decoder, Event, EventKind, PortStream, Protocol, Side,
};

/// An event that owns its data, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Opened(Side, Channel),
    Data(Side, Channel, Vec<u8>),
    Resize(u16, u16),
    Status(CommandStatus),
    Closed(Side, Channel),
    Reset(Side, Channel, u32),
    Ended(Side, u32),
    Doubtful(Side, u64),
    Undecodable(Side, u64),
}

use Side::{Client, Server};

impl Seen {
    fn of(event: &Event<'_>) -> Self {
        let side = event.side;
        match &event.kind {
            EventKind::Opened(channel) => Self::Opened(side, *channel),
            EventKind::Data { channel, data } => {
                Self::Data(side, *channel, data.unmasked().into_owned())
            }
            EventKind::Resize { columns, rows } => Self::Resize(*columns, *rows),
            EventKind::Status(status) => Self::Status(status.clone()),
            EventKind::Closed(channel) => Self::Closed(side, *channel),
            EventKind::Reset { channel, code } => Self::Reset(side, *channel, *code),
            EventKind::Ended { code } => Self::Ended(side, *code),
            EventKind::Doubtful { offset, .. } => Self::Doubtful(side, *offset),
            EventKind::Undecodable { offset, .. } => Self::Undecodable(side, *offset),
        }
    }

    fn data(side: Side, channel: Channel, bytes: impl AsRef<[u8]>) -> Self {
        Self::Data(side, channel, bytes.as_ref().to_vec())
    }
}

/// Bytes as they pass by.
type Talk = Vec<(Side, Vec<u8>)>;

/// Decodes `talk`, each part of it in chunks of `chunk` bytes. Pieces of one frame or message are one event.
fn decode(decoder: &mut Decoder, talk: &Talk, chunk: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    for (side, bytes) in talk {
        for part in bytes.chunks(chunk) {
            decoder.push(*side, part, &mut |event| collect(&mut seen, part, &event));
        }
    }
    decoder.finish(&mut |event| seen.push(Seen::of(&event)));
    seen
}

fn collect(seen: &mut Vec<Seen>, pushed: &[u8], event: &Event<'_>) {
    let next = Seen::of(event);
    if let EventKind::Data { data, .. } = &event.kind {
        let end = data.start + data.wire.len();
        assert_eq!(pushed.get(data.start..end), Some(data.wire), "a payload lies where it says");
        assert!(!data.wire.is_empty(), "no piece is empty");
        if let (Seen::Data(side, channel, more), false) = (&next, data.opens) {
            let same =
                |seen: &&mut Seen| matches!(seen, Seen::Data(s, c, _) if s == side && c == channel);
            let Some(Seen::Data(_, _, bytes)) = seen.iter_mut().rev().find(same) else {
                panic!("{next:?} goes on with nothing in {seen:?}");
            };
            bytes.extend(more);
            return;
        }
    }
    seen.push(next);
}

/// Decodes `talk` in many chunkings, which must all say the same.
#[track_caller]
fn check(agreement: &Agreement, talk: &Talk, expected: &[Seen]) {
    for chunk in [usize::MAX, 1, 2, 3, 5, 7, 8, 13, 64, 1000] {
        let seen = decode(&mut Decoder::new(agreement.clone()), talk, chunk);
        assert_eq!(seen, expected, "in chunks of {chunk}");
    }
}

fn command(upgrade: &str, subprotocol: &str) -> Agreement {
    let agreement = Agreement::of(Asked::Command, upgrade, Some(subprotocol), &[]);
    assert!(matches!(agreement.protocol, Protocol::RemoteCommand { .. }), "{agreement:?}");
    agreement
}

fn port_forward(upgrade: &str, subprotocol: &str, ports: &[u16]) -> Agreement {
    let agreement = Agreement::of(Asked::PortForward, upgrade, Some(subprotocol), ports);
    assert_ne!(agreement.protocol, Protocol::Opaque);
    agreement
}

fn exited(exit_code: i32) -> CommandStatus {
    if exit_code == 0 {
        return CommandStatus { success: true, exit_code: Some(0), ..Default::default() };
    }
    CommandStatus {
        success: false,
        exit_code: Some(exit_code),
        reason: "NonZeroExitCode".into(),
        message: format!("command terminated with non-zero exit code: {exit_code}"),
    }
}

/// A `Status` as kubelets write it.
fn status_json(exit_code: i32) -> Vec<u8> {
    if exit_code == 0 {
        return br#"{"metadata":{},"status":"Success"}"#.to_vec();
    }
    format!(
        r#"{{"metadata":{{}},"status":"Failure","message":"command terminated with non-zero exit code: {exit_code}","reason":"NonZeroExitCode","details":{{"causes":[{{"reason":"ExitCode","message":"{exit_code}"}}]}}}}"#
    )
    .into_bytes()
}

const fn port(request: u32, port: u16) -> PortStream {
    PortStream { request, port }
}
