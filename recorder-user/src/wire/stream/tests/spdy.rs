use flate2::FlushCompress;

use super::{
    encode::{Spdy, control, data, goaway, ping, reset, syn_stream, words},
    *,
};
use crate::wire::stream::{
    spdy::{CONTROL_BYTES_MAX, headers::BLOCK_BYTES_MAX},
    streams::{RESET_STREAMS_MAX, STREAMS_MAX},
};

const V4: &str = "v4.channel.k8s.io";

/// An exec with a terminal, as kubectl and a kubelet hold it.
#[test]
fn a_command_from_its_streams_to_its_exit_code() {
    let (mut client, mut server) = (Spdy::new(), Spdy::new());
    let talk = vec![
        (Client, client.channel(1, "error")),
        (Server, server.reply(1)),
        (Client, client.channel(3, "stdin")),
        (Client, client.channel(5, "stdout")),
        (Server, [server.reply(3), server.reply(5), ping(2)].concat()),
        (Client, [client.channel(7, "resize"), ping(2)].concat()),
        (Server, control(4, 0, &words(&[1, 4, 100]))),
        (Client, data(7, b"{\"Width\":80,\"Height\":24}\n{\"Width\":8", false)),
        (Client, data(7, b"1,\"Height\":25}\n", false)),
        (Client, data(3, b"exit 3\n", false)),
        (Server, control(9, 0, &words(&[3, 65536]))),
        (Server, data(5, &[b'x'; 3000], false)),
        (Server, [data(5, b"", true), data(1, &status_json(3), false)].concat()),
        (Server, [data(1, b"", true), reset(3, 5), goaway(7)].concat()),
        (Client, [data(3, b"late", true), data(1, b"", true)].concat()),
    ];
    let (stdin, stdout, error) = (Channel::Stdin, Channel::Stdout, Channel::Error);
    let expected = [
        Seen::Opened(Client, error),
        Seen::Opened(Client, stdin),
        Seen::Opened(Client, stdout),
        Seen::Opened(Client, Channel::Resize),
        Seen::data(Client, Channel::Resize, "{\"Width\":80,\"Height\":24}\n{\"Width\":8"),
        Seen::Resize(80, 24),
        Seen::data(Client, Channel::Resize, "1,\"Height\":25}\n"),
        Seen::Resize(81, 25),
        Seen::data(Client, stdin, "exit 3\n"),
        Seen::data(Server, stdout, [b'x'; 3000]),
        Seen::Closed(Server, stdout),
        Seen::data(Server, error, status_json(3)),
        Seen::Status(exited(3)),
        Seen::Closed(Server, error),
        Seen::Reset(Server, stdin, 5),
        Seen::Ended(Server, 0),
        Seen::data(Client, stdin, "late"),
        Seen::Closed(Client, stdin),
        Seen::Closed(Client, error),
    ];
    check(&command("SPDY/3.1", V4), &talk, &expected);
}

#[test]
fn exit_codes_and_what_error_channels_say() {
    let failure = |exit_code, message: &str| CommandStatus {
        success: false,
        exit_code,
        reason: String::new(),
        message: message.into(),
    };
    let refused =
        br#"{"status":"Failure","reason":"InternalError","message":"no such file","details":null}"#;
    let internal =
        CommandStatus { reason: "InternalError".into(), ..failure(None, "no such file") };
    let mut no_cause = exited(9);
    no_cause.exit_code = None;
    let without =
        String::from_utf8(status_json(9)).expect("text").replace("ExitCode\",\"m", "Other\",\"m");
    for (version, text, expected) in [
        ("v4.channel.k8s.io", status_json(0), Some(exited(0))),
        ("v5.channel.k8s.io", status_json(137), Some(exited(137))),
        ("v4.channel.k8s.io", refused.to_vec(), Some(internal)),
        ("v4.channel.k8s.io", without.into_bytes(), Some(no_cause)),
        ("v4.channel.k8s.io", b"{\"status\":1}".to_vec(), Some(failure(None, "{\"status\":1}"))),
        ("v4.channel.k8s.io", b"no JSON".to_vec(), Some(failure(None, "no JSON"))),
        ("v4.channel.k8s.io", b"".to_vec(), None),
        ("v3.channel.k8s.io", b"".to_vec(), Some(exited(0))),
        ("v2.channel.k8s.io", b"it broke".to_vec(), Some(failure(None, "it broke"))),
        (
            "channel.k8s.io",
            b"command terminated with exit code 42\n".to_vec(),
            Some(failure(Some(42), "command terminated with exit code 42\n")),
        ),
    ] {
        let mut client = Spdy::new();
        let talk = vec![(Client, client.channel(1, "error")), (Server, data(1, &text, true))];
        for chunk in [usize::MAX, 1, 10] {
            let seen = decode(&mut Decoder::new(command("SPDY/3.1", version)), &talk, chunk);
            let told: Vec<_> = seen.iter().filter(|e| matches!(e, Seen::Status(_))).collect();
            let expected = expected.clone().map(Seen::Status);
            assert_eq!(told, expected.iter().collect::<Vec<_>>(), "{version} {text:?}");
        }
    }
}

