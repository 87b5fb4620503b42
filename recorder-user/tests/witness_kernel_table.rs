//! The table of totals on real sockets: volume, churn, its bounds, and what is in a slot besides bytes.
#![allow(unsafe_code, reason = "socket filters and capabilities have no safe form")]

mod witness_support;

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _},
    thread,
    time::Duration,
};

use recorder_ebpf::{role, tcp_state};
use recorder_user::witness::{Mode, SocketWitness, Table, Trouble, WitnessOptions, monotonic_ns};
use witness_support::{choosing, connect, counting, pair, start, wait_for, wait_until};

#[test]
fn ten_thousand_short_connections_are_all_accounted_for() {
    let Some(witness) = choosing() else { return };
    let selection = witness.selection().expect("it chooses");
    let identity = witness.identity().expect("learned");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    selection.adopt_listener(listener.as_fd(), identity).expect("marked");
    let before = witness.stats();
    for nth in 0..10_000usize {
        let (near, mut far) = connect(&listener);
        let request = [1; 300];
        let size = 1 + nth % request.len();
        (&near).write_all(&request[..size]).expect("write");
        far.read_exact(&mut [0; 300][..size]).expect("read");
        far.write_all(&[2; 9]).expect("write");
        let watch = witness.adopt(far.as_fd());
        assert_eq!(watch.unwitnessed(), None);
        let totals = watch.close(far.as_fd()).expect("witnessed");
        assert_eq!((totals.in_bytes, totals.out_bytes), (size as u64, 9), "connection {nth}");
    }
    let after = witness.stats();
    assert!(after.claimed - before.claimed >= 10_000);
    assert_eq!((after.slots_full, after.storage_refused, after.unwitnessed), (0, 0, 0));
    assert_eq!((after.late_calls, after.unread_totals), (0, 0));
}

#[test]
fn a_long_transfer_adds_up_at_both_ends_and_by_tcp() {
    const CHUNK: usize = 1 << 20;
    const CHUNKS: usize = 256;
    let Some(witness) = counting(&WitnessOptions::default()) else { return };
    let second = start(Mode::TcpInfo, &WitnessOptions::default());
    let (near, far) = pair();
    let watches = [witness.adopt(near.as_fd()), witness.adopt(far.as_fd())];
    let opinion = second.adopt(near.as_fd());
    thread::scope(|scope| {
        scope.spawn(|| {
            let chunk = vec![7; CHUNK];
            (0..CHUNKS).for_each(|_| (&near).write_all(&chunk).expect("write"));
            near.shutdown(Shutdown::Write).expect("shutdown");
        });
        let mut buffer = vec![0; 100_003];
        let mut received = 0;
        loop {
            match (&far).read(&mut buffer).expect("read") {
                0 => break,
                bytes => received += bytes,
            }
        }
        assert_eq!(received, CHUNK * CHUNKS);
    });
    let total = (CHUNK * CHUNKS) as u64;
    let [sender, receiver] = watches.map(|watch| watch.slot().expect("counted"));
    assert_eq!((sender.sent_bytes, sender.received_bytes), (total, 0));
    assert_eq!((receiver.sent_bytes, receiver.received_bytes), (0, total));
    let tcp = opinion.totals(near.as_fd()).expect("TCP_INFO");
    assert_eq!(tcp.out_bytes, total);
    assert_eq!(sender.lost_notices, 0, "one notice per 64 KiB fits the ring");
}

#[test]
fn the_wait_in_the_receive_queue_is_seen() {
    let Some(witness) = counting(&WitnessOptions::default()) else { return };
    let (near, mut far) = pair();
    let watch = witness.adopt(far.as_fd());
    let mut queued_before = 0;
    for delay in [Duration::ZERO, Duration::from_millis(50)] {
        let sent_ns = monotonic_ns();
        (&near).write_all(&[1; 40]).expect("write");
        wait_until("it arrived", || far.peek(&mut [0; 40]).is_ok_and(|bytes| bytes == 40));
        let waiting = watch.slot().expect("it arrived");
        assert!(waiting.ready_ns >= sent_ns, "arrival of what nobody read");
        thread::sleep(delay);
        far.read_exact(&mut [0; 40]).expect("read");
        let read_ns = monotonic_ns();
        let slot = watch.slot().expect("counted");
        let queued = Duration::from_nanos(slot.queue_ns - queued_before);
        queued_before = slot.queue_ns;
        assert!(queued >= delay, "{queued:?}");
        assert!(queued <= Duration::from_nanos(read_ns - sent_ns), "{queued:?}");
        assert_eq!((slot.ready_ns, slot.run_ready_ns), (0, waiting.ready_ns));
        assert!(slot.received_run_ns >= slot.run_ready_ns && slot.received_run_ns <= read_ns);
        // The next request is another run.
        far.write_all(&[2; 3]).expect("write");
        let slot = watch.slot().expect("counted");
        assert!(slot.sent_run_ns >= slot.last_received_ns);
    }
}

