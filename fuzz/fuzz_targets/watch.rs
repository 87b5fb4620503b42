#![no_main]

//! Watch frames: the same in every chunking, and so is what the tracker says.

use decklog_fuzz::wire::watch::{FrameTracker, Framing, Splitter};

fn split(framing: Framing, input: &[u8], chunk: usize) -> String {
    let (mut splitter, mut frames, mut read) = (Splitter::new(framing), Vec::new(), Ok(()));
    for part in input.chunks(chunk) {
        read = splitter.push(part, &mut frames);
    }
    format!("{frames:?} {read:?}")
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    for framing in [Framing::Json, Framing::Protobuf] {
        assert_eq!(split(framing, input, usize::MAX), split(framing, input, 1 + input.len() % 9));
        let (mut whole, mut bytes) = (FrameTracker::new(framing), FrameTracker::new(framing));
        whole.push(input);
        input.iter().for_each(|byte| bytes.push(&[*byte]));
        assert_eq!(whole.at_boundary(), bytes.at_boundary());
    }
});
