use super::{
    encode::{KEY, Spdy, close, data, frame, goaway, reset},
    *,
};

pub(super) fn agreement() -> Agreement {
    port_forward("websocket", "SPDY/3.1+portforward.k8s.io", &[])
}

/// SPDY frames and messages end where they like: messages of every size, in every chunking.
#[test]
fn spdy_in_messages() {
    let (mut client, mut server) = (Spdy::new(), Spdy::new());
    let from_client = [
        client.port(1, "error", 80, 0),
        data(1, b"", true),
        client.port(3, "data", 80, 0),
        data(3, &[b'c'; 300], false),
        reset(3, 5),
    ]
    .concat();
    let from_server = [
        server.reply(1),
        server.reply(3),
        data(3, &[b's'; 500], false),
        data(1, b"broken", true),
        goaway(3),
    ]
    .concat();
    let (channel, error) = (Channel::Port(port(0, 80)), Channel::PortError(port(0, 80)));
    let expected = [
        Seen::Opened(Client, error),
        Seen::Closed(Client, error),
        Seen::Opened(Client, channel),
        Seen::data(Client, channel, [b'c'; 300]),
        Seen::Reset(Client, channel, 5),
        Seen::data(Server, channel, [b's'; 500]),
        Seen::data(Server, error, "broken"),
        Seen::Closed(Server, error),
        Seen::Ended(Server, 0),
        Seen::Ended(Server, 1000),
    ];
    for length in [1, 2, 9, 100, 10_000] {
        let mut talk: Talk = Vec::new();
        for part in from_client.chunks(length) {
            talk.push((Client, frame(true, 2, KEY, part)));
        }
        for part in from_server.chunks(length) {
            let (head, tail) = part.split_at(part.len() / 2);
            talk.push((Server, frame(false, 2, None, head)));
            talk.push((Server, frame(true, 10, None, b"")));
            talk.push((Server, frame(true, 0, None, tail)));
        }
        talk.push((Server, close(None, 1000)));
        check(&agreement(), &talk, &expected);
    }
}

#[test]
fn a_boundary_is_one_of_both_layers() {
    let mut client = Spdy::new();
    let bytes = [client.port(1, "data", 80, 0), data(1, b"x", false)].concat();
    let (head, tail) = bytes.split_at(bytes.len() - 1);
    let mut decoder = Decoder::new(agreement());
    let first = frame(true, 2, KEY, head);
    decoder.push(Client, &first, &mut |_| {});
    assert!(!decoder.at_boundary(Client), "inside of a SPDY frame");
    let rest = [frame(true, 2, KEY, tail), frame(true, 2, KEY, b"more")].concat();
    let taken = decoder.push_to_boundary(Client, &rest, &mut |_| {});
    assert_eq!(taken, 7);
    assert!(decoder.at_boundary(Client));
}

#[test]
fn text_and_faults_inside_are_said_where_they_are() {
    check(
        &agreement(),
        &vec![(Client, frame(true, 1, KEY, b"x"))],
        &[Seen::Undecodable(Client, 0)],
    );
    // The fault's offset is that of the SPDY frame in the connection's bytes.
    let messages = [frame(true, 9, KEY, b"1234"), frame(true, 2, KEY, &data(0, b"", false))];
    check(&agreement(), &vec![(Client, messages.concat())], &[Seen::Undecodable(Client, 10 + 6)]);
}
