use super::{
    channels::text,
    encode::{KEY, Spdy, close, data, frame, goaway, message},
    *,
};

const STATUS: &[u8] =
    br#"{"kind":"Status","status":"Failure","reason":"Unauthorized","message":"token expired"}"#;

/// What follows `talk` when the gateway ends the connection.
fn closed(agreement: &Agreement, talk: Talk) -> Vec<Seen> {
    let mut decoder = Decoder::new(agreement.clone());
    for (side, bytes) in &talk {
        decoder.push(*side, bytes, &mut |_| {});
    }
    let closing = decoder.closing(STATUS, "token expired").expect("it can be said");
    let seen = decode(&mut decoder, &vec![(Server, closing.clone())], usize::MAX);
    assert!(decoder.has_ended(Server));
    assert_eq!(decoder.closing(STATUS, "again"), None);
    let mut in_bytes = Decoder::new(agreement.clone());
    decode(&mut in_bytes, &talk, 1);
    assert_eq!(in_bytes.closing(STATUS, "token expired"), Some(closing), "in any chunking");
    seen
}

fn refused() -> Seen {
    Seen::Status(CommandStatus {
        success: false,
        exit_code: None,
        reason: "Unauthorized".into(),
        message: "token expired".into(),
    })
}

fn told(channel: Channel, text: impl AsRef<[u8]>) -> Seen {
    Seen::data(Server, channel, text)
}

#[test]
fn a_command_over_spdy() {
    for subprotocol in ["v4.channel.k8s.io", "v5.channel.k8s.io"] {
        let (mut client, mut server) = (Spdy::new(), Spdy::new());
        let talk = vec![
            (Client, [client.channel(1, "error"), client.channel(3, "stdout")].concat()),
            (Server, [server.reply(1), server.reply(3), data(3, b"output", false)].concat()),
        ];
        let expected = [
            told(Channel::Error, STATUS),
            refused(),
            Seen::Closed(Server, Channel::Error),
            Seen::Ended(Server, 0),
        ];
        assert_eq!(closed(&command("SPDY/3.1", subprotocol), talk), expected);
    }
}

/// Clients drop what comes before the server's reply, so the gateway replies in its place, whether or not
/// the server's zlib stream has begun.
#[test]
fn a_command_whose_error_stream_was_not_agreed_to() {
    for replies in 0..2 {
        let (mut client, mut server) = (Spdy::new(), Spdy::new());
        let mut talk =
            vec![(Client, [client.channel(1, "stdin"), client.channel(3, "error")].concat())];
        talk.extend((0..replies).map(|_| (Server, server.reply(1))));
        let agreement = command("SPDY/3.1", "v4.channel.k8s.io");
        let mut decoder = Decoder::new(agreement.clone());
        talk.iter().for_each(|(side, bytes)| decoder.push(*side, bytes, &mut |_| {}));
        let closing = decoder.closing(STATUS, "").expect("it can be said");
        assert_eq!(closing[..4], [0x80, 3, 0, 2], "SYN_REPLY first");
        assert_eq!(closing[8..12], [0, 0, 0, 3]);
        let expected = [
            told(Channel::Error, STATUS),
            refused(),
            Seen::Closed(Server, Channel::Error),
            Seen::Ended(Server, 0),
        ];
        assert_eq!(closed(&agreement, talk), expected);
    }
}

#[test]
fn a_command_of_old_over_spdy() {
    let (mut client, mut server) = (Spdy::new(), Spdy::new());
    let talk = vec![(Client, client.channel(1, "error")), (Server, server.reply(1))];
    let seen = closed(&command("SPDY/3.1", "v2.channel.k8s.io"), talk);
    assert_eq!(seen[0], told(Channel::Error, "token expired"));
    assert_eq!(seen[3], Seen::Ended(Server, 0));
}

#[test]
fn a_command_over_websocket() {
    for (subprotocol, told_text) in [("v5.channel.k8s.io", STATUS), ("v4.channel.k8s.io", STATUS)] {
        let talk = vec![(Client, message(KEY, 0, b"x")), (Server, message(None, 1, b"y"))];
        let expected = [told(Channel::Error, told_text), refused(), Seen::Ended(Server, 1000)];
        assert_eq!(closed(&command("websocket", subprotocol), talk), expected);
    }
    let talk = vec![(Server, text(None, 1, b"y"))];
    let seen = closed(&command("websocket", "v4.base64.channel.k8s.io"), talk);
    assert_eq!(seen[1..], [refused(), Seen::Ended(Server, 1000)]);
    let seen = closed(&command("websocket", "channel.k8s.io"), vec![]);
    assert_eq!(seen[0], told(Channel::Error, "token expired"));
}

