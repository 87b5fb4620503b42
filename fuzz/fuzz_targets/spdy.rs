#![no_main]

//! exec and attach over SPDY.

use decklog_fuzz::{check_one_of, command};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    check_one_of(
        &[command("SPDY/3.1", "v4.channel.k8s.io"), command("SPDY/3.1", "channel.k8s.io")],
        input,
    );
});
