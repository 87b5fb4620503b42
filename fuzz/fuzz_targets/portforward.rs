#![no_main]

//! port-forward over SPDY and over numbered channels.

use decklog_fuzz::{check_one_of, port_forward};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    check_one_of(
        &[
            port_forward("SPDY/3.1", "portforward.k8s.io"),
            port_forward("websocket", "v4.channel.k8s.io"),
            port_forward("websocket", "v4.base64.channel.k8s.io"),
        ],
        input,
    );
});