#[test]
fn connections_of_a_port_forward_are_told_apart() {
    let (mut client, mut server) = (Spdy::new(), Spdy::new());
    let talk = vec![
        (Client, [client.port(1, "error", 80, 0), data(1, b"", true)].concat()),
        (Client, client.port(3, "data", 80, 0)),
        (Server, [server.reply(1), server.reply(3)].concat()),
        (Client, client.port(5, "error", 443, 1)),
        (Client, client.port(7, "data", 443, 1)),
        (Client, data(3, b"GET", false)),
        (Server, [data(7, b"banner", false), data(3, b"200", true)].concat()),
        (Client, reset(3, 5)),
        (Server, data(5, b"refused", true)),
        (Server, data(9, b"?", false)),
    ];
    let unknown = Channel::Unknown(9);
    check(
        &port_forward("SPDY/3.1", "portforward.k8s.io", &[]),
        &talk,
        &[
            Seen::Opened(Client, Channel::PortError(port(0, 80))),
            Seen::Closed(Client, Channel::PortError(port(0, 80))),
            Seen::Opened(Client, Channel::Port(port(0, 80))),
            Seen::Opened(Client, Channel::PortError(port(1, 443))),
            Seen::Opened(Client, Channel::Port(port(1, 443))),
            Seen::data(Client, Channel::Port(port(0, 80)), "GET"),
            Seen::data(Server, Channel::Port(port(1, 443)), "banner"),
            Seen::data(Server, Channel::Port(port(0, 80)), "200"),
            Seen::Closed(Server, Channel::Port(port(0, 80))),
            Seen::Reset(Client, Channel::Port(port(0, 80)), 5),
            Seen::data(Server, Channel::PortError(port(1, 443)), "refused"),
            Seen::Closed(Server, Channel::PortError(port(1, 443))),
            Seen::data(Server, unknown, "?"),
        ],
    );
}

#[test]
fn streams_of_old_clients_and_odd_ones() {
    let mut client = Spdy::new();
    let talk = vec![
        (Client, client.open(1, &[("streamtype", "error"), ("port", "80")])),
        (Client, client.open(3, &[("streamtype", "data"), ("port", "80"), ("requestid", "x")])),
        (Client, client.open(5, &[("streamtype", "data"), ("port", "+80")])),
        (Client, client.open(7, &[("streamtype", "data"), ("port", "65536")])),
        (Client, client.open(9, &[("streamtype", "stdin"), ("port", "1")])),
        (Client, client.open(11, &[("streamtype", "data\0error"), ("port", "1\x002")])),
        (Client, client.open(13, &[])),
    ];
    check(
        &port_forward("SPDY/3.1", "portforward.k8s.io", &[]),
        &talk,
        &[
            Seen::Opened(Client, Channel::PortError(port(1, 80))),
            Seen::Opened(Client, Channel::Port(port(1, 80))),
            Seen::Opened(Client, Channel::Unknown(5)),
            Seen::Opened(Client, Channel::Unknown(7)),
            Seen::Opened(Client, Channel::Unknown(9)),
            Seen::Opened(Client, Channel::Port(port(9, 1))),
            Seen::Opened(Client, Channel::Unknown(13)),
        ],
    );
}

