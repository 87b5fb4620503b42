//! The witness against the real kernel, over loopback connections.
//!
//! Where the kernel or the build allows no eBPF, nothing is skipped: the same exchanges run under
//! `TCP_INFO`, and the capability record must say why.

mod witness_support;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::AsFd as _,
    path::PathBuf,
    thread,
    time::Duration,
};

use recorder_user::{
    model::{AccountState, GapStep, SocketEvidence, Tier, Timestamp},
    witness::{KernelTotals, Mode, Role, SocketWitness, Witness, WitnessOptions, compare_socket},
};
use witness_support::{pair, start, wait_until};

/// Both witnesses that there are; the first falls back to the second where there is no eBPF.
fn witnesses() -> [Witness; 2] {
    [Mode::Auto, Mode::TcpInfo].map(|mode| start(mode, &WitnessOptions::default()))
}

/// One end of a connection as the gateway holds it: every byte counted where it is read or written.
struct End<'w> {
    stream: TcpStream,
    witness: &'w Witness,
    watch: SocketWitness,
    read: u64,
    written: u64,
}

impl<'w> End<'w> {
    fn adopt(witness: &'w Witness, stream: TcpStream) -> Self {
        let watch = witness.adopt(stream.as_fd());
        assert_eq!(watch.unwitnessed(), None);
        assert_ne!(watch.cookie(), 0);
        Self { stream, witness, watch, read: 0, written: 0 }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("write to loopback");
        self.written += bytes.len() as u64;
    }

    fn read(&mut self, size: usize) {
        self.stream.read_exact(&mut vec![0; size]).expect("read from loopback");
        self.read += size as u64;
    }

    fn totals(&self) -> KernelTotals {
        self.watch.totals(self.stream.as_fd()).expect("witnessed")
    }

    fn evidence(&self) -> SocketEvidence {
        let kernel = self.totals();
        SocketEvidence {
            cookie: self.watch.cookie(),
            gateway_in_bytes: self.read,
            gateway_out_bytes: self.written,
            kernel_in_bytes: Some(kernel.in_bytes),
            kernel_out_bytes: Some(kernel.out_bytes),
            first: kernel.first,
            last: kernel.last,
            lost_events: kernel.lost_events,
            ..SocketEvidence::default()
        }
    }

    #[track_caller]
    fn expect_complete(&self, what: &str) {
        let capability = self.witness.capability();
        let account = compare_socket(Role::Client, &self.evidence(), capability);
        let tier = capability.tier;
        assert_eq!(account.state, AccountState::Complete, "{tier:?}, {what}: {account:?}");
    }
}

fn adopted(witness: &Witness) -> (End<'_>, End<'_>) {
    let (near, far) = pair();
    (End::adopt(witness, near), End::adopt(witness, far))
}

/// Sizes of TLS records: handshake flights, then application data of all sizes up to the largest.
fn records(flights: &[usize], step: usize, max: usize) -> Vec<usize> {
    flights.iter().copied().chain((0..400).map(|i| 22 + (i * step) % max)).collect()
}

#[test]
fn a_tls_shaped_exchange_counts_the_same_everywhere() {
    let (up, down) = (records(&[517, 80], 37, 1_400), records(&[4_096, 255], 7_919, 16_384));
    for witness in &witnesses() {
        // TCP_INFO looks on as a second opinion in both rounds.
        let second = start(Mode::TcpInfo, &WitnessOptions::default());
        let started = Timestamp::now();
        let (mut near, mut far) = adopted(witness);
        let opinion = second.adopt(near.stream.as_fd());
        thread::scope(|scope| {
            let (up, down) = (&up, &down);
            let (mut near_in, mut far_in) =
                (near.stream.try_clone().expect("dup"), far.stream.try_clone().expect("dup"));
            let sizes: [usize; 2] = [up.iter().sum(), down.iter().sum()];
            scope.spawn(move || far_in.read_exact(&mut vec![0; sizes[0]]).expect("all of it"));
            scope.spawn(move || near_in.read_exact(&mut vec![0; sizes[1]]).expect("all of it"));
            let (near, far) = (&mut near, &mut far);
            scope.spawn(|| up.iter().for_each(|size| near.write(&vec![9; *size])));
            scope.spawn(|| down.iter().for_each(|size| far.write(&vec![7; *size])));
        });
        (near.read, far.read) = (far.written, near.written);
        near.expect_complete("client's end");
        far.expect_complete("server's end");
        let second = opinion.totals(near.stream.as_fd()).expect("TCP_INFO");
        assert_eq!((second.in_bytes, second.out_bytes), (near.read, near.written));
        if witness.capability().tier == Tier::T1 {
            let totals = near.totals();
            let (first, last) = (totals.first.expect("bytes"), totals.last.expect("bytes"));
            // Clock readings of kernel and process differ by the anchor's error, far below 50 ms.
            assert!(first.micros_since(started) > -50_000 && last.micros_since(first) >= 0);
            assert!(Timestamp::now().micros_since(last) > -50_000);
            assert_eq!(totals.lost_events, 0);
            wait_until("the notices came through", || witness.stats().events >= totals.seq);
        }
    }
}

