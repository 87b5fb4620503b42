//! The programs choose sockets by themselves: a gateway's, and those that go round it.

mod witness_support;

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    process::{Command, Stdio},
};

use recorder_ebpf::{flag, kind, role, socket_address, tcp_state};
use recorder_user::witness::{
    EndpointAddress, EndpointKind, Identity, Selection, Witness, netns_cookie,
};
use witness_support::{Cgroup, Told, choosing, comm, connect, pair, wait_for};

fn endpoint(listener: &TcpListener, kind: EndpointKind) -> EndpointAddress {
    let address = listener.local_addr().expect("address");
    EndpointAddress { address, kind, netns_cookie: netns_cookie(listener.as_fd()).expect("5.14") }
}

fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind")
}

fn chosen() -> Option<(Witness, Selection, Identity)> {
    let witness = choosing()?;
    let selection = witness.selection().expect("it chooses");
    let identity = witness.identity().expect("learned in the self-test");
    Some((witness, selection, identity))
}

#[test]
fn what_a_gateway_accepts_and_opens_is_counted_from_the_first_byte() {
    let Some((witness, selection, identity)) = chosen() else { return };
    // A port that is free, found before the listener is bound under the programs' eyes.
    let port = listen().local_addr().expect("address").port();
    selection.add_gateway(identity, port).expect("told");
    let gateway = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("bind");
    let api = listen();
    selection.set_endpoints(&[endpoint(&api, EndpointKind::Api)]).expect("told");

    let (mut client, mut accepted) = connect(&gateway);
    let (mut upstream, mut server) = connect(&api);
    // Bytes pass before anybody adopts the sockets.
    client.write_all(&[1; 700]).expect("write");
    accepted.read_exact(&mut [0; 700]).expect("read");
    upstream.write_all(&[2; 650]).expect("write");
    server.read_exact(&mut [0; 650]).expect("read");
    server.write_all(&[3; 90]).expect("write");
    upstream.read_exact(&mut [0; 90]).expect("read");
    for (stream, bytes, what) in
        [(&accepted, (700, 0), role::ACCEPTED), (&upstream, (90, 650), role::UPSTREAM)]
    {
        let watch = witness.adopt(stream.as_fd());
        assert_eq!(watch.unwitnessed(), None);
        let totals = watch.totals(stream.as_fd()).expect("witnessed");
        assert_eq!((totals.in_bytes, totals.out_bytes), bytes);
        let slot = watch.slot().expect("it has one");
        assert_eq!((slot.role, slot.other_bytes), (what, 0));
        assert!(slot.established_ns > 0 && slot.established_ns <= slot.first_ns, "{slot:?}");
        assert_eq!((slot.owner_tgid, slot.cgroup_id), (identity.tgid, identity.cgroup_id));
        assert_eq!(slot.connect_ns > 0, what == role::UPSTREAM);
    }
    assert!(witness.adopt(upstream.as_fd()).slot().is_some_and(|slot| slot.srtt_us > 0));
    // The gateway's own connections are no news.
    assert_eq!(Told::by(&witness).connections().count(), 0);
    selection.remove_gateway(identity, port).expect("told");
}

#[test]
fn a_listener_that_is_there_already_is_marked_by_its_descriptor() {
    let Some((witness, selection, identity)) = chosen() else { return };
    let listener = listen();
    let (_before, early) = connect(&listener);
    selection.adopt_listener(listener.as_fd(), identity).expect("marked");
    assert!(selection.adopt_listener(listener.as_fd(), identity).is_err(), "once");
    let (mut client, mut accepted) = connect(&listener);
    client.write_all(&[1; 33]).expect("write");
    accepted.read_exact(&mut [0; 33]).expect("read");
    let watch = witness.adopt(accepted.as_fd());
    let slot = watch.slot().expect("chosen");
    assert_eq!((slot.role, slot.received_bytes), (role::ACCEPTED, 33));
    assert!(witness.adopt(early.as_fd()).slot().is_none(), "what came before is not");
}

