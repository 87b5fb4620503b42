#![no_main]

//! Tar listings: the same in every chunking, and no more content than the stream is long.

use decklog_fuzz::wire::tar::Listing;

fn list(input: &[u8], chunk: usize) -> String {
    let mut listing = Listing::new();
    let (mut entries, mut read) = (Vec::new(), Ok(()));
    for part in input.chunks(chunk) {
        read = listing.push(part, &mut |entry| entries.push(entry));
    }
    let content: u128 = entries.iter().map(|entry| u128::from(entry.size)).sum();
    assert!(content <= input.len() as u128 + u128::from(listing.missing_bytes()));
    format!("{entries:?} {read:?} {} {}", listing.is_complete(), listing.missing_bytes())
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    assert_eq!(list(input, usize::MAX), list(input, 1 + input.len() % 600));
});