/// Each of these is read by the two ends in another way than its head says, or ends the connection.
#[test]
fn frames_that_are_no_spdy() {
    let good = || Spdy::new().channel(1, "stdin");
    let mut twice = Spdy::new();
    let opened_twice = [twice.channel(1, "stdin"), twice.channel(1, "resize")].concat();
    let offset = Spdy::new().channel(1, "stdin").len() as u64;
    let mut doubled = Spdy::new();
    let doubled = doubled.open(1, &[("streamtype", "stdin"), ("streamtype", "resize")]);
    let block = |plain: &[u8], flush| syn_stream(1, &Spdy::new().flushed(plain, flush), 0);
    let one_header = b"\0\0\0\x01\0\0\0\x01a\0\0\0\x01b";
    for (what, bytes, offset) in [
        ("data without a stream", data(0, b"x", false), 0),
        ("unknown type", control(5, 0, &[0; 4]), 0),
        ("a long ping", control(6, 0, &[0; 5]), 0),
        ("a short reset", control(3, 0, &[0; 4]), 0),
        ("a long window update", control(9, 0, &[0; 12]), 0),
        ("settings that are longer than they say", control(4, 0, &words(&[0, 1, 2])), 0),
        ("a stream that is zero", syn_stream(0, &Spdy::new().block(&[]), 0), 0),
        ("a stream of 32 bits", syn_stream(1 << 31 | 1, &Spdy::new().block(&[]), 0), 0),
        ("a reset of a stream of 32 bits", reset(1 << 31 | 1, 5), 0),
        ("a stream opened twice", opened_twice, offset),
        ("a control frame over the bound", vec![0x80, 3, 0, 1, 0, 1, 0, 1], 0),
        ("no zlib", syn_stream(1, b"\x78", 0), 0),
        ("another zlib", syn_stream(1, b"\x79\xbb\xe3\xc6\xa7\xc2", 0), 0),
        ("another dictionary", syn_stream(1, b"\x78\xbb\xe3\xc6\xa7\xc3", 0), 0),
        ("no deflate", syn_stream(1, b"\x78\xbb\xe3\xc6\xa7\xc2\xff\xff", 0), 0),
        ("no block", syn_stream(1, b"", 0), 0),
        ("a header twice", doubled, 0),
        ("an upper-case name", Spdy::new().open(1, &[("streamType", "stdin")]), 0),
        ("bytes after the headers", block(b"\0\0\0\0more", FlushCompress::Sync), 0),
        ("cut headers", block(b"\0\0\0\x01\0\0\0\x09a", FlushCompress::Sync), 0),
        ("no flush", block(one_header, FlushCompress::Partial), 0),
        ("the end of zlib", block(one_header, FlushCompress::Finish), 0),
        ("two values, then a bad frame", [good(), data(0, b"", false)].concat(), offset),
    ] {
        for chunk in [usize::MAX, 1] {
            let talk = vec![(Client, bytes.clone()), (Client, data(1, b"ignored", false))];
            let seen = decode(&mut Decoder::new(command("SPDY/3.1", V4)), &talk, chunk);
            assert_eq!(seen.last(), Some(&Seen::Undecodable(Client, offset)), "{what}");
        }
    }
}

#[test]
fn one_side_goes_on_without_the_other() {
    let mut client = Spdy::new();
    let talk = vec![
        (Client, client.channel(1, "stdout")),
        (Client, data(0, b"", false)),
        (Server, data(1, b"still here", false)),
        (Client, data(1, b"gone", false)),
    ];
    let opened = client_offset(&talk);
    check(
        &command("SPDY/3.1", V4),
        &talk,
        &[
            Seen::Opened(Client, Channel::Stdout),
            Seen::Undecodable(Client, opened),
            Seen::data(Server, Channel::Stdout, "still here"),
        ],
    );
}

fn client_offset(talk: &Talk) -> u64 {
    talk[0].1.len() as u64
}

/// A zlib bomb costs no more than the bound, and a stream of blocks longer than the window decodes.
#[test]
fn header_blocks_are_bounded_and_remembered() {
    let mut bomb = vec![0, 0, 0, 1, 0, 0, 0, 1, b'a'];
    bomb.extend((BLOCK_BYTES_MAX as u32).to_be_bytes());
    bomb.resize(bomb.len() + BLOCK_BYTES_MAX, b'x');
    let mut encoder = Spdy::new();
    let mut block = Vec::with_capacity(BLOCK_BYTES_MAX);
    block.extend(encoder.flushed(&bomb, FlushCompress::Sync));
    assert!(block.len() < CONTROL_BYTES_MAX as usize / 8, "it is a bomb");
    let talk = vec![(Client, syn_stream(1, &block, 0))];
    let seen = decode(&mut Decoder::new(command("SPDY/3.1", V4)), &talk, usize::MAX);
    assert_eq!(seen, [Seen::Undecodable(Client, 0)]);

    let mut client = Spdy::new();
    let mut decoder = Decoder::new(command("SPDY/3.1", V4));
    for index in 0..400u32 {
        let noise: String = (0..500u32)
            .map(|at| char::from(b'a' + (at * at + index * 7919 + at * index) as u8 % 26))
            .collect();
        let open = client.open(2 * index + 1, &[("streamtype", "stdout"), ("noise", &noise)]);
        let seen = decode(&mut decoder, &vec![(Client, open)], usize::MAX);
        assert_eq!(seen, [Seen::Opened(Client, Channel::Stdout)], "block {index}");
    }
}

