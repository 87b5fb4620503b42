#![no_main]

//! Gunzip: the same in every chunking, and bounded.

use decklog_fuzz::wire::gzip::{Gunzip, GunzipError};

fn gunzip(input: &[u8], chunk: usize) -> (bool, Vec<u8>) {
    let (mut gunzip, mut plain) = (Gunzip::new(), Vec::new());
    let good = input.chunks(chunk).all(|part| {
        let push = gunzip.push(part, |piece| {
            plain.extend_from_slice(piece);
            Ok::<_, GunzipError>(())
        });
        push.is_ok()
    });
    (good && gunzip.is_complete(), plain)
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (good, plain) = gunzip(input, usize::MAX);
    let (good_in_chunks, plain_in_chunks) = gunzip(input, 1 + input.len() % 9);
    assert_eq!(good, good_in_chunks);
    assert!(!good || plain == plain_in_chunks);
});
