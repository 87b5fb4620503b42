//! What the two verifiers say, which must be the same.

use std::path::{Path, PathBuf};

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
