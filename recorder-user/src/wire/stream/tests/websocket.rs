use super::{
    encode::{KEY, close, frame, message},
    *,
};

const V5: &str = "v5.channel.k8s.io";

#[test]
fn a_command_in_messages() {
    let talk = vec![
        (Server, message(None, 1, b"")),
        (Client, message(KEY, 4, b"{\"Width\":211,\"Height\":50}\n")),
        (Client, message(KEY, 0, b"hello")),
        (Client, frame(true, 9, KEY, b"are you there")),
        (Server, frame(true, 10, None, b"are you there")),
        (Server, message(None, 1, &[b'o'; 200])),
        (Server, message(None, 2, &[b'e'; 70_000])),
        (Client, message(KEY, 255, &[0])),
        (Server, message(None, 3, &status_json(1))),
        (Server, close(None, 1000)),
        (Client, frame(true, 8, KEY, b"")),
    ];
    check(
        &command("websocket", V5),
        &talk,
        &[
            Seen::data(Client, Channel::Resize, "{\"Width\":211,\"Height\":50}\n"),
            Seen::Resize(211, 50),
            Seen::data(Client, Channel::Stdin, "hello"),
            Seen::data(Server, Channel::Stdout, [b'o'; 200]),
            Seen::data(Server, Channel::Stderr, [b'e'; 70_000]),
            Seen::Closed(Client, Channel::Stdin),
            Seen::data(Server, Channel::Error, status_json(1)),
            Seen::Status(exited(1)),
            Seen::Ended(Server, 1000),
            Seen::Ended(Client, 1005),
        ],
    );
}

#[test]
fn fragments_are_one_message_and_only_its_first_byte_is_a_channel() {
    let fragments = |key| {
        [
            frame(false, 2, key, b""),
            frame(false, 0, key, &[0]),
            frame(true, 9, key, b"between"),
            frame(false, 0, key, b"\x01\x02"),
            frame(true, 0, key, b"\x03"),
            message(key, 7, b"odd"),
        ]
        .concat()
    };
    let said = |side| {
        [
            Seen::data(side, Channel::Stdin, b"\x01\x02\x03"),
            Seen::data(side, Channel::Unknown(7), "odd"),
        ]
    };
    let mut expected = vec![Seen::Doubtful(Client, 0)];
    expected.extend(said(Client));
    check(&command("websocket", V5), &vec![(Client, fragments(KEY))], &expected);
    check(&command("websocket", V5), &vec![(Server, fragments(None))], &said(Server));
}

#[test]
fn lengths_in_every_form() {
    for length in [0, 1, 124, 125, 126, 127, 0xfffe, 0xffff, 0x1_0000] {
        let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
        let mut expected = vec![Seen::data(Client, Channel::Stdin, &payload)];
        expected.retain(|_| length > 0);
        expected.push(Seen::data(Client, Channel::Stdin, "."));
        let talk = vec![(Client, message(KEY, 0, &payload)), (Client, message(KEY, 0, b"."))];
        for chunk in [usize::MAX, 1, 4099] {
            let seen = decode(&mut Decoder::new(command("websocket", V5)), &talk, chunk);
            assert_eq!(seen, expected, "{length} in chunks of {chunk}");
        }
    }
    // Longer than it must be, which readers take.
    let long = [&[0x82, 127, 0, 0, 0, 0, 0, 0, 0, 2, 1][..], b"x"].concat();
    check(
        &command("websocket", V5),
        &vec![(Server, long)],
        &[Seen::data(Server, Channel::Stdout, "x")],
    );
}

#[test]
fn frames_that_are_no_websocket() {
    let first = message(KEY, 0, b"fine");
    let offset = first.len() as u64;
    for (what, bad) in [
        ("reserved bit 1", vec![0xc2, 0x80]),
        ("reserved bit 2", vec![0xa2, 0x80]),
        ("reserved bit 3", vec![0x92, 0x80]),
        ("opcode 3", vec![0x83, 0x80, 0, 0, 0, 0]),
        ("opcode 15", vec![0x8f, 0x80, 0, 0, 0, 0]),
        ("a continuation of nothing", frame(true, 0, KEY, b"x")),
        ("a fragmented ping", frame(false, 9, KEY, b"x")),
        ("a long ping", frame(true, 9, KEY, &[0; 126])),
        ("a length of 2^63", [&[0x82, 0xff, 0x80][..], &[0; 11]].concat()),
        ("a close signal without a channel", message(KEY, 255, b"")),
        ("a close signal for two channels", message(KEY, 255, &[0, 1])),
    ] {
        for chunk in [usize::MAX, 1] {
            let padded = [&bad[..], &[0x80; 14]].concat();
            let talk = vec![(Client, [first.clone(), padded].concat()), (Client, first.clone())];
            let seen = decode(&mut Decoder::new(command("websocket", V5)), &talk, chunk);
            let expected =
                [Seen::data(Client, Channel::Stdin, "fine"), Seen::Undecodable(Client, offset)];
            assert_eq!(seen, expected, "{what} in chunks of {chunk}");
        }
    }
    let inside = [frame(false, 2, None, &[1]), message(None, 1, b"x")].concat();
    let seen = decode(&mut Decoder::new(command("websocket", V5)), &vec![(Server, inside)], 1);
    assert_eq!(seen, [Seen::Undecodable(Server, 3)]);
}

/// Before version 5, 255 is a channel like any other.
#[test]
fn the_close_signal_is_of_version_5() {
    check(
        &command("websocket", "v4.channel.k8s.io"),
        &vec![(Client, message(KEY, 255, &[0]))],
        &[Seen::data(Client, Channel::Unknown(255), [0])],
    );
}

#[test]
fn a_plain_error_is_said_at_the_end() {
    let failed = CommandStatus {
        success: false,
        exit_code: Some(2),
        reason: String::new(),
        message: "command terminated with exit code 2".into(),
    };
    let mut talk = vec![
        (Server, message(None, 3, b"command terminated ")),
        (Server, message(None, 3, b"with exit code 2")),
    ];
    let said = [
        Seen::data(Server, Channel::Error, "command terminated "),
        Seen::data(Server, Channel::Error, "with exit code 2"),
        Seen::Status(failed),
    ];
    check(&command("websocket", "channel.k8s.io"), &talk, &said);
    talk.push((Server, close(None, 1000)));
    let ended = [&said[..], &[Seen::Ended(Server, 1000)]].concat();
    check(&command("websocket", "channel.k8s.io"), &talk, &ended);
}

#[test]
fn boundaries_are_where_messages_end() {
    let parts = [
        (message(None, 1, b"12345"), true),
        (frame(false, 2, None, &[1]), false),
        (frame(true, 9, None, b"ping"), false),
        (frame(true, 0, None, b""), true),
        (frame(true, 8, None, b""), true),
    ];
    let mut decoder = Decoder::new(command("websocket", V5));
    assert!(decoder.at_boundary(Server));
    for (bytes, boundary) in parts {
        for (index, byte) in bytes.iter().enumerate() {
            let least = decoder.bytes_to_boundary(Server).expect("decodable");
            if index > 0 {
                assert!(least >= 1 && (!boundary || least <= (bytes.len() - index) as u64));
            }
            decoder.push(Server, &[*byte], &mut |_| {});
        }
        assert_eq!(decoder.at_boundary(Server), boundary, "{bytes:?}");
    }
}
