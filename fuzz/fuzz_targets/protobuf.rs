#![no_main]

//! Protobuf: fields cover the message exactly, and Kubernetes' envelopes are read without harm.

use decklog_fuzz::wire::{kubernetes::Document, protobuf};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut encoded = 0;
    let mut good = true;
    for field in protobuf::fields(input) {
        match field {
            Ok(field) => encoded += field.encoded.len(),
            Err(_) => good = false,
        }
    }
    assert!(encoded <= input.len());
    assert!(!good || encoded == input.len());
    let _ = Document::from_protobuf(input);
    let _ = Document::from_watch_protobuf(input);
});