#[test]
fn who_goes_round_the_gateway_is_told_with_process_and_bytes() {
    let Some((witness, selection, identity)) = chosen() else { return };
    // An allow-listed one is told like any other: the list is user space's business.
    let cgroup = Cgroup::new("kubelet.service");
    let api = listen();
    let port = api.local_addr().expect("address").port();
    selection.set_endpoints(&[endpoint(&api, EndpointKind::Api)]).expect("told");
    selection.add_gateway(identity, 1).expect("told");
    let mut told = Told::by(&witness);
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port}; printf %01234d 0 >&3; read -r -N 77 -u 3 answer"
    );
    let mut child = cgroup.bash(&script);
    let (mut server, peer) = api.accept().expect("accept");
    server.read_exact(&mut [0; 1_234]).expect("read");
    server.write_all(&[b'x'; 77]).expect("write");
    assert!(child.wait().expect("it ends").success());
    drop(server);

    let connect = told.connection(kind::CONNECT, |notice| notice.cgroup_id == cgroup.id());
    assert_eq!((connect.role, connect.flags), (role::FOREIGN, 0));
    assert_eq!((&*comm(&connect), connect.remote_port), ("bash", port));
    assert!(connect.tgid != 0 && connect.tgid != identity.tgid);
    assert_eq!(connect.netns_cookie, identity.netns_cookie);
    let same = |notice: &recorder_ebpf::ConnectionNotice| notice.head.cookie == connect.head.cookie;
    let established = told.connection(kind::ESTABLISHED, same);
    assert_eq!(socket_address(established.local, established.local_port), peer);
    let remote = socket_address(established.remote, established.remote_port);
    assert_eq!(remote, api.local_addr().expect("address"));
    let closed = told.connection(kind::CLOSED, same);
    assert_eq!((closed.sent_bytes, closed.received_bytes), (1_234, 77));
    // One for the SYN; a FIN counts where it was acknowledged or received before the end.
    assert!([1_235, 1_236].contains(&closed.tcp_acked_bytes), "{closed:?}");
    assert!([77, 78].contains(&closed.tcp_received_bytes), "{closed:?}");
    assert_eq!((closed.tgid, closed.cgroup_id), (connect.tgid, cgroup.id()));
    let exit = told.notice(kind::EXIT, |notice| notice.owner_tgid == connect.tgid);
    assert_eq!(exit.detail, [connect.tgid, role::FOREIGN]);

    // From the gateway's own cgroup it is the process that tells.
    let stranger = Identity { tgid: identity.tgid + 1, ..identity };
    selection.add_gateway(stranger, 1).expect("told");
    let _near = TcpStream::connect(api.local_addr().expect("address")).expect("connect");
    let own = told.connection(kind::CONNECT, |notice| notice.tgid == identity.tgid);
    assert_eq!((own.role, own.flags), (role::FOREIGN, flag::GATEWAY_CGROUP));
}

#[test]
fn what_left_a_foreign_socket_by_splice_is_in_tcps_counters() {
    let Some((witness, selection, _)) = chosen() else { return };
    let cgroup = Cgroup::new("splice");
    let api = listen();
    let port = api.local_addr().expect("address").port();
    selection.set_endpoints(&[endpoint(&api, EndpointKind::Api)]).expect("told");
    let mut told = Told::by(&witness);
    let script = format!(
        "python3 -c 'import os, socket\n\
         s = socket.create_connection((\"127.0.0.1\", {port}))\n\
         r, w = os.pipe()\n\
         left = 3000\n\
         while left: n = os.splice(s.fileno(), w, left); os.read(r, n); left -= n'"
    );
    let mut child = cgroup.bash(&script);
    let (mut server, _) = api.accept().expect("accept");
    server.write_all(&[1; 3_000]).expect("write");
    assert!(child.wait().expect("it ends").success());
    drop(server);
    let closed = told.connection(kind::CLOSED, |notice| notice.cgroup_id == cgroup.id());
    assert_eq!(closed.received_bytes, 0, "no call of the socket layer's receive");
    assert!([3_000, 3_001].contains(&closed.tcp_received_bytes), "{closed:?}");
}

