//! What the two verifiers say, which must be the same.

use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use recorder_user::store::Check;

use crate::{
    recorder_verify::{self, Verifier},
    support::{keys, verify},
};

/// What both verifiers say with the store's own public keys: where the first bad place is.
///
/// The second one does not unpack payloads: what is wrong inside of one it tells later, by a signature, or not.
pub(crate) fn verdict(directory: &Path) -> Option<(PathBuf, u64)> {
    let ours = verify(directory).expect("readable");
    let second = second(&[directory.to_owned()], public_keys(&keys(directory)));
    let Some(bad) = &ours.first_bad else {
        let second = second.unwrap_or_else(|bad| panic!("the second: {bad:?}"));
        assert_eq!(
            (second.segments, second.records, second.stubs, second.gaps),
            (ours.segments.len() as u64, ours.records, ours.pruned_records, ours.absent_links)
        );
        if ours.signatures_checked {
            let signed = (ours.signatures, ours.unsigned_records);
            assert_eq!((second.signatures, second.unsigned), signed);
        }
        return None;
    };
    let place = (bad.file.clone(), bad.offset);
    let is_inside = INSIDE.iter().any(|what| bad.why.contains(what));
    match second {
        Err((second, _)) if is_inside => assert!(second >= place, "{}", bad.why),
        Ok(_) if is_inside => {}
        Err((second, why)) => assert_eq!(second, place, "{}: {why}", bad.why),
        Ok(_) => panic!("the second verifier finds nothing: {}", bad.why),
    }
    Some(place)
}

/// What is found only by unpacking payloads.
const INSIDE: [&str; 5] = [
    " body of exchange ",
    "record kind",
    "chunk record is malformed",
    "the compressed payload",
    "the record that it builds on",
];

/// What the second verifier says: what it counted, or the first bad place and what is wrong there.
pub(crate) fn second(
    targets: &[PathBuf],
    keys: Vec<VerifyingKey>,
) -> Result<Verifier, ((PathBuf, u64), &'static str)> {
    let mut verifier = Verifier::default();
    match verifier.verify(targets, &keys) {
        Ok(()) => Ok(verifier),
        Err(why) => Err(((verifier.file, verifier.offset), why)),
    }
}

/// As the second verifier reads them.
pub(crate) fn public_keys(keys: &Path) -> Vec<VerifyingKey> {
    let files = std::fs::read_dir(keys.join("signing")).into_iter().flatten().flatten();
    let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    texts.filter_map(|text| recorder_verify::public_key(&text)).collect()
}

/// The golden files, whose key is known, with each byte flipped in turn.
#[test]
fn both_read_the_golden_segments() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/golden");
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
    for (name, signatures) in [("segment-v1.seg", 0), ("segment-v2.seg", 2)] {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join(format!("{}.seg", "51".repeat(16)));
        let good = std::fs::read(golden.join(name)).expect("readable");
        std::fs::write(&file, &good).expect("writable");
        let whole = second(std::slice::from_ref(&file), vec![key]);
        let whole = whole.unwrap_or_else(|bad| panic!("{name}: {bad:?}"));
        assert_eq!((whole.signatures, whole.segments), (signatures, 1), "{name}");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            std::fs::write(&file, &bad).expect("writable");
            let ours = Check::default().run(&file).expect("readable").first_bad.expect("found");
            let found = second(std::slice::from_ref(&file), vec![key]).err().expect("found");
            assert_eq!(found.0, (ours.file, ours.offset), "{name}, byte {at}: {}", found.1);
        }
    }
}

/// So that it is read before it is believed.
#[test]
fn the_second_verifier_is_short() {
    let source = include_str!("../../examples/recorder-verify.rs");
    assert!(source.lines().count() <= 300, "{} lines", source.lines().count());
    let long: Vec<_> = source.lines().filter(|line| line.chars().count() > 120).collect();
    assert!(long.is_empty() && !source.contains("rustfmt::skip"), "{long:?}");
    let crates = source
        .lines()
        .filter(|line| line.starts_with("use "))
        .map(|line| line.trim_start_matches("use ").split(&[':', ';'][..]).next().expect("a name"));
    let allowed = ["std", "blake3", "crc32c", "ed25519_dalek"];
    assert_eq!(crates.filter(|name| !allowed.contains(name)).count(), 0);
}
