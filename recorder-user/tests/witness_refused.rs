//! A kernel that refuses eBPF: the capability record says so, and `TCP_INFO` takes over.
#![allow(unsafe_code, reason = "capset has no safe form")]

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    thread,
};

use recorder_user::{
    model::Tier,
    witness::{Mode, Witness, WitnessOptions},
};

/// Gives up every capability of the calling thread, and only of it.
fn drop_capabilities() {
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    let header = [LINUX_CAPABILITY_VERSION_3, 0];
    let none = [0u32; 6];
    // SAFETY: capset reads one header of two words and, for version 3, two records of three words.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    assert_eq!(result, 0, "a thread may always give up its own capabilities");
}

#[test]
fn without_capabilities_tcp_info_takes_over_and_the_record_says_why() {
    let on_a_thread_of_its_own = thread::spawn(|| {
        drop_capabilities();
        let refused = Witness::start(Mode::Ebpf, &WitnessOptions::default());
        assert!(refused.is_err(), "eBPF must not be had without capabilities");

        let witness = Witness::start(Mode::Auto, &WitnessOptions::default()).expect("auto");
        let capability = witness.capability();
        assert_eq!((capability.tier, capability.self_test), (Tier::T5, true));
        let reason = capability.reason.as_deref().expect("a reason");
        // A build without the object does not come as far as the kernel.
        assert!(
            reason.contains("Operation not permitted") || reason.contains("cargo xtask build-ebpf"),
            "{reason}"
        );

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        let mut near = TcpStream::connect(address).expect("connect");
        let (mut far, _) = listener.accept().expect("accept");
        let watch = witness.adopt(near.as_fd());
        near.write_all(&[1; 1_234]).expect("write");
        far.write_all(&[2; 77]).expect("write");
        near.read_exact(&mut [0; 77]).expect("read");
        let totals = watch.close(near.as_fd()).expect("TCP_INFO");
        assert_eq!((totals.in_bytes, totals.out_bytes), (77, 1_234));
    });
    on_a_thread_of_its_own.join().expect("assertions hold");
}
