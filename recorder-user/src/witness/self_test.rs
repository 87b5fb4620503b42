//! A witness is believed only after it counted a known exchange right.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use recorder_ebpf::{ConnectionNotice, RingRecord, kind, role};

use super::{
    EndpointAddress, EndpointKind, Identity, KernelTotals, Means, SocketWitness, Witness,
    programs::Ebpf, sys,
};

/// Sizes in both directions: single bytes, odd ones, one above a page.
const UP: [usize; 4] = [1, 517, 80, 4_097];
const DOWN: [usize; 3] = [3, 1_460, 8_191];

/// How long the notices may take to come through ring, drain thread and correlator.
const NOTICES_DEADLINE: Duration = Duration::from_secs(2);

/// Passes bytes through a loopback connection and compares. The error says what differed.
pub(super) fn run(witness: &Witness) -> Result<(), String> {
    let (mut near, mut far) = pair().map_err(|error| format!("no loopback connection: {error}"))?;
    let watch_near = witness.adopt(near.as_fd());
    let watch_far = witness.adopt(far.as_fd());
    for watch in [&watch_near, &watch_far] {
        if let Some(reason) = watch.unwitnessed() {
            return Err(reason.to_owned());
        }
    }
    exchange(&mut near, &mut far).map_err(broke)?;
    let (up, down) = (UP.iter().sum::<usize>() as u64, DOWN.iter().sum::<usize>() as u64);
    expect(&watch_near, watch_near.totals(near.as_fd()), [down, up])?;
    expect(&watch_far, watch_far.totals(far.as_fd()), [up, down])?;
    let Means::Ebpf(ebpf) = &witness.shared.means else { return Ok(()) };
    if witness.attached("sk_data_ready") {
        queue_was_seen(&watch_near)?;
    }
    wait_for(ebpf, "no notice came through the ring", || (witness.stats().events > 0).then_some(()))
}

/// The programs themselves choose a connection, tell of it, and count it. Returns what this process is in
/// their eyes.
pub(super) fn chosen(ebpf: &Ebpf) -> Result<Identity, String> {
    let test = || -> Result<Identity, String> {
        let no_connection = |error: io::Error| format!("no loopback connection: {error}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(no_connection)?;
        let address = listener.local_addr().map_err(no_connection)?;
        let netns_cookie = sys::netns_cookie(listener.as_fd())
            .map_err(|error| format!("no cookie of the network namespace: {error}"))?;
        let endpoint = EndpointAddress { address, kind: EndpointKind::Api, netns_cookie };
        ebpf.selection.set_endpoints(&[endpoint]).map_err(|error| error.to_string())?;
        let mut near = TcpStream::connect(address).map_err(no_connection)?;
        let (mut far, _) = listener.accept().map_err(no_connection)?;
        let cookie = sys::cookie(near.as_fd()).map_err(no_connection)?;
        exchange(&mut near, &mut far).map_err(broke)?;
        drop(near);
        drop(far);
        let identity = told(ebpf, cookie, address.port())?;
        Ok(Identity { netns_cookie, ..identity })
    };
    let result = test();
    ebpf.selection.set_endpoints(&[]).map_err(|error| error.to_string())?;
    result
}

/// Waits for the three notices of a connection and checks what they say.
fn told(ebpf: &Ebpf, cookie: u64, port: u16) -> Result<Identity, String> {
    let mut notices: Vec<ConnectionNotice> = vec![];
    wait_for(ebpf, "a chosen connection was not told of", || {
        let mut hears = ebpf.hears();
        while let Some(record) = hears.as_mut().and_then(|hears| hears.try_recv().ok()) {
            if let RingRecord::Connection(notice) = record
                && notice.head.cookie == cookie
            {
                notices.push(notice);
            }
        }
        notices.iter().any(|notice| notice.head.kind == kind::CLOSED).then_some(())
    })?;
    let [connect, established, closed] = notices[..] else {
        return Err(format!("{} notices of a connection instead of three", notices.len()));
    };
    let kinds = [connect, established, closed].map(|notice| notice.head.kind);
    let facts = (connect.role, connect.remote_port, established.remote_port);
    if kinds != [kind::CONNECT, kind::ESTABLISHED, kind::CLOSED]
        || facts != (role::FOREIGN, port, port)
    {
        return Err(format!("a connection was told wrongly: {kinds:?}, {facts:?}"));
    }
    let (up, down) = (UP.iter().sum::<usize>() as u64, DOWN.iter().sum::<usize>() as u64);
    // One for the SYN, and at most one for a FIN that was acknowledged or received.
    let tcp = (closed.tcp_acked_bytes, closed.tcp_received_bytes);
    if !(up + 1..=up + 2).contains(&tcp.0) || !(down..=down + 1).contains(&tcp.1) {
        return Err(format!("TCP's own counters say {tcp:?} where {:?} passed", (up, down)));
    }
    Ok(Identity { tgid: connect.tgid, cgroup_id: connect.cgroup_id, netns_cookie: 0 })
}

/// What the kernel side noted of the receive queue is in order.
fn queue_was_seen(watch: &SocketWitness) -> Result<(), String> {
    let slot = watch.slot().ok_or("no slot of a socket that was counted")?;
    let in_order = slot.run_ready_ns > 0
        && slot.run_ready_ns <= slot.received_run_ns
        && slot.received_run_ns <= slot.last_received_ns;
    if in_order {
        return Ok(());
    }
    let times = [slot.run_ready_ns, slot.received_run_ns, slot.last_received_ns];
    Err(format!("arrival, first and last read are out of order: {times:?}"))
}

fn wait_for<T>(ebpf: &Ebpf, what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, String> {
    let deadline = Instant::now() + NOTICES_DEADLINE;
    loop {
        ebpf.drain.hurry();
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(what.to_owned());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn expect(
    watch: &SocketWitness,
    totals: Option<KernelTotals>,
    [inbound, outbound]: [u64; 2],
) -> Result<(), String> {
    let cookie = watch.cookie();
    let Some(totals) = totals else { return Err(format!("no totals of socket {cookie}")) };
    let counted = (totals.in_bytes, totals.out_bytes);
    if counted == (inbound, outbound) {
        return Ok(());
    }
    Err(format!("socket {cookie}: counted {counted:?}, passed {:?}", (inbound, outbound)))
}

fn broke(error: io::Error) -> String {
    format!("the loopback connection broke: {error}")
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    Ok((near, far))
}

/// Passes the known bytes, one direction after the other.
fn exchange(near: &mut TcpStream, far: &mut TcpStream) -> io::Result<()> {
    for stream in [&*near, &*far] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(NOTICES_DEADLINE))?;
    }
    for size in UP {
        pass(near, far, size)?;
    }
    for size in DOWN {
        pass(far, near, size)?;
    }
    Ok(())
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, size: usize) -> io::Result<()> {
    from.write_all(&vec![0x5a; size])?;
    to.read_exact(&mut vec![0; size])
}