#[test]
fn connections_over_spdy_and_tunnelled() {
    let (mut client, mut server) = (Spdy::new(), Spdy::new());
    let from_client = [
        client.port(1, "error", 80, 0),
        data(1, b"", true),
        client.port(3, "data", 80, 0),
        client.port(5, "error", 81, 1),
        client.port(7, "error", 82, 2),
    ]
    .concat();
    let from_server =
        [server.reply(1), server.reply(5), data(5, b"", true), server.reply(7)].concat();
    let mut expected = Vec::new();
    for (request, number) in [(0, 80), (2, 82)] {
        let channel = Channel::PortError(port(request, number));
        expected.push(told(channel, "token expired"));
        expected.push(Seen::Closed(Server, channel));
    }
    expected.push(Seen::Ended(Server, 0));
    let agreement = port_forward("SPDY/3.1", "portforward.k8s.io", &[]);
    let talk = vec![(Client, from_client.clone()), (Server, from_server.clone())];
    assert_eq!(closed(&agreement, talk), expected);

    expected.push(Seen::Ended(Server, 1000));
    let talk = vec![
        (Client, frame(true, 2, KEY, &from_client)),
        (Server, frame(true, 2, None, &from_server)),
    ];
    assert_eq!(closed(&tunnel::agreement(), talk), expected);
}

#[test]
fn connections_over_channels() {
    let talk = vec![(Server, message(None, 1, &80u16.to_le_bytes()))];
    let agreement = port_forward("websocket", "v4.channel.k8s.io", &[80, 81]);
    let expected = [
        told(Channel::PortError(port(0, 80)), "token expired"),
        Seen::Opened(Server, Channel::PortError(port(1, 81))),
        told(Channel::PortError(port(1, 81)), "token expired"),
        Seen::Ended(Server, 1000),
    ];
    assert_eq!(closed(&agreement, talk), expected);
}

/// Found by the fuzz target `portforward`: a message that ends inside of the port's number.
#[test]
fn a_channel_whose_port_is_half_said_is_not_told() {
    let talk = vec![(Server, message(None, 1, &[80]))];
    let agreement = port_forward("websocket", "v4.channel.k8s.io", &[80, 81]);
    let expected = [
        Seen::Opened(Server, Channel::PortError(port(1, 81))),
        told(Channel::PortError(port(1, 81)), "token expired"),
        Seen::Ended(Server, 1000),
    ];
    assert_eq!(closed(&agreement, talk), expected);
}

#[test]
fn nothing_is_said_inside_a_frame_or_after_the_end() {
    let spdy = command("SPDY/3.1", "v4.channel.k8s.io");
    let websocket = command("websocket", "v5.channel.k8s.io");
    for (agreement, bytes) in [
        (&spdy, data(1, b"half", false)[..10].to_vec()),
        (&spdy, goaway(0)),
        (&spdy, data(0, b"bad", false)),
        (&websocket, vec![0x82]),
        (&websocket, frame(false, 2, None, &[1, 2])),
        (&websocket, close(None, 1000)),
    ] {
        let mut decoder = Decoder::new(agreement.clone());
        decoder.push(Server, &bytes, &mut |_| {});
        assert_eq!(decoder.closing(STATUS, "no"), None, "{bytes:?}");
    }
}

#[test]
fn long_reasons_fit() {
    let long = "ü".repeat(100_000);
    let mut decoder = Decoder::new(command("websocket", "channel.k8s.io"));
    let closing = decoder.closing(b"", &long).expect("it can be said");
    let seen = decode(&mut decoder, &vec![(Server, closing)], usize::MAX);
    assert_eq!(seen[0], told(Channel::Error, &long));
    assert_eq!(seen.last(), Some(&Seen::Ended(Server, 1000)));

    let (mut client, mut server) = (Spdy::new(), Spdy::new());
    let mut decoder = Decoder::new(port_forward("SPDY/3.1", "portforward.k8s.io", &[]));
    decoder.push(Client, &client.port(1, "error", 80, 0), &mut |_| {});
    decoder.push(Server, &server.reply(1), &mut |_| {});
    let closing = decoder.closing(b"", &long).expect("it can be said");
    let seen = decode(&mut decoder, &vec![(Server, closing)], usize::MAX);
    let said: usize =
        seen.iter().map(|e| if let Seen::Data(_, _, d) = e { d.len() } else { 0 }).sum();
    assert_eq!(said, long.len());
    assert_eq!(seen.last(), Some(&Seen::Ended(Server, 0)));
}
