//! What befalls the witness itself: programs cut off, a full ring, lower tiers. One test after the other,
//! since they look for the programs' links among the process's descriptors.
#![allow(unsafe_code, reason = "a link is cut off by what has no safe form")]

mod witness_support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use recorder_ebpf::{kind, role};
use recorder_user::{
    model::Tier,
    witness::{
        EndpointAddress, EndpointKind, HealthEvent, Mode, Trouble, Witness, WitnessOptions,
        netns_cookie,
    },
};
use tokio::sync::mpsc::Receiver;
use witness_support::{Told, connect, counting, pair, start, wait_for};

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until each of these was told, in whatever order.
#[track_caller]
fn told(events: &mut Receiver<HealthEvent>, all: &[Trouble]) {
    let mut seen = vec![];
    wait_for(&format!("{all:?} are told"), || {
        while let Ok(event) = events.try_recv() {
            assert!(!event.over || !all.contains(&event.trouble), "it does not come back");
            seen.push(event.trouble);
        }
        all.iter().all(|trouble| seen.contains(trouble)).then_some(())
    });
}

/// The descriptor of a link of this process whose description has this line.
fn link(line: &str) -> i32 {
    let entries = fs::read_dir("/proc/self/fdinfo").expect("proc");
    let is_it = |text: &str| text.contains("link_id:") && text.lines().any(|one| one == line);
    entries
        .map(|entry| entry.expect("proc").file_name().to_string_lossy().into_owned())
        .find(|fd| fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).is_ok_and(|t| is_it(&t)))
        .and_then(|fd| fd.parse().ok())
        .unwrap_or_else(|| panic!("no link with {line:?}"))
}