#[test]
fn bytes_behind_the_counters_back_are_a_gap_of_exactly_that_size() {
    for witness in &witnesses() {
        let (mut near, mut far) = adopted(witness);
        near.write(&[1; 500]);
        far.read(500);
        near.stream.try_clone().expect("dup").write_all(&[2; 37]).expect("write");
        let account = compare_socket(Role::Upstream, &near.evidence(), witness.capability());
        assert_eq!((account.state, account.gap_bytes), (AccountState::Gap, 37));
        let gap = &account.gaps[0];
        assert_eq!((gap.step, gap.from, gap.to), (GapStep::Kernel, 500, 537));
        assert_eq!(gap.cookie, Some(near.watch.cookie()));

        // The other way: somebody reads what the counter never sees.
        far.stream.try_clone().expect("dup").read_exact(&mut [0; 37]).expect("read");
        let account = compare_socket(Role::Client, &far.evidence(), witness.capability());
        // TCP_INFO cannot tell one single byte from a FIN, but 37 of them it can.
        assert_eq!((account.state, account.gap_bytes), (AccountState::Gap, 37));
    }
}

#[test]
fn every_way_to_end_a_connection_still_adds_up() {
    for witness in &witnesses() {
        let (mut near, mut far) = adopted(witness);
        near.write(&[1; 100]);
        far.read(100);
        near.stream.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!(far.stream.read(&mut [0; 8]).expect("end of stream"), 0);
        far.expect_complete("CLOSE_WAIT: the peer's FIN is no byte");
        far.write(&[2; 50]);
        near.read(50);
        near.expect_complete("FIN_WAIT: our own FIN is no byte");
        far.stream.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!(near.stream.read(&mut [0; 8]).expect("end of stream"), 0);
        near.expect_complete("CLOSE after TIME_WAIT");
        far.expect_complete("CLOSE after LAST_ACK");
        if witness.capability().tier == Tier::T1 {
            wait_until("the end has a time", || near.totals().ended.is_some());
            wait_until("the end has a time", || far.totals().ended.is_some());
        }

        // A reset: the peer closes with bytes unread.
        let (mut near, far) = adopted(witness);
        near.write(&[1; 100]);
        wait_until("the bytes arrived", || far.stream.peek(&mut [0; 100]).is_ok_and(|n| n == 100));
        drop(far);
        assert!(near.stream.read(&mut [0; 8]).is_err(), "reset");
        near.expect_complete("reset");
    }
}

#[test]
fn what_waits_in_a_queue_was_not_read_and_was_written() {
    for witness in &witnesses() {
        let (mut near, mut far) = adopted(witness);
        near.write(&[1; 1_000]);
        far.read(400);
        // Looking is not reading.
        wait_until("the rest arrived", || far.stream.peek(&mut [0; 600]).is_ok_and(|n| n == 600));
        far.expect_complete("600 bytes unread");

        near.stream.set_nonblocking(true).expect("socket option");
        while let Ok(bytes) = near.stream.write(&[3; 65_536]) {
            near.written += bytes as u64;
        }
        assert!(near.written > 65_536);
        near.expect_complete("send queue full");
    }
}

#[test]
fn bytes_that_arrived_before_the_adoption_count_when_they_are_read() {
    for witness in &witnesses() {
        let (mut near, far) = pair();
        near.write_all(&[1; 517]).expect("a client speaks first");
        wait_until("they arrived", || far.peek(&mut [0; 517]).is_ok_and(|n| n == 517));
        let mut far = End::adopt(witness, far);
        far.read(517);
        far.expect_complete("early bytes");
        assert_eq!(far.totals().in_bytes, 517);
    }
}

#[test]
fn many_connections_at_once_stay_apart() {
    for witness in &witnesses() {
        thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || {
                    for round in 0..25 {
                        let (mut near, mut far) = adopted(witness);
                        for size in [1 + thread, 300 + round, 7_000] {
                            near.write(&vec![1; size]);
                            far.read(size);
                            far.write(&vec![2; size / 2]);
                            near.read(size / 2);
                        }
                        near.expect_complete("client's end");
                        let (stream, written) = (far.stream, far.written);
                        let totals = far.watch.close(stream.as_fd()).expect("final totals");
                        assert_eq!(totals.out_bytes, written);
                    }
                });
            }
        });
        let stats = witness.stats();
        // The self-test's two as well.
        assert_eq!((stats.adopted, stats.sockets), (2 * 200 + 2, 0));
        assert_eq!((stats.unwitnessed, stats.unread_totals, stats.untracked), (0, 0, 0));
    }
}

