#![no_main]

//! exec and attach over WebSocket, in binary.

use decklog_fuzz::{check_one_of, command};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    check_one_of(
        &[command("websocket", "v5.channel.k8s.io"), command("websocket", "v4.channel.k8s.io")],
        input,
    );
});
