#![no_main]

//! The JSON scanner: the same in every chunking, and every byte handed through.

use decklog_fuzz::wire::{
    json::{Interest, Path, Scalar, Scanner, Visitor},
    kubernetes::Document,
};

#[derive(Default)]
struct Raw(Vec<u8>);

impl Visitor for Raw {
    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn scalar(&mut self, _: &Path, _: Scalar) -> Interest {
        Interest::Pass
    }

    fn text(&mut self, _: &[u8]) {}

    fn taken(&mut self, _: &Path, _: Scalar) {}
}

fn scan(input: &[u8], chunk: usize) -> (bool, Raw) {
    let (mut scanner, mut raw) = (Scanner::new(), Raw::default());
    let fed = input.chunks(chunk).all(|part| scanner.feed(part, &mut raw).is_ok());
    (fed && scanner.finish(&mut raw).is_ok(), raw)
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (good, raw) = scan(input, usize::MAX);
    let (good_in_chunks, raw_in_chunks) = scan(input, 1 + input.len() % 9);
    assert_eq!(good, good_in_chunks);
    if good {
        assert_eq!(raw.0, input);
        assert_eq!(raw_in_chunks.0, input);
    }
    let _ = Document::from_json(input);
});