#[test]
fn a_full_ring_loses_notices_and_says_so_while_totals_stay_exact() {
    let options = WitnessOptions {
        ring_bytes: 4_096,
        drain_interval: Duration::from_secs(3_600),
        ..WitnessOptions::default()
    };
    let witness = start(Mode::Auto, &options);
    let (mut near, mut far) = adopted(&witness);
    for _ in 0..200 {
        // Each change of direction makes a notice at both ends.
        near.write(&[1; 64]);
        far.read(64);
        far.write(&[2; 32]);
        near.read(32);
    }
    near.expect_complete("client's end");
    far.expect_complete("server's end");
    if witness.capability().tier != Tier::T1 {
        assert_eq!((witness.stats().emitted, witness.stats().lost_ring), (0, 0));
        return;
    }
    let (totals, stats) = (near.totals(), witness.stats());
    assert_eq!(totals.seq, 400, "one notice a change of direction");
    assert!(totals.lost_events > 300 && totals.lost_events <= 400, "{totals:?}");
    let lost = totals.lost_events + far.totals().lost_events;
    // The heartbeat's notices find no room either.
    assert!(stats.lost_ring >= lost, "{stats:?}");
    let account = compare_socket(Role::Client, &near.evidence(), witness.capability());
    assert!(account.reason.is_some_and(|reason| reason.contains("notices were lost")));
}

#[test]
fn what_cannot_be_adopted_is_unwitnessed_counted_and_harmless() {
    for witness in &witnesses() {
        let before = witness.stats().unwitnessed;
        let file = std::fs::File::open("/proc/self/status").expect("a file");
        let watch = witness.adopt(file.as_fd());
        assert!(watch.unwitnessed().is_some_and(|why| why.contains("os error")));
        assert_eq!((watch.cookie(), watch.totals(file.as_fd())), (0, None));
        assert_eq!(watch.close(file.as_fd()), None);
        assert_eq!(witness.stats().unwitnessed, before + 1);
        assert_eq!(witness.stats().sockets, 0);
    }
}

#[test]
fn a_second_adoption_shares_the_totals() {
    let witness = start(Mode::Auto, &WitnessOptions::default());
    let (mut near, _far) = adopted(&witness);
    // Before any byte, and after.
    assert_eq!(witness.adopt(near.stream.as_fd()).unwitnessed(), None);
    near.write(&[1; 100]);
    let again = witness.adopt(near.stream.as_fd());
    assert_eq!(again.unwitnessed(), None);
    assert_eq!(again.totals(near.stream.as_fd()).map(|totals| totals.out_bytes), Some(100));
    near.expect_complete("the first adoption still counts");
}

#[test]
fn a_missing_object_is_told_and_tcp_info_takes_over() {
    let options = WitnessOptions {
        object: Some(PathBuf::from("/nonexistent/recorder-probe.bpf.o")),
        ..WitnessOptions::default()
    };
    let witness = start(Mode::Auto, &options);
    let capability = witness.capability();
    assert_eq!((capability.tier, capability.self_test), (Tier::T5, true));
    let reason = capability.reason.as_deref().expect("why");
    assert!(reason.contains("/nonexistent/recorder-probe.bpf.o"), "{reason}");
    assert!(reason.contains("os error 2"), "{reason}");
    let (mut near, mut far) = adopted(&witness);
    near.write(&[1; 100]);
    far.read(100);
    far.expect_complete("TCP_INFO");
    assert!(Witness::start(Mode::Ebpf, &options).is_err());
}

#[test]
fn off_is_unwitnessed_with_its_reason() {
    let witness = start(Mode::Off, &WitnessOptions::default());
    let (near, _far) = pair();
    let watch = witness.adopt(near.as_fd());
    assert_eq!(watch.totals(near.as_fd()), None);
    let evidence = SocketEvidence { cookie: watch.cookie(), ..SocketEvidence::default() };
    let account = compare_socket(Role::Client, &evidence, witness.capability());
    assert_eq!(account.state, AccountState::Unwitnessed);
    assert_eq!(account.reason.as_deref(), Some("switched off by configuration"));
    assert_eq!(witness.stats().unwitnessed, 0, "nobody asked for a witness");
}
