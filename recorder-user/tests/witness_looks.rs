//! Looks at sockets of the real kernel: offsets, waits in the receive queue, and TCP's own count.

mod witness_support;

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    os::fd::AsFd as _,
    thread,
    time::Duration,
};

use recorder_user::{
    model::Tier,
    witness::{Looks, Mode, Sample, SocketWitness, WitnessOptions, monotonic_ns},
};
use witness_support::{pair, start};

fn look(watch: &SocketWitness, in_bytes: u64, out_bytes: u64) -> Sample {
    Sample {
        at_ns: monotonic_ns(),
        gateway_in_bytes: in_bytes,
        gateway_out_bytes: out_bytes,
        kernel: watch.sample(),
    }
}

/// Waits until the peer's bytes are there, without reading them: the programs leave peeks out.
fn wait_for_bytes(stream: &TcpStream) {
    stream.peek(&mut [0]).expect("loopback");
}

#[test]
fn a_look_has_the_bytes_and_the_wait_of_what_was_read() {
    const WAIT: Duration = Duration::from_millis(50);
    let witness = start(Mode::Auto, &WitnessOptions::default());
    let (mut near, mut far) = pair();
    let watch = witness.adopt(near.as_fd());
    far.write_all(&[1; 100]).expect("loopback");
    near.read_exact(&mut [0; 100]).expect("loopback");
    near.write_all(&[2; 30]).expect("loopback");
    let from = look(&watch, 100, 30);

    far.write_all(&[3; 200]).expect("loopback");
    wait_for_bytes(&near);
    thread::sleep(WAIT);
    near.read_exact(&mut [0; 200]).expect("loopback");
    let head = look(&watch, 300, 30);
    near.write_all(&[4; 70]).expect("loopback");
    let to = look(&watch, 300, 100);

    let looks = Looks { from, head, to, interleaved: false };
    let span = looks.span(|ns| witness.wall(ns));
    assert_eq!((span.in_from, span.in_to), (100, 300), "{span:?}");
    assert_eq!((span.out_from, span.out_to), (30, 100), "{span:?}");
    assert!(!span.inexact, "{span:?}");
    if witness.capability().tier != Tier::T1 {
        assert_eq!((span.queue_us, span.first_in, span.last_out), (None, None, None));
        return;
    }
    let queue_us = span.queue_us.expect("the tier tells");
    assert!(u128::from(queue_us) >= WAIT.as_micros(), "{span:?}");
    let arrived = span.first_in.expect("the tier tells");
    let read = span.last_in.expect("the tier tells");
    let waited_us = u128::try_from(read.micros_since(arrived)).expect("in this order");
    assert!(waited_us + 1 >= WAIT.as_micros(), "{span:?}");
    assert!(span.first_out.is_some() && span.first_out <= span.last_out, "{span:?}");
    assert!(read <= span.first_out.expect("the tier tells"), "{span:?}");
}

#[test]
fn tcp_counts_what_no_receive_call_took_and_leaves_out_the_end_that_was_read() {
    let witness = start(Mode::Auto, &WitnessOptions::default());
    let (mut near, mut far) = pair();
    let watch = witness.adopt(near.as_fd());
    far.write_all(&[1; 100]).expect("loopback");
    near.read_exact(&mut [0; 60]).expect("loopback");
    near.write_all(&[2; 30]).expect("loopback");
    let Some(tcp) = watch.tcp_totals(near.as_fd(), false) else {
        assert_ne!(witness.capability().tier, Tier::T1, "its totals are TCP's own");
        return;
    };
    assert_eq!((tcp.in_bytes_beside([60, 60]), tcp.out_bytes, tcp.unread_bytes), (60, 30, 40));

    // Both ends are done, so that TCP does not tell whether a FIN came.
    far.read_exact(&mut [0; 30]).expect("loopback");
    far.shutdown(Shutdown::Write).expect("loopback");
    let mut rest = Vec::new();
    assert_eq!(near.read_to_end(&mut rest).expect("loopback"), 40);
    near.shutdown(Shutdown::Write).expect("loopback");
    assert_eq!(far.read(&mut [0]).expect("loopback"), 0);
    let tcp = watch.tcp_totals(near.as_fd(), true).expect("as before");
    assert_eq!((tcp.in_bytes_beside([100, 100]), tcp.out_bytes, tcp.unread_bytes), (100, 30, 0));
}
