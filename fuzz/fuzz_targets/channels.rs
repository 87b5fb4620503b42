#![no_main]

//! exec and attach in base64, where sizes and the status are decoded once more.

use decklog_fuzz::{check_one_of, command};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    check_one_of(
        &[
            command("websocket", "v4.base64.channel.k8s.io"),
            command("websocket", "base64.channel.k8s.io"),
        ],
        input,
    );
});
