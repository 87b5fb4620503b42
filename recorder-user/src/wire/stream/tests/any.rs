//! Any bytes in any chunking: the same events, no panic, and no more memory than is stated.

use proptest::prelude::*;

use super::{
    encode::{KEY, Spdy, close, data, frame, goaway, message, reset},
    *,
};

fn agreements() -> Vec<Agreement> {
    vec![
        command("SPDY/3.1", "v4.channel.k8s.io"),
        command("SPDY/3.1", "channel.k8s.io"),
        command("websocket", "v5.channel.k8s.io"),
        command("websocket", "v4.base64.channel.k8s.io"),
        command("websocket", "channel.k8s.io"),
        port_forward("SPDY/3.1", "portforward.k8s.io", &[]),
        port_forward("websocket", "v4.channel.k8s.io", &[80, 443]),
        port_forward("websocket", "v4.base64.channel.k8s.io", &[80]),
        tunnel::agreement(),
    ]
}

/// One thing that a peer may do.
#[derive(Clone, Debug)]
enum Act {
    Open(u8),
    Data(u8, Vec<u8>, bool),
    Reset(u8),
    Message(u8, Vec<u8>, bool),
    Fragment(bool, u8, Vec<u8>),
    Ping,
    End,
    Raw(Vec<u8>),
}

fn acts() -> impl Strategy<Value = Vec<(bool, Act)>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let act = prop_oneof![
        4 => any::<u8>().prop_map(Act::Open),
        8 => (0u8..12, bytes(), any::<bool>()).prop_map(|(id, bytes, fin)| Act::Data(id, bytes, fin)),
        1 => (0u8..12).prop_map(Act::Reset),
        8 => (0u8..8, bytes(), any::<bool>())
            .prop_map(|(channel, bytes, json)| Act::Message(channel, bytes, json)),
        3 => (any::<bool>(), 0u8..3, bytes())
            .prop_map(|(last, opcode, bytes)| Act::Fragment(last, opcode, bytes)),
        1 => Just(Act::Ping),
        1 => Just(Act::End),
        1 => bytes().prop_map(Act::Raw),
    ];
    prop::collection::vec((any::<bool>(), act), 0..30)
}

/// Writes acts in the connection's framing, or now and then in another.
fn talk(agreement: &Agreement, acts: &[(bool, Act)]) -> Talk {
    let mut spdy = [Spdy::new(), Spdy::new()];
    let mut next = [1, 2];
    let framed = |side: Side, bytes: Vec<u8>| {
        if agreement.protocol == Protocol::PortForwardTunnel {
            frame(true, 2, if side == Client { KEY } else { None }, &bytes)
        } else {
            bytes
        }
    };
    acts.iter()
        .map(|(client, act)| {
            let side = if *client { Client } else { Server };
            let key = if *client { KEY } else { None };
            let index = side as usize;
            let bytes = match act {
                Act::Open(kind) => {
                    let kinds = ["error", "stdin", "stdout", "stderr", "resize", "data", "odd"];
                    let kind = kinds[usize::from(*kind) % kinds.len()];
                    next[index] += 2;
                    framed(side, spdy[index].port(next[index] - 2, kind, 80, next[index] / 4))
                }
                Act::Data(id, bytes, fin) => framed(side, data(u32::from(*id), bytes, *fin)),
                Act::Reset(id) => framed(side, reset(u32::from(*id) + 1, 5)),
                Act::Message(3, _, true) => message(key, 3, &status_json(7)),
                Act::Message(4, _, true) => message(key, 4, b"{\"Width\":1,\"Height\":2}"),
                Act::Message(channel, bytes, _) => message(key, *channel, bytes),
                Act::Fragment(last, opcode, bytes) => frame(*last, *opcode, key, bytes),
                Act::Ping => framed(side, encode::ping(1)),
                Act::End if next[0] % 4 == 1 => framed(side, goaway(1)),
                Act::End => close(key, 1000),
                Act::Raw(bytes) => bytes.clone(),
            };
            (side, bytes)
        })
        .collect()
}

