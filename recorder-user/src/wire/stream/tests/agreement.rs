use super::*;
use crate::wire::stream::Transport;

#[test]
fn what_the_heads_say() {
    use Asked::{Command, Other, PortForward};
    use Transport::{Other as Foreign, Spdy, WebSocket};
    let exec = |version, base64| Protocol::RemoteCommand { version, base64 };
    let channels = |base64| Protocol::PortForwardChannels { base64 };
    for (asked, upgrade, subprotocol, transport, protocol) in [
        (Command, "SPDY/3.1", None, Spdy, exec(1, false)),
        (Command, "spdy/3.1", Some("channel.k8s.io"), Spdy, exec(1, false)),
        (Command, "SPDY/3.1", Some("v2.channel.k8s.io"), Spdy, exec(2, false)),
        (Command, "SPDY/3.1", Some("v3.channel.k8s.io"), Spdy, exec(3, false)),
        (Command, "SPDY/3.1", Some("v4.channel.k8s.io"), Spdy, exec(4, false)),
        (Command, "SPDY/3.1", Some("v5.channel.k8s.io"), Spdy, exec(5, false)),
        (Command, "SPDY/3.1", Some("v4.base64.channel.k8s.io"), Spdy, Protocol::Opaque),
        (Command, "websocket", Some("v5.channel.k8s.io"), WebSocket, exec(5, false)),
        (Command, "WebSocket", Some("v4.channel.k8s.io"), WebSocket, exec(4, false)),
        (Command, "websocket", Some("v4.base64.channel.k8s.io"), WebSocket, exec(4, true)),
        (Command, "websocket", Some("base64.channel.k8s.io"), WebSocket, exec(1, true)),
        (Command, "websocket", None, WebSocket, exec(1, false)),
        (Command, "websocket", Some("v6.channel.k8s.io"), WebSocket, Protocol::Opaque),
        (Command, "h2c", Some("v4.channel.k8s.io"), Foreign, Protocol::Opaque),
        (PortForward, "SPDY/3.1", Some("portforward.k8s.io"), Spdy, Protocol::PortForward),
        (PortForward, "SPDY/3.1", None, Spdy, Protocol::PortForward),
        (PortForward, "SPDY/3.1", Some("v9.portforward.k8s.io"), Spdy, Protocol::Opaque),
        (PortForward, "websocket", None, WebSocket, channels(false)),
        (PortForward, "websocket", Some("v4.channel.k8s.io"), WebSocket, channels(false)),
        (PortForward, "websocket", Some("v4.base64.channel.k8s.io"), WebSocket, channels(true)),
        (
            PortForward,
            "websocket",
            Some("SPDY/3.1+portforward.k8s.io"),
            WebSocket,
            Protocol::PortForwardTunnel,
        ),
        (
            PortForward,
            "websocket",
            Some("v2.portforward.k8s.io"),
            WebSocket,
            Protocol::PortForwardTunnel,
        ),
        (Other, "websocket", Some("v4.channel.k8s.io"), WebSocket, Protocol::Opaque),
    ] {
        let agreement = Agreement::of(asked, upgrade, subprotocol, &[80, 443]);
        let expected = Agreement { transport, protocol, ports: vec![80, 443] };
        assert_eq!(agreement, expected, "{asked:?} {upgrade} {subprotocol:?}");
    }
}

#[test]
fn opaque_bytes_pass_as_they_are() {
    let agreement = Agreement::of(Asked::Other, "tcp", None, &[]);
    let talk = vec![(Client, b"\x80\x03 any".to_vec()), (Server, b"thing".to_vec())];
    let mut decoder = Decoder::new(agreement);
    let seen = decode(&mut decoder, &talk, usize::MAX);
    let unknown = Channel::Unknown(0);
    assert_eq!(
        seen,
        [Seen::data(Client, unknown, b"\x80\x03 any"), Seen::data(Server, unknown, "thing")]
    );
    assert!(!decoder.at_boundary(Server));
    assert_eq!(decoder.closing(b"{}", "over"), None);
}
