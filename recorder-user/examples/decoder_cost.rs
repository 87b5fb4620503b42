//! What the stream decoders cost: CPU time per MiB and per frame, for pushes of 64 KiB whose payloads nobody
//! touches. `cargo run --release -p recorder-user --example decoder_cost`

use std::{fs, hint::black_box};

use recorder_user::wire::stream::{Agreement, Asked, Decoder, EventKind, Side};

const PUSH_BYTES: usize = 64 << 10;
/// Enough that the scheduler's coarse accounting does not show.
const FRAMES: usize = 4_000_000;

fn main() {
    println!(
        "{:<12} {:>14} {:>12} {:>12} {:>12}",
        "framing", "frame bytes", "ns/frame", "us/MiB", "GiB/s"
    );
    for payload in [128, 1 << 10, 32 << 10, 64 << 10] {
        let command =
            |upgrade| Agreement::of(Asked::Command, upgrade, Some("v4.channel.k8s.io"), &[]);
        measure("spdy", command("SPDY/3.1"), &spdy(payload), payload);
        measure("websocket", command("websocket"), &websocket(payload, false), payload);
        measure("ws masked", command("websocket"), &websocket(payload, true), payload);
        let tunnel = Agreement::of(
            Asked::PortForward,
            "websocket",
            Some("SPDY/3.1+portforward.k8s.io"),
            &[],
        );
        measure("tunnel", tunnel, &tunnelled(payload), payload);
    }
}

/// Data frames of one stream; nobody opened it, which costs the same as an open one.
fn spdy(payload: usize) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 5, 0];
    frame.extend(&(payload as u32).to_be_bytes()[1..]);
    frame.resize(8 + payload, b'x');
    frame
}

/// Binary messages on channel 1.
fn websocket(payload: usize, masked: bool) -> Vec<u8> {
    message(&[&[1], vec![b'x'; payload].as_slice()].concat(), masked)
}

fn tunnelled(payload: usize) -> Vec<u8> {
    message(&spdy(payload), false)
}

fn message(payload: &[u8], masked: bool) -> Vec<u8> {
    let mut frame = vec![0x82, 127 | u8::from(masked) << 7];
    frame.extend((payload.len() as u64).to_be_bytes());
    if masked {
        frame.extend([0; 4]);
    }
    frame.extend(payload);
    frame
}

fn measure(name: &str, agreement: Agreement, frame: &[u8], payload: usize) {
    // Pushes end where they like, as reads do.
    let period = frame.repeat((4 * PUSH_BYTES).div_ceil(frame.len()));
    let mut decoder = Decoder::new(agreement);
    let (mut bytes, mut seen) = (0usize, 0usize);
    let before = cpu_nanoseconds();
    while bytes / frame.len() < FRAMES {
        for push in period.chunks(PUSH_BYTES) {
            decoder.push(Side::Server, push, &mut |event| {
                if let EventKind::Data { data, .. } = event.kind {
                    seen += black_box(data.wire.len());
                }
            });
            bytes += push.len();
        }
    }
    let spent = (cpu_nanoseconds() - before) as f64;
    let count = bytes / frame.len();
    assert_eq!(seen, count * payload, "every payload was seen");
    let mib = bytes as f64 / f64::from(1 << 20);
    println!(
        "{name:<12} {payload:>14} {:>12.1} {:>12.3} {:>12.1}",
        spent / count as f64,
        spent / 1000.0 / mib,
        mib / 1024.0 / (spent / 1e9)
    );
}

/// Time that this thread ran: what other processes do does not count.
fn cpu_nanoseconds() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with schedstat");
    let first = text.split_whitespace().next().expect("three numbers");
    first.parse().expect("a number")
}
