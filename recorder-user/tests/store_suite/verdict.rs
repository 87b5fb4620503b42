//! What the two verifiers say, which must be the same.

use std::path::{Path, PathBuf};

use recorder_user::store::Check;

use crate::{
    recorder_verify,
    support::{keys, verify},
};

/// What both verifiers say with the store's own public keys: where the first bad place is.
///
/// The second one does not unpack payloads: what is wrong inside of one it tells later, by a signature, or not.
pub(crate) fn verdict(directory: &Path) -> Option<(PathBuf, u64)> {
    let ours = verify(directory).expect("readable");
    let second = recorder_verify::verify(&[directory.to_owned()], &public_keys(&keys(directory)));
    let Some(bad) = &ours.first_bad else {
        let second = second.unwrap_or_else(|bad| panic!("the second: {} {}", bad.offset, bad.why));
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
        Err(second) if is_inside => assert!((second.file, second.offset) >= place, "{}", bad.why),
        Ok(_) if is_inside => {}
        Err(second) => {
            assert_eq!((second.file, second.offset), place, "{}: {}", bad.why, second.why);
        }
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

/// As the second verifier reads them.
pub(crate) fn public_keys(keys: &Path) -> Vec<ed25519_dalek::VerifyingKey> {
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
        let second = recorder_verify::verify(std::slice::from_ref(&file), &[key]);
        let second = second.unwrap_or_else(|bad| panic!("{name}: {} {}", bad.offset, bad.why));
        assert_eq!((second.signatures, second.segments), (signatures, 1), "{name}");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            std::fs::write(&file, &bad).expect("writable");
            let ours = Check::default().run(&file).expect("readable").first_bad.expect("found");
            let second =
                recorder_verify::verify(std::slice::from_ref(&file), &[key]).err().expect("found");
            assert_eq!((second.file, second.offset), (ours.file, ours.offset), "{name}, byte {at}");
        }
    }
}