#[test]
fn ends_and_resets_are_told_apart() {
    let Some(witness) = counting(&WitnessOptions::default()) else { return };
    let (near, mut far) = pair();
    let watch = witness.adopt(near.as_fd());
    near.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!(far.read(&mut [0; 8]).expect("end of stream"), 0);
    far.write_all(&[1; 70]).expect("half of it is open");
    (&near).read_exact(&mut [0; 70]).expect("read");
    let half = wait_for("a slot", || watch.slot());
    assert!(half.ended_ns > 0 && half.closed_ns == 0, "half closed: {half:?}");
    assert_eq!(half.received_bytes, 70);
    drop(far);
    let closed = wait_for("its end", || watch.slot().filter(|slot| slot.closed_ns > 0));
    assert_eq!((closed.resets_sent, closed.resets_received), (0, 0));
    assert_eq!(closed.tcp_state, u32::from(tcp_state::CLOSE));

    // One end closes with bytes unread: it sends a reset.
    let (near, far) = pair();
    let watches = [witness.adopt(near.as_fd()), witness.adopt(far.as_fd())];
    (&near).write_all(&[1; 100]).expect("write");
    wait_until("it arrived", || far.peek(&mut [0; 100]).is_ok_and(|bytes| bytes == 100));
    drop(far);
    let reset = |watch: &SocketWitness| watch.slot().map(|s| (s.resets_sent, s.resets_received));
    wait_until("the reset", || watches.each_ref().map(reset) == [Some((0, 1)), Some((1, 0))]);
    let slots = watches.map(|watch| watch.slot().expect("readable after the end"));
    assert!(slots.iter().all(|slot| slot.closed_ns > 0), "{slots:?}");
    assert_eq!((slots[0].sent_bytes, slots[1].received_bytes), (100, 0));
}

#[test]
fn what_was_sent_again_is_counted() {
    let Some(witness) = counting(&WitnessOptions::default()) else { return };
    let (near, mut far) = pair();
    let watch = witness.adopt(near.as_fd());
    // The receiver's filter drops every segment, so that nothing is acknowledged.
    set_filter(&far, true);
    (&near).write_all(&[1; 500]).expect("write");
    wait_until("it was sent again", || watch.slot().is_some_and(|slot| slot.retransmits > 0));
    set_filter(&far, false);
    far.read_exact(&mut [0; 500]).expect("read");
    let slot = watch.slot().expect("counted");
    assert_eq!(slot.sent_bytes, 500, "once, however often it was sent");
}