#[test]
fn endpoints_match_in_every_form_of_their_address() {
    let Some((witness, selection, identity)) = chosen() else { return };
    let netns_cookie = identity.netns_cookie;
    let v4 = listen();
    let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("bind");
    selection
        .set_endpoints(&[
            endpoint(&v4, EndpointKind::Api),
            endpoint(&v6, EndpointKind::Gateway),
            // Nobody listens there.
            EndpointAddress {
                address: "127.0.0.9:1".parse().expect("an address"),
                kind: EndpointKind::Api,
                netns_cookie,
            },
        ])
        .expect("told");
    let mut told = Told::by(&witness);
    let port = v4.local_addr().expect("address").port();
    let mapped = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port));
    let _by_mapped = TcpStream::connect(mapped).expect("connect");
    let by_mapped = told.connection(kind::ESTABLISHED, |notice| notice.remote_port == port);
    assert_eq!(by_mapped.role, role::FOREIGN);
    let remote = socket_address(by_mapped.remote, port);
    assert_eq!(remote, v4.local_addr().expect("address"));

    let (client, mut accepted) = connect(&v6);
    accepted.write_all(&[1; 10]).expect("write");
    let port = v6.local_addr().expect("address").port();
    let by_v6 = told.connection(kind::ESTABLISHED, |notice| notice.remote_port == port);
    assert_eq!(by_v6.role, role::CLIENT, "the other end of a gateway's connection");
    let local = socket_address(by_v6.local, by_v6.local_port);
    assert_eq!(local, accepted.peer_addr().expect("address"));
    assert_eq!(by_v6.head.seq, 0, "it has no slot");
    drop((client, accepted));

    assert!(TcpStream::connect("127.0.0.9:1").is_err(), "refused");
    let refused = told.connection(kind::CLOSED, |notice| notice.remote_port == 1);
    assert_eq!(refused.old_state, u32::from(tcp_state::SYN_SENT));
    assert_eq!((refused.sent_bytes, refused.tcp_received_bytes), (0, 0));

    // Elsewhere the same loopback address is another host.
    let elsewhere = Cgroup::new("netns");
    let port = v4.local_addr().expect("address").port();
    let connects = format!("ip link set lo up; exec 3<>/dev/tcp/127.0.0.1/{port}");
    let script = format!("unshare -n bash -c '{connects}' 2>/dev/null; exit 0");
    assert!(elsewhere.bash(&script).wait().expect("it ends").success());
    // What comes after it came through the same ring.
    let _last = TcpStream::connect(v4.local_addr().expect("address")).expect("connect");
    let before = by_mapped.head.cookie;
    told.connection(kind::ESTABLISHED, |notice| {
        notice.remote_port == port && notice.head.cookie != before
    });
    assert!(told.connections().all(|notice| notice.cgroup_id != elsewhere.id()));

    // What is no endpoint any more is not told.
    selection.set_endpoints(&[endpoint(&v6, EndpointKind::Api)]).expect("told");
    let (_untold, _) = connect(&v4);
    let (_told, _) = connect(&v6);
    let v6_port = v6.local_addr().expect("address").port();
    let last = told.connection(kind::ESTABLISHED, |notice| {
        notice.remote_port == v6_port && notice.role == role::FOREIGN
    });
    assert!(last.head.seq > 0, "this one has a slot");
    let to_v4 = told.connections().filter(|notice| notice.remote_port == port);
    assert_eq!(to_v4.filter(|notice| notice.head.kind == kind::CONNECT).count(), 2);
}

#[test]
fn a_watched_cgroups_other_connections_are_told() {
    let Some((witness, selection, _)) = chosen() else { return };
    let (watched, other) = (Cgroup::new("watched"), Cgroup::new("unwatched"));
    selection.set_watched(&[watched.id()]).expect("told");
    let elsewhere = listen();
    let port = elsewhere.local_addr().expect("address").port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo hello >&3");
    let mut told = Told::by(&witness);
    for cgroup in [&other, &watched] {
        assert!(cgroup.bash(&script).wait().expect("it ends").success());
        elsewhere.accept().expect("accept");
    }
    let closed = told.connection(kind::CLOSED, |notice| notice.cgroup_id == watched.id());
    assert_eq!((closed.role, closed.sent_bytes, closed.remote_port), (role::WATCHED, 6, port));
    assert!(told.connections().all(|notice| notice.cgroup_id == watched.id()));
}

#[test]
fn somebody_else_on_the_gateways_port_or_socket_is_told() {
    let Some((witness, selection, identity)) = chosen() else { return };
    let mut told = Told::by(&witness);
    // A gateway of another process: whoever binds its port here is not it.
    let port = listen().local_addr().expect("address").port();
    let gateway = Identity { tgid: identity.tgid + 1, ..identity };
    selection.add_gateway(gateway, port).expect("told");
    let _twin = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("bind");
    let bind = told.connection(kind::BIND, |notice| notice.local_port == port);
    assert_eq!((bind.tgid, bind.role), (identity.tgid, 0));
    assert_eq!(socket_address(bind.local, port).ip(), Ipv4Addr::LOCALHOST);
    told.connection(kind::LISTEN, |notice| notice.head.cookie == bind.head.cookie);

    // A connection that was handed on: another process reads from it.
    let (mut near, far) = pair();
    let watch = witness.adopt(far.as_fd());
    near.write_all(&[1; 50]).expect("write");
    (&far).read_exact(&mut [0; 20]).expect("read");
    let stdin = Stdio::from(std::os::fd::OwnedFd::from(far.try_clone().expect("dup")));
    let mut head = Command::new("head");
    let head = head.args(["-c", "30"]).stdin(stdin).stdout(Stdio::null());
    assert!(head.status().expect("head is installed").success());
    let intruder = told.notice(kind::INTRUDER, |notice| notice.head.cookie == watch.cookie());
    let slot = wait_for("its slot", || watch.slot());
    assert_eq!((slot.received_bytes, slot.other_bytes), (50, 30));
    assert_eq!((slot.owner_tgid, slot.other_tgid), (identity.tgid, intruder.detail[0]));
    assert_ne!(intruder.detail[0], identity.tgid);
}
