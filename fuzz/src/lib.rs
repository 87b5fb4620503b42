//! What must hold for any bytes on an upgraded connection, whatever its agreement.

/// The codecs themselves. The module is taken by its path, not with its crate: that takes seconds to build with
/// a sanitizer, and eBPF, storage and compression in C would take many minutes.
#[path = "../../recorder-user/src/wire/mod.rs"]
pub mod wire;

use wire::stream::{
    Agreement, Asked, Channel, Decoder, Event, EventKind, Protocol, Side, StdinMask,
};

/// Both sides' bytes in the order in which they pass by. As fuzz input: a byte whose lowest bit is set for
/// the server, a length (two bytes, big-endian), and so many bytes or what there is; and so on.
pub struct Talk<'a>(Vec<(Side, &'a [u8])>);

impl<'a> Talk<'a> {
    /// Reads fuzz input.
    pub fn of(mut input: &'a [u8]) -> Self {
        let mut parts = Vec::new();
        while let Some(([side, high, low], rest)) = input.split_first_chunk() {
            let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
            let (part, rest) = rest.split_at(length);
            let side = if side & 1 == 0 { Side::Client } else { Side::Server };
            parts.push((side, part));
            input = rest;
        }
        Self(parts)
    }
}

/// An event without the chunking of its data.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Data(Side, Channel, Vec<u8>),
    Other(String),
}

/// Decodes, in chunks of `chunk` bytes; `ask` also asks what a gateway asks on the way.
fn said(agreement: &Agreement, talk: &Talk<'_>, chunk: usize, ask: bool) -> Vec<Said> {
    let mut decoder = Decoder::new(agreement.clone());
    let mut said = Vec::new();
    for (side, bytes) in &talk.0 {
        for part in bytes.chunks(chunk) {
            let mut rest = part;
            if ask {
                let taken = decoder
                    .push_to_boundary(*side, part, &mut |event| hear(&mut said, part, &event));
                assert!(taken == part.len() || decoder.at_boundary(*side));
                rest = &part[taken..];
            }
            decoder.push(*side, rest, &mut |event| hear(&mut said, rest, &event));
        }
    }
    decoder.finish(&mut |event| said.push(Said::Other(format!("{:?}", event.kind))));
    said
}

fn hear(said: &mut Vec<Said>, pushed: &[u8], event: &Event<'_>) {
    let EventKind::Data { channel, data } = &event.kind else {
        return said.push(Said::Other(format!("{event:?}")));
    };
    assert_eq!(pushed.get(data.start..data.start + data.wire.len()), Some(data.wire));
    let same =
        |at: &&mut Said| matches!(at, Said::Data(s, c, _) if s == &event.side && c == channel);
    match said.iter_mut().rev().find(same) {
        Some(Said::Data(_, _, bytes)) if !data.opens => bytes.extend_from_slice(&data.unmasked()),
        _ => said.push(Said::Data(event.side, *channel, data.unmasked().into_owned())),
    }
}

/// The same events in every chunking; a closing that is understood; a mask that hides stdin and nothing else.
pub fn check(agreement: &Agreement, input: &[u8]) {
    let talk = Talk::of(input);
    let whole = said(agreement, &talk, usize::MAX, false);
    assert_eq!(said(agreement, &talk, 1 + input.len() % 5, false), whole);
    if agreement.protocol != Protocol::Opaque {
        assert_eq!(said(agreement, &talk, 3 + input.len() % 50, true), whole);
    }
    check_closing(agreement, &talk);
    check_mask(agreement, &talk);
}

fn check_closing(agreement: &Agreement, talk: &Talk<'_>) {
    let mut decoder = Decoder::new(agreement.clone());
    for (side, bytes) in &talk.0 {
        decoder.push(*side, bytes, &mut |_| {});
    }
    if let Some(closing) = decoder.closing(br#"{"status":"Failure"}"#, "over") {
        decoder.push(Side::Server, &closing, &mut |event| {
            assert!(!matches!(event.kind, EventKind::Undecodable { .. }), "{event:?}");
        });
        assert!(decoder.has_ended(Side::Server) && decoder.at_boundary(Side::Server));
    }
}

fn check_mask(agreement: &Agreement, talk: &Talk<'_>) {
    let base64 = matches!(
        agreement.protocol,
        Protocol::RemoteCommand { base64: true, .. }
            | Protocol::PortForwardChannels { base64: true }
    );
    let mut decoder = Decoder::new(agreement.clone());
    let mut mask = StdinMask::new(agreement);
    let (mut copies, mut undecodable) = (Vec::new(), false);
    for (side, bytes) in &talk.0 {
        let mut copy = bytes.to_vec();
        match side {
            Side::Server => decoder.push(*side, bytes, &mut |_| {}),
            Side::Client => mask.push(&mut decoder, bytes, &mut copy, &mut |event| {
                undecodable |= matches!(event.kind, EventKind::Undecodable { .. });
            }),
        }
        copies.push((*side, copy));
    }
    if undecodable {
        return;
    }
    let copies = Talk(copies.iter().map(|(side, copy)| (*side, copy.as_slice())).collect());
    let mut expected = said(agreement, talk, usize::MAX, false);
    for event in &mut expected {
        if let Said::Data(Side::Client, Channel::Stdin | Channel::Unknown(_), data) = event {
            for byte in data.iter_mut().filter(|byte| !base64 || !b"=\r\n".contains(byte)) {
                *byte = if base64 { b'A' } else { 0 };
            }
        }
    }
    assert_eq!(said(agreement, &copies, usize::MAX, false), expected);
}

/// exec or attach with this `Upgrade` and subprotocol.
pub fn command(upgrade: &str, subprotocol: &str) -> Agreement {
    Agreement::of(Asked::Command, upgrade, Some(subprotocol), &[])
}

/// port-forward of two ports.
pub fn port_forward(upgrade: &str, subprotocol: &str) -> Agreement {
    Agreement::of(Asked::PortForward, upgrade, Some(subprotocol), &[80, 443])
}

/// Checks input under the agreement that its first byte chooses.
pub fn check_one_of(agreements: &[Agreement], input: &[u8]) {
    if let Some((first, rest)) = input.split_first() {
        check(&agreements[usize::from(*first) % agreements.len()], rest);
    }
}
