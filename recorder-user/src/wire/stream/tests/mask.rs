use super::{
    channels::text,
    encode::{KEY, Spdy, data, frame, message},
    *,
};
use crate::wire::stream::{Base64Carry, StdinMask};

/// The client's bytes as they may be recorded, and how many of them were replaced.
fn masked(agreement: &Agreement, bytes: &[u8], chunk: usize) -> (Vec<u8>, u64) {
    let mut decoder = Decoder::new(agreement.clone());
    let mut mask = StdinMask::new(agreement);
    let mut copy = bytes.to_vec();
    for (part, copy) in bytes.chunks(chunk).zip(copy.chunks_mut(chunk)) {
        mask.push(&mut decoder, part, copy, &mut |_| {});
    }
    (copy, mask.masked_bytes())
}

/// Masked bytes decode to the same events with zeros for stdin, and hold nothing of it.
fn check_masked(
    agreement: &Agreement,
    bytes: &[u8],
    stdin: &[&str],
    zeros: &dyn Fn(&str) -> Vec<u8>,
) {
    let original =
        decode(&mut Decoder::new(agreement.clone()), &vec![(Client, bytes.to_vec())], usize::MAX);
    let mut expected = original;
    let mut sizes = 0;
    for event in &mut expected {
        if let Seen::Data(Client, Channel::Stdin | Channel::Unknown(_), data) = event {
            let text = std::str::from_utf8(data).expect("text");
            assert!(stdin.contains(&text), "{text}");
            sizes += text.len() as u64;
            *data = zeros(text);
        }
    }
    for chunk in [usize::MAX, 1, 2, 3, 5, 11] {
        let (copy, count) = masked(agreement, bytes, chunk);
        assert_eq!(copy.len(), bytes.len());
        assert_eq!(count, sizes, "in chunks of {chunk}");
        let seen = decode(&mut Decoder::new(agreement.clone()), &vec![(Client, copy)], usize::MAX);
        assert_eq!(seen, expected, "in chunks of {chunk}");
    }
}

#[test]
fn stdin_becomes_zeros_and_nothing_else_does() {
    let zeros = |text: &str| vec![0; text.len()];
    let resize = b"{\"Width\":1,\"Height\":1}";
    let bytes = [
        message(KEY, 4, resize),
        message(KEY, 0, b"hunter2"),
        frame(true, 9, KEY, b"ping"),
        message(None, 0, b"unmasked"),
        frame(false, 2, KEY, &[0, b'p']),
        frame(true, 0, KEY, b"assword"),
        message(KEY, 9, b"odd"),
        message(KEY, 255, &[0]),
    ]
    .concat();
    let agreement = command("websocket", "v5.channel.k8s.io");
    let stdin = ["hunter2", "unmasked", "password", "odd"];
    check_masked(&agreement, &bytes, &stdin, &zeros);

    let mut client = Spdy::new();
    let bytes = [
        client.channel(1, "stdin"),
        client.channel(3, "resize"),
        data(1, b"hunter2", false),
        data(3, resize, false),
        data(1, b"more", true),
        data(5, b"odd", true),
    ]
    .concat();
    let agreement = command("SPDY/3.1", "v4.channel.k8s.io");
    check_masked(&agreement, &bytes, &["hunter2", "more", "odd"], &zeros);
}

#[test]
fn base64_keeps_its_sizes() {
    let bytes = [
        text(KEY, 0, b"hunter2"),
        text(KEY, 0, b"four"),
        frame(true, 1, KEY, b"0aGk=\r\n"),
        text(KEY, 4, b"{\"Width\":1}"),
    ]
    .concat();
    let agreement = command("websocket", "v4.base64.channel.k8s.io");
    let zeros = |text: &str| {
        text.bytes().map(|byte| if b"=\r\n".contains(&byte) { byte } else { b'A' }).collect()
    };
    check_masked(&agreement, &bytes, &["aHVudGVyMg==", "Zm91cg==", "aGk=\r\n"], &zeros);
    let (copy, _) = masked(&agreement, &bytes, usize::MAX);
    let (mut plain, mut carry) = (Vec::new(), Base64Carry::new());
    Decoder::new(agreement).push(Client, &copy, &mut |event| {
        if let EventKind::Data { channel: Channel::Stdin, data } = event.kind {
            carry.push(&data, &mut plain).expect("base64");
        }
    });
    assert_eq!(plain, [0; 7 + 4 + 2]);
}

#[test]
fn what_is_not_understood_is_zeros_from_there_on() {
    let good = message(KEY, 0, b"hunter2");
    let bad = [&[0x83, 0x85][..], b"hunter2 again"].concat();
    let agreement = command("websocket", "v5.channel.k8s.io");
    let bytes = [&good[..], &bad, b"and again"].concat();
    for chunk in [usize::MAX, 5, 14, 16] {
        let (copy, count) = masked(&agreement, &bytes, chunk);
        assert_eq!(copy.len(), bytes.len());
        assert!(copy[good.len() + 2..].iter().all(|byte| *byte == 0), "in chunks of {chunk}");
        let kept = masked(&agreement, &good, usize::MAX).0;
        assert_eq!(copy[..good.len()], kept, "in chunks of {chunk}");
        assert!(count >= (7 + bytes.len() - good.len() - 2) as u64);
    }
}

#[test]
fn opaque_bytes_are_zeros() {
    let agreement = Agreement::of(Asked::Command, "websocket", Some("v9.channel.k8s.io"), &[]);
    assert_eq!(masked(&agreement, b"hunter2", 3), (vec![0; 7], 7));
}
