//! A witness whose program is cut off while a connection goes on: what passed uncounted is located, and never
//! called complete. One test: it cuts the first link of this process that it finds.
#![allow(unsafe_code, reason = "a link is cut through libc")]

mod witness_support;

use std::{
    fs,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
};

use recorder_user::{
    model::{AccountState, Direction, SocketEvidence, WitnessEvent},
    witness::{Follower, Role, Trouble, View, WitnessOptions, compare_socket},
};
use witness_support::{counting, pair, wait_for};

#[test]
fn bytes_of_blind_time_are_located_and_never_complete() {
    let Some(witness) = counting(&WitnessOptions::default()) else { return };
    let mut events = witness.take_health().expect("the only one to ask");
    let mut follower = Follower::new(witness.capability().tier);
    let (near, mut far) = pair();
    let adopted = witness.sight().mark();
    let watch = witness.adopt(near.as_fd());
    let mut pass = |bytes: usize| {
        (&near).write_all(&vec![1; bytes]).expect("loopback");
        far.read_exact(&mut vec![0; bytes]).expect("loopback");
    };
    let account = |written: u64| {
        let totals = watch.totals(near.as_fd()).expect("witnessed");
        let evidence = SocketEvidence {
            cookie: watch.cookie(),
            gateway_out_bytes: written,
            kernel_in_bytes: Some(totals.in_bytes),
            kernel_out_bytes: Some(totals.out_bytes),
            ..SocketEvidence::default()
        };
        let happened = witness.sight().since(adopted);
        let view = View {
            capability: witness.capability(),
            disturbed: happened.disturbed,
            blind: happened.blind.as_deref(),
        };
        compare_socket(Role::Client, &evidence, view)
    };
    pass(10);
    assert!(account(10).kernel_verified);

    cut("tp_name:\tsock_send_length");
    pass(25);
    // Nobody has noticed yet: a gap, at its place.
    let early = account(35);
    assert_eq!((early.state, early.gap_bytes, early.gaps[0].from), (AccountState::Gap, 25, 10));

    let lost = Trouble::HookLost { hook: "sock_send_length".to_owned() };
    wait_for("the loss is told", || {
        let changed = follower.follow(events.try_recv().ok().filter(|told| told.trouble == lost)?);
        witness.sight().note(&changed);
        (changed.event == WitnessEvent::Detached && changed.blind).then_some(())
    });
    let late = account(35);
    assert_eq!(
        (late.state, late.gap_bytes, late.kernel_verified),
        (AccountState::Unwitnessed, 0, false)
    );
    let reason = late.reason.as_deref().expect("unwitnessed says why");
    assert!(reason.contains("sock_send_length"), "{reason}");
    let [unseen] = &late.unseen[..] else { panic!("{late:?}") };
    assert_eq!((unseen.direction, unseen.from, unseen.to), (Direction::Response, 10, 35));

    // A socket that is made now is unwitnessed from its first byte.
    let after = witness.sight().since(witness.sight().mark());
    assert!(after.blind.is_some(), "{after:?}");
}

/// Cuts a program off its hook, as if its link had been closed.
fn cut(line: &str) {
    let entries = fs::read_dir("/proc/self/fdinfo").expect("proc");
    let is_it = |text: &str| text.contains("link_id:") && text.lines().any(|one| one == line);
    let link: i32 = entries
        .map(|entry| entry.expect("proc").file_name().to_string_lossy().into_owned())
        .find(|fd| fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).is_ok_and(|t| is_it(&t)))
        .and_then(|fd| fd.parse().ok())
        .unwrap_or_else(|| panic!("no link with {line:?}"));
    let nothing = fs::File::open("/dev/null").expect("a device");
    // SAFETY: the link's owner still closes this descriptor, which is another file's by then.
    let result = unsafe { libc::dup2(nothing.as_raw_fd(), link) };
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
}