#[test]
fn a_program_that_is_cut_off_by_somebody_else_is_told() {
    let _alone = alone();
    let Some(witness) = counting(&WitnessOptions::default()) else { return };
    if witness.selection().is_none() {
        return;
    }
    let mut events = witness.take_health().expect("the only one to ask");
    // As root does it with `bpftool link detach`; 3 is `BPF_CGROUP_SOCK_OPS`, 34 `BPF_LINK_DETACH`.
    let attributes = [link("attach_type:\t3"), 0];
    // SAFETY: the command reads one descriptor from so many bytes.
    let result = unsafe { libc::syscall(libc::SYS_bpf, 34, attributes.as_ptr(), 8) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    let lost = Trouble::HookLost { hook: "sock_ops".to_owned() };
    told(&mut events, std::slice::from_ref(&lost));
    assert!(witness.health().troubles.contains(&lost));
    assert!(witness.health().is_fine(), "bytes are counted all the same");
}

#[test]
fn a_hook_that_counts_no_more_spoils_what_the_kernel_says() {
    let _alone = alone();
    let Some(witness) = counting(&WitnessOptions::default()) else { return };
    let mut events = witness.take_health().expect("the only one to ask");
    let (near, mut far) = pair();
    let watch = witness.adopt(near.as_fd());
    (&near).write_all(&[1; 10]).expect("write");
    far.read_exact(&mut [0; 10]).expect("read");
    let before = witness.health();
    assert!(before.is_fine());
    let nothing = fs::File::open("/dev/null").expect("a device");
    // SAFETY: the link's owner still closes this descriptor, which is another file's by then.
    let result = unsafe { libc::dup2(nothing.as_raw_fd(), link("tp_name:\tsock_send_length")) };
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    let lost = Trouble::HookLost { hook: "sock_send_length".to_owned() };
    told(&mut events, &[lost, Trouble::HeartbeatMissed]);
    let after = witness.health();
    assert!(!after.is_fine() && after.spoiled > before.spoiled, "{after:?}");
    assert_eq!(witness.stats().impaired, 1);
    // The gateway goes on.
    (&near).write_all(&[1; 10]).expect("write");
    far.read_exact(&mut [0; 10]).expect("read");
    assert_eq!(watch.totals(near.as_fd()).expect("witnessed").out_bytes, 10);
}

#[test]
fn a_full_ring_gives_exact_totals_and_tells_where_it_lost() {
    let _alone = alone();
    let options = WitnessOptions {
        ring_bytes: 4_096,
        drain_interval: Duration::from_millis(400),
        ..WitnessOptions::default()
    };
    let Some(witness) = counting(&options) else { return };
    let mut events = witness.take_health().expect("the only one to ask");
    let (mut near, mut far) = pair();
    let watch = witness.adopt(near.as_fd());
    let mut rounds = 0;
    // Rounds go on until a notice came through behind a hole: then the hole has two ends.
    let losses = wait_for("a loss with two ends", || {
        for _ in 0..100 {
            near.write_all(&[1; 64]).expect("write");
            far.read_exact(&mut [0; 64]).expect("read");
            far.write_all(&[2; 32]).expect("write");
            near.read_exact(&mut [0; 32]).expect("read");
            rounds += 1;
        }
        Some(watch.losses()).filter(|losses| !losses.is_empty())
    });
    let slot = watch.slot().expect("counted");
    assert_eq!((slot.sent_bytes, slot.received_bytes), (rounds * 64, rounds * 32));
    assert_eq!(slot.seq, rounds * 2, "one notice a change of direction");
    let loss = &losses[0];
    assert!(loss.notices > 0 && loss.notices <= slot.lost_notices, "{loss:?} {slot:?}");
    // Each notice that was lost told of one message.
    let lost_bytes = (loss.sent.end - loss.sent.start) + (loss.received.end - loss.received.start);
    let fits = (loss.notices * 32..=(loss.notices + 1) * 64).contains(&lost_bytes);
    assert!(fits && loss.sent.end <= slot.sent_bytes, "{loss:?}");
    wait_for("it is told", || {
        let event = events.try_recv().ok()?;
        matches!(event.trouble, Trouble::NoticesLost { .. }).then_some(())
    });
    assert!(witness.health().is_fine(), "totals do not depend on notices");
}

#[test]
fn where_tracing_is_refused_connections_are_told_all_the_same() {
    let _alone = alone();
    if counting(&WitnessOptions::default()).is_none_or(|witness| witness.selection().is_none()) {
        return;
    }
    let tracing = ["sock_send_length", "sock_recv_length", "inet_sock_set_state", "sk_data_ready"];
    let options = WitnessOptions {
        leave_out: tracing.map(str::to_owned).to_vec(),
        ..WitnessOptions::default()
    };
    let witness = start(Mode::Auto, &options);
    let capability = witness.capability();
    assert_eq!((capability.tier, capability.self_test), (Tier::T4, true), "{capability:?}");
    let left_out = capability.hooks.iter().filter(|hook| hook.error.is_some());
    assert_eq!(left_out.count(), tracing.len());
    assert!(Witness::start(Mode::Ebpf, &options).is_err());

    let api = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let address = api.local_addr().expect("address");
    let netns_cookie = netns_cookie(api.as_fd()).expect("a cookie");
    let selection = witness.selection().expect("T4 chooses");
    selection
        .set_endpoints(&[EndpointAddress { address, kind: EndpointKind::Api, netns_cookie }])
        .expect("told");
    let mut told = Told::by(&witness);
    let (mut near, mut far) = connect(&api);
    let watch = witness.adopt(near.as_fd());
    near.write_all(&[1; 222]).expect("write");
    far.read_exact(&mut [0; 222]).expect("read");
    let totals = watch.totals(near.as_fd()).expect("TCP_INFO");
    assert_eq!((totals.in_bytes, totals.out_bytes), (0, 222));
    drop((near, far));
    let closed = told.connection(kind::CLOSED, |notice| notice.head.cookie == watch.cookie());
    assert_eq!(closed.role, role::FOREIGN);
    assert!([223, 224].contains(&closed.tcp_acked_bytes), "{closed:?}");
    // Its slot is given back all the same.
    let mut closed_ns = 0;
    witness.for_each_slot(|slot| {
        if slot.cookie == watch.cookie() {
            closed_ns = slot.closed_ns;
        }
    });
    assert!(closed_ns > 0);
}

#[test]
fn without_the_hooks_on_cgroups_bytes_are_counted_all_the_same() {
    let _alone = alone();
    let options = WitnessOptions {
        leave_out: vec!["sock_ops".to_owned(), "connect4".to_owned()],
        ..WitnessOptions::default()
    };
    let Some(witness) = counting(&options) else { return };
    assert!(witness.selection().is_none() && witness.identity().is_none());
    let (near, mut far) = pair();
    let watch = witness.adopt(far.as_fd());
    (&near).write_all(&[1; 90]).expect("write");
    far.read_exact(&mut [0; 90]).expect("read");
    assert_eq!(watch.totals(far.as_fd()).expect("counted").in_bytes, 90);
    drop::<TcpStream>(near);
    wait_for("its end", || watch.slot().filter(|slot| slot.ended_ns > 0));
}
