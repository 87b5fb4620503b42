//! What the eBPF programs log comes out as tracing events.

use std::{
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use recorder_user::{
    model::Tier,
    witness::{Mode, Witness, WitnessOptions},
};
use tracing_subscriber::{filter::LevelFilter, util::SubscriberInitExt as _};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic while held").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic while held")).into_owned()
    }
}

#[test]
fn kernel_log_lines_reach_tracing() {
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::DEBUG)
        .with_writer(move || writer.clone())
        .finish()
        .init();
    let witness = Witness::start(Mode::Auto, &WitnessOptions::default()).expect("auto");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let near = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (far, _) = listener.accept().expect("accept");
    let _watch = witness.adopt(near.as_fd());
    drop(far);
    if witness.capability().tier != Tier::T1 {
        let text = lines.text();
        assert!(text.contains("no eBPF witness, TCP_INFO takes its place"), "{text}");
        return;
    }
    // ESTABLISHED to CLOSE_WAIT, in softirq.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !lines.text().contains("witnessed socket: tcp state 1 to 8") {
        assert!(Instant::now() < deadline, "{}", lines.text());
        thread::sleep(Duration::from_millis(5));
    }
}