#[test]
fn closed_streams_are_forgotten_and_open_ones_bounded() {
    let mut client = Spdy::new();
    let mut decoder = Decoder::new(port_forward("SPDY/3.1", "portforward.k8s.io", &[]));
    let mut open = |decoder: &mut Decoder, id: u32| {
        let mut channel = None;
        decoder.push(Client, &client.port(id, "data", 80, id), &mut |event| {
            if let EventKind::Opened(opened) = event.kind {
                channel = Some(opened);
            }
        });
        channel.expect("every stream is said")
    };
    let mut id = 1;
    // Twice the bound, closed by both sides or reset by one.
    for index in 0..2 * STREAMS_MAX {
        assert_eq!(open(&mut decoder, id), Channel::Port(port(id, 80)));
        if index % 2 == 0 {
            decoder.push(Client, &data(id, b"", true), &mut |_| {});
            decoder.push(Server, &data(id, b"", true), &mut |_| {});
        } else {
            decoder.push(Server, &data(id, b"", true), &mut |_| {});
            decoder.push(Server, &reset(id, 1), &mut |_| {});
        }
        id += 2;
    }
    let mut named = 0;
    for _ in 0..STREAMS_MAX {
        named += usize::from(open(&mut decoder, id) == Channel::Port(port(id, 80)));
        id += 2;
    }
    assert_eq!(named, STREAMS_MAX - RESET_STREAMS_MAX);
    assert_eq!(open(&mut decoder, id), Channel::Unknown(id));
}

#[test]
fn what_was_under_way_when_a_stream_was_reset_has_a_name() {
    let mut client = Spdy::new();
    let talk = vec![
        (Client, client.port(1, "data", 80, 0)),
        (Client, reset(1, 5)),
        (Server, data(1, b"under way", false)),
    ];
    let channel = Channel::Port(port(0, 80));
    check(
        &port_forward("SPDY/3.1", "portforward.k8s.io", &[]),
        &talk,
        &[
            Seen::Opened(Client, channel),
            Seen::Reset(Client, channel, 5),
            Seen::data(Server, channel, "under way"),
        ],
    );
}

#[test]
fn boundaries_are_where_frames_end() {
    let mut client = Spdy::new();
    let frames =
        [client.channel(1, "stdout"), data(1, b"12345", false), data(1, b"", true), ping(1)];
    let ends: Vec<usize> = frames
        .iter()
        .scan(0, |end, frame| {
            *end += frame.len();
            Some(*end)
        })
        .collect();
    let bytes = frames.concat();
    let mut decoder = Decoder::new(command("SPDY/3.1", V4));
    for (index, byte) in bytes.iter().enumerate() {
        let least = decoder.bytes_to_boundary(Client).expect("decodable");
        let next = ends.iter().find(|end| **end > index).expect("before the last") - index;
        assert_eq!(decoder.at_boundary(Client), index == 0 || ends.contains(&index), "{index}");
        assert!(least <= next as u64, "{least} of {next} at {index}");
        decoder.push(Client, &[*byte], &mut |_| {});
    }
    let mut decoder = Decoder::new(command("SPDY/3.1", V4));
    decoder.push(Client, &bytes[..3], &mut |_| {});
    assert_eq!(decoder.push_to_boundary(Client, &bytes[3..], &mut |_| {}), ends[0] - 3);
    assert_eq!(decoder.push_to_boundary(Client, &bytes[ends[0]..], &mut |_| {}), 0);
    decoder.push(Client, &bytes[ends[0]..ends[0] + 9], &mut |_| {});
    let rest = &bytes[ends[0] + 9..ends[1] - 1];
    assert_eq!(decoder.push_to_boundary(Client, rest, &mut |_| {}), rest.len());
}
