use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    encode::{KEY, close, frame, message},
    *,
};

/// A whole text message: the channel's digit and base64.
pub(super) fn text(key: Option<[u8; 4]>, channel: u8, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![b'0' + channel];
    message.extend(STANDARD.encode(payload).bytes());
    frame(true, 1, key, &message)
}

#[test]
fn a_command_in_base64() {
    let talk = vec![
        (Server, text(None, 1, b"")),
        (Client, text(KEY, 4, b"{\"width\": 80, \"HEIGHT\": 24}")),
        (Client, text(KEY, 0, b"hello")),
        (Server, text(None, 3, &status_json(3))),
        (Server, close(None, 1000)),
    ];
    check(
        &command("websocket", "v4.base64.channel.k8s.io"),
        &talk,
        &[
            Seen::data(Client, Channel::Resize, STANDARD.encode("{\"width\": 80, \"HEIGHT\": 24}")),
            Seen::Resize(80, 24),
            Seen::data(Client, Channel::Stdin, "aGVsbG8="),
            Seen::data(Server, Channel::Error, STANDARD.encode(status_json(3))),
            Seen::Status(exited(3)),
            Seen::Ended(Server, 1000),
        ],
    );
}

/// Go's decoder takes what serde's would not, and stops for good at what is no size.
#[test]
fn sizes_as_the_server_reads_them() {
    for (text, expected) in [
        (r#"{"Width":1,"Height":2}{"Width":3,"Height":4}"#, vec![(1, 2), (3, 4)]),
        (r#"  {"Width":0,"Height":65535}  "#, vec![(0, 65535)]),
        (r#"{"WIDTH":7}"#, vec![(7, 0)]),
        (r#"{"Width":null,"Height":5,"Else":{"}":"\"}"}}{"Width":1}"#, vec![(0, 5), (1, 0)]),
        (r#"{"Width":1}x{"Width":2}"#, vec![(1, 0)]),
        (r#"{"Width":65536}{"Width":2}"#, vec![]),
        (r#"{"Width":-1}{"Width":2}"#, vec![]),
        (r#"{"Width":"80"}{"Width":2}"#, vec![]),
        (r#"[80,24]"#, vec![]),
    ] {
        for chunk in [usize::MAX, 1] {
            let talk = vec![(Client, message(KEY, 4, text.as_bytes()))];
            let mut decoder = Decoder::new(command("websocket", "v5.channel.k8s.io"));
            let seen = decode(&mut decoder, &talk, chunk);
            let sizes = seen.into_iter().filter(|event| matches!(event, Seen::Resize(..)));
            let expected: Vec<_> =
                expected.iter().map(|(width, height)| Seen::Resize(*width, *height)).collect();
            assert_eq!(sizes.collect::<Vec<_>>(), expected, "{text} in chunks of {chunk}");
        }
    }
    let endless = format!(r#"{{"Width":{:>300}}}{{"Width":2}}"#, 80);
    let talk = vec![(Client, message(KEY, 4, endless.as_bytes()))];
    let seen = decode(&mut Decoder::new(command("websocket", "v5.channel.k8s.io")), &talk, 7);
    assert_eq!(seen, [Seen::data(Client, Channel::Resize, endless)]);
}

#[test]
fn ports_have_two_channels_which_begin_with_the_port() {
    let talk = vec![
        (Client, message(KEY, 0, b"early")),
        (Server, message(None, 0, &80u16.to_le_bytes())),
        (Server, message(None, 1, &80u16.to_le_bytes())),
        (Server, [message(None, 2, &[0xfb]), message(None, 2, &[0x20])].concat()),
        (Server, message(None, 3, &[0xfb, 0x20, b'n', b'o'])),
        (Client, message(KEY, 2, b"to 8443")),
        (Server, message(None, 0, b"from 80")),
        (Client, message(KEY, 4, b"nowhere")),
    ];
    let (first, second) = (port(0, 80), port(1, 8443));
    check(
        &port_forward("websocket", "v4.channel.k8s.io", &[80, 8443]),
        &talk,
        &[
            Seen::data(Client, Channel::Port(first), "early"),
            Seen::Opened(Server, Channel::Port(first)),
            Seen::Opened(Server, Channel::PortError(first)),
            Seen::Opened(Server, Channel::Port(second)),
            Seen::Opened(Server, Channel::PortError(second)),
            Seen::data(Server, Channel::PortError(second), "no"),
            Seen::data(Client, Channel::Port(second), "to 8443"),
            Seen::data(Server, Channel::Port(first), "from 80"),
            Seen::data(Client, Channel::Unknown(4), "nowhere"),
        ],
    );
}

#[test]
fn ports_in_base64() {
    let talk = vec![
        (Server, text(None, 0, &80u16.to_le_bytes())),
        (Server, text(None, 0, b"from 80")),
        (Client, text(KEY, 0, b"to 80")),
    ];
    let channel = Channel::Port(port(0, 80));
    check(
        &port_forward("websocket", "v4.base64.channel.k8s.io", &[80]),
        &talk,
        &[
            Seen::Opened(Server, channel),
            Seen::data(Server, channel, "ZnJvbSA4MA=="),
            Seen::data(Client, channel, "dG8gODA="),
        ],
    );
}

#[test]
fn a_channel_of_another_port_is_not_understood() {
    for (subprotocol, bytes) in [
        ("v4.channel.k8s.io", message(None, 0, &81u16.to_le_bytes())),
        ("v4.base64.channel.k8s.io", text(None, 0, &81u16.to_le_bytes())),
        ("v4.base64.channel.k8s.io", text(None, 0, b"three")),
        ("v4.base64.channel.k8s.io", frame(true, 1, None, b"0!!!!")),
    ] {
        check(
            &port_forward("websocket", subprotocol, &[80]),
            &vec![(Server, bytes)],
            &[Seen::Undecodable(Server, 0)],
        );
    }
}