/// The parts, cut again at other places.
fn recut(talk: &Talk, cuts: &[usize]) -> Talk {
    let mut cuts = cuts.iter().cycle();
    let mut parts = Vec::new();
    for (side, bytes) in talk {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let length = (*cuts.next().expect("some cuts")).min(rest.len());
            let (head, tail) = rest.split_at(length);
            parts.push((*side, head.to_vec()));
            rest = tail;
        }
    }
    parts
}

/// Decodes with what the gateway asks on the way; none of it changes the events.
fn asked(agreement: &Agreement, talk: &Talk) -> Vec<Seen> {
    let mut decoder = Decoder::new(agreement.clone());
    let mut seen = Vec::new();
    for (side, bytes) in talk {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let taken = decoder
                .push_to_boundary(*side, rest, &mut |event| collect(&mut seen, rest, &event));
            assert!(taken == rest.len() || decoder.at_boundary(*side));
            rest = &rest[taken..];
            if let Some((first, tail)) = rest.split_first() {
                let first = [*first];
                decoder.push(*side, &first, &mut |event| collect(&mut seen, &first, &event));
                rest = tail;
            }
        }
        let closing = decoder.closing(b"{\"status\":\"Failure\"}", "over");
        assert!(closing.is_none() || decoder.at_boundary(Server));
    }
    decoder.finish(&mut |event| seen.push(Seen::of(&event)));
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_chunking_says_the_same(
        acts in acts(),
        cuts in prop::collection::vec(1usize..20, 1..10),
    ) {
        for agreement in agreements() {
            let talk = talk(&agreement, &acts);
            let whole = decode(&mut Decoder::new(agreement.clone()), &talk, usize::MAX);
            let pieces = recut(&talk, &cuts);
            let cut = decode(&mut Decoder::new(agreement.clone()), &pieces, usize::MAX);
            prop_assert_eq!(&cut, &whole, "{:?} {:?}", &agreement, &talk);
            let bytes = decode(&mut Decoder::new(agreement.clone()), &talk, 1);
            prop_assert_eq!(&bytes, &whole, "{:?} {:?}", &agreement, &talk);
        }
    }

    #[test]
    fn what_the_gateway_asks_changes_nothing(acts in acts()) {
        for agreement in agreements() {
            let talk = talk(&agreement, &acts);
            let whole = decode(&mut Decoder::new(agreement.clone()), &talk, usize::MAX);
            prop_assert_eq!(asked(&agreement, &talk), whole, "{:?} {:?}", &agreement, &talk);
        }
    }

    /// What the gateway appends at a boundary is understood, ends the server's side, and leaves nothing open.
    #[test]
    fn a_closing_is_always_understood(acts in acts()) {
        for agreement in agreements() {
            let mut decoder = Decoder::new(agreement.clone());
            for (side, bytes) in &talk(&agreement, &acts) {
                decoder.push(*side, bytes, &mut |_| {});
            }
            if let Some(closing) = decoder.closing(&status_json(1), "over") {
                let seen = decode(&mut decoder, &vec![(Server, closing)], usize::MAX);
                let bad = |event: &Seen| matches!(event, Seen::Undecodable(..));
                prop_assert!(!seen.iter().any(bad), "{:?} {:?}", agreement, seen);
                prop_assert!(decoder.has_ended(Server) && decoder.at_boundary(Server));
            }
        }
    }

    #[test]
    fn any_bytes_are_safe(
        parts in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)), 0..8),
    ) {
        let talk: Talk =
            parts.into_iter().map(|(client, bytes)| (if client { Client } else { Server }, bytes)).collect();
        for agreement in agreements() {
            let whole = decode(&mut Decoder::new(agreement.clone()), &talk, usize::MAX);
            prop_assert_eq!(&decode(&mut Decoder::new(agreement.clone()), &talk, 1), &whole);
            prop_assert_eq!(asked(&agreement, &talk), whole);
        }
    }
}
