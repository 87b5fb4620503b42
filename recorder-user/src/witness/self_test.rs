//! A witness is believed only after it counted a known exchange right.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use super::{KernelTotals, Means, SocketWitness, Witness};

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
    let mut talk = || -> io::Result<()> {
        for size in UP {
            pass(&mut near, &mut far, size)?;
        }
        for size in DOWN {
            pass(&mut far, &mut near, size)?;
        }
        Ok(())
    };
    talk().map_err(|error| format!("the loopback connection broke: {error}"))?;
    let (up, down) = (UP.iter().sum::<usize>() as u64, DOWN.iter().sum::<usize>() as u64);
    expect(&watch_near, watch_near.totals(near.as_fd()), [down, up])?;
    expect(&watch_far, watch_far.totals(far.as_fd()), [up, down])?;
    match &witness.shared.means {
        Means::Ebpf(ebpf) => {
            let deadline = Instant::now() + NOTICES_DEADLINE;
            while witness.stats().events == 0 {
                if Instant::now() > deadline {
                    return Err("no notice came through the ring".to_owned());
                }
                ebpf.drain.hurry();
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        }
        Means::TcpInfo | Means::Off => Ok(()),
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

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(NOTICES_DEADLINE))?;
    }
    Ok((near, far))
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, size: usize) -> io::Result<()> {
    from.write_all(&vec![0x5a; size])?;
    to.read_exact(&mut vec![0; size])
}
