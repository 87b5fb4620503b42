#![no_main]

//! port-forward with SPDY inside WebSocket.

use decklog_fuzz::{check_one_of, port_forward};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    check_one_of(&[port_forward("websocket", "SPDY/3.1+portforward.k8s.io")], input);
});