/// Attaches a socket filter that drops everything, or takes it off.
fn set_filter(stream: &TcpStream, drop_all: bool) {
    // "Return 0": keep no byte of the packet.
    let mut code = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: code.as_mut_ptr() };
    let name = if drop_all { libc::SO_ATTACH_FILTER } else { libc::SO_DETACH_FILTER };
    let size = libc::socklen_t::try_from(size_of_val(&program)).expect("small");
    // SAFETY: the option reads one `sock_fprog`, and the one instruction that it points to.
    let result = unsafe {
        let program = (&raw const program).cast();
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, name, program, size)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_full_table_leaves_sockets_unwitnessed_and_says_so() {
    // As many slots as one socket's cookie may choose from.
    let options = WitnessOptions { slots: 8, ..WitnessOptions::default() };
    let Some(witness) = counting(&options) else { return };
    let mut troubles = witness.take_health().expect("the only one to ask");
    let mut seen = vec![];
    let connections: Vec<_> = (0..30).map(|_| pair()).collect();
    for (near, far) in &connections {
        let watch = witness.adopt(near.as_fd());
        (&*near).write_all(&[1; 11]).expect("write");
        (&*far).read_exact(&mut [0; 11]).expect("read");
        // Right, or nothing: never a wrong total.
        let totals = watch.totals(near.as_fd());
        assert!(totals.is_none_or(|totals| totals.out_bytes == 11), "{totals:?}");
        seen.push(totals.is_some());
    }
    let witnessed = seen.iter().filter(|seen| **seen).count();
    assert!((1..=8).contains(&witnessed), "{seen:?}");
    assert!(witness.stats().slots_full as usize >= connections.len() - witnessed);
    let told = wait_for("it is told", || {
        let event = troubles.try_recv().ok()?;
        matches!(event.trouble, Trouble::SocketsUnwitnessed { .. }).then_some(event)
    });
    assert!(!told.over);
    assert!(witness.health().is_fine(), "the others' totals are right");
    // Whoever comes again knows at once.
    let lost = seen.iter().position(|seen| !*seen).expect("some found no room");
    let again = witness.adopt(connections[lost].0.as_fd());
    assert!(again.unwitnessed().is_some_and(|why| why.contains("table of totals is full")));
}

#[test]
fn a_closed_sockets_slot_serves_another_after_its_time() {
    let options = WitnessOptions { slots: 8, ..WitnessOptions::default() };
    let Some(witness) = counting(&options) else { return };
    let talk = || {
        let (near, far) = pair();
        let watch = witness.adopt(near.as_fd());
        (&near).write_all(&[1; 11]).expect("write");
        (&far).read_exact(&mut [0; 11]).expect("read");
        let totals = watch.totals(near.as_fd());
        drop((near, far));
        (watch, totals.is_some())
    };
    let mut closed = vec![];
    wait_for("the table is full", || {
        let (watch, witnessed) = talk();
        closed.push(watch);
        (!witnessed).then_some(())
    });
    closed.pop();
    let readable = closed.iter().filter(|watch| watch.slot().is_some()).count();
    assert!(readable > 0, "{} were closed", closed.len());
    wait_for("room again", || talk().1.then_some(()));
}

#[test]
fn another_process_reads_the_table_by_its_descriptor_without_any_right() {
    let Some(witness) = choosing() else { return };
    let selection = witness.selection().expect("it chooses");
    let identity = witness.identity().expect("learned");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    selection.adopt_listener(listener.as_fd(), identity).expect("marked");
    let passed = witness.table_descriptor().expect("a descriptor").expect("a table");
    let reader = thread::spawn(move || {
        drop_capabilities();
        let table = Table::map(passed.as_fd()).expect("needs no right");
        let (near, mut far) = connect(&listener);
        (&near).write_all(&[1; 444]).expect("write");
        far.read_exact(&mut [0; 444]).expect("read");
        let slot = table.read(cookie(&far)).expect("chosen by the other's programs");
        assert_eq!((slot.received_bytes, slot.sent_bytes, slot.role), (444, 0, role::ACCEPTED));
        assert!(slot.first_ns > 0 && table.read(cookie(&near)).is_none());
        // It is the programs' alone to write.
        // SAFETY: a new mapping; nothing is read or written through it.
        let writable = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), 4_096, access, libc::MAP_SHARED, passed.as_raw_fd(), 0)
        };
        assert_eq!(writable, libc::MAP_FAILED);
    });
    reader.join().expect("assertions hold");
}

/// `SO_COOKIE`.
fn cookie(stream: &TcpStream) -> u64 {
    let (mut cookie, mut length) = (0u64, 8);
    // SAFETY: the kernel writes at most `length` bytes, which `cookie` has.
    let result = unsafe {
        let into = (&raw mut cookie).cast();
        let (level, name) = (libc::SOL_SOCKET, libc::SO_COOKIE);
        libc::getsockopt(stream.as_raw_fd(), level, name, into, &raw mut length)
    };
    assert_eq!(result, 0, "every socket has a cookie");
    cookie
}

/// Gives up every capability of the calling thread, and only of it.
fn drop_capabilities() {
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    let header = [LINUX_CAPABILITY_VERSION_3, 0];
    let none = [0u32; 6];
    // SAFETY: capset reads one header of two words and, for version 3, two records of three words.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    assert_eq!(result, 0, "a thread may always give up its own capabilities");
}
