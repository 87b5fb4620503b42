//! An attacker without the key who makes checksums and chain anew.

use std::{fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ed25519_dalek::SigningKey;

use super::{
    attacker::{KEY, Piece, SEAL, Segment, hex, signed},
    copy, found, signed_store,
};
use crate::{support::*, verdict::verdict};

/// What is done to the record at an index.
type Change = fn(&mut Segment, usize, &Piece);

const CHANGES: [(&str, Change); 6] = [
    ("changed", |segment, at, _| {
        let payload = &mut segment.pieces[at].payload;
        let last = payload.len() - 1;
        payload[last] ^= 1;
    }),
    ("dropped", |segment, at, _| drop(segment.pieces.remove(at))),
    ("doubled", |segment, at, _| segment.pieces.insert(at, segment.pieces[at].clone())),
    ("moved", |segment, at, _| {
        let next = (at + 1).min(segment.pieces.len() - 1);
        segment.pieces.swap(at, next);
    }),
    ("put in", |segment, at, foreign| segment.pieces.insert(at, foreign.clone())),
    ("exchanged", |segment, at, foreign| segment.pieces[at] = foreign.clone()),
];

/// What the attacker does about the signatures that follow.
const COVERS: [&str; 3] = ["left", "stripped", "made with another key"];

#[tokio::test]
async fn whatever_is_done_to_a_record_the_next_signature_tells() {
    let source = signed_store(6).await;
    let elsewhere = signed_store(1).await;
    let foreign = Segment::read(&segments(elsewhere.path())[0]).pieces[0].clone();
    let work = copy(source.path());
    let files = segments(work.path());
    assert!(files.len() >= 3, "{}", files.len());
    let thief = SigningKey::from_bytes(&[66; 32]);
    for file in &files {
        let good = Segment::read(file);
        for at in 0..good.pieces.len() {
            for (what, change) in CHANGES {
                for cover in COVERS {
                    let mut bad = good.clone();
                    change(&mut bad, at, &foreign);
                    match cover {
                        "stripped" => bad.strip_signatures(at),
                        "left" => {}
                        _ => bad.sign_anew(at, &thief),
                    }
                    if bad.pieces == good.pieces {
                        continue;
                    }
                    let same = |(good, bad): &(&Piece, &Piece)| good == bad;
                    let from = good.pieces.iter().zip(&bad.pieces).take_while(same).count();
                    check(work.path(), file, (&bad, from), &format!("{what} {at}, {cover}"));
                }
            }
        }
        fs::write(file, good.forge().0).expect("writable");
    }
    assert_eq!(found(work.path()), None);
}

/// The change is found not before it is and not after the next signature.
fn check(store: &Path, file: &Path, (bad, at): (&Segment, usize), what: &str) {
    let (bytes, begins) = bad.forge();
    fs::write(file, bytes).expect("writable");
    let (told, offset) = found(store).unwrap_or_else(|| panic!("{what} was not found"));
    // A seal that was moved up has something after it.
    assert_eq!(told, *file, "{what}");
    let first = begins[at.min(begins.len() - 1)] as u64;
    assert!((first..=bad.told_at(at)).contains(&offset), "{what}: at {offset}, begins {first}");
}

#[tokio::test]
async fn a_record_that_is_hidden_as_if_deleted_is_found() {
    let source = signed_store(3).await;
    let work = copy(source.path());
    for file in segments(work.path()) {
        let good = Segment::read(&file);
        for at in 0..good.pieces.len() {
            let mut bad = good.clone();
            bad.pieces[at].stub();
            let (bytes, begins) = bad.forge();
            fs::write(&file, bytes).expect("writable");
            // The chain holds, and so does every signature.
            let expected = Some((file.clone(), begins[at] as u64));
            assert_eq!(verdict(work.path()), expected, "stub of {at}");
        }
        fs::write(&file, good.forge().0).expect("writable");
    }
}

#[tokio::test]
async fn an_endorsement_that_the_key_did_not_sign_is_found() {
    let source = signed_store(2).await;
    let work = copy(source.path());
    let file = segments(work.path()).pop().expect("segments");
    let good = Segment::read(&file);
    let thief = SigningKey::from_bytes(&[66; 32]);
    let public = BASE64_STANDARD.encode(thief.verifying_key().as_bytes());
    let at = good.header.find("\"key\":\"").expect("a key") + 7;
    let trusted = &good.header[at..at + 16];
    let own = hex(&blake3::hash(thief.verifying_key().as_bytes()).as_bytes()[..8]);
    let endorsed = |by: &str| {
        let json = format!(r#"{{"publicKey":"{public}","by":"{by}"}}"#);
        let mut bad = good.clone();
        bad.pieces.insert(0, Piece::new(KEY, signed(&thief, "decklog key 2\n", &json)));
        bad.sign_anew(0, &thief);
        bad
    };
    let forged = endorsed(trusted);
    let (bytes, begins) = forged.forge();
    fs::write(&file, bytes).expect("writable");
    assert_eq!(verdict(work.path()), Some((file.clone(), begins[0] as u64)), "in another's name");

    // Its own word says nothing: what the key signed is not trusted.
    let forged = endorsed(&own);
    fs::write(&file, forged.forge().0).expect("writable");
    assert_eq!(verdict(work.path()), Some((file, forged.told_at(0))), "in its own name");
}

#[tokio::test]
async fn a_segment_that_is_passed_off_as_unsigned_is_found() {
    let source = signed_store(6).await;
    let count = segments(source.path()).len();
    for i in 0..count {
        let work = copy(source.path());
        let files = segments(work.path());
        let mut bad = Segment::read(&files[i]);
        bad.downgrade();
        let (bytes, _) = bad.forge();
        let end = bytes.len() as u64;
        fs::write(&files[i], bytes).expect("writable");
        // Of the first the next one knows how it ended.
        let place = if i == 0 { end } else { 0 };
        assert_eq!(verdict(work.path()), Some((files[i].clone(), place)), "segment {i}");
    }

    // All of them, with links to match: nothing in it speaks of a signature, and only the head knows.
    let work = copy(source.path());
    let mut last: Option<String> = None;
    for file in segments(work.path()) {
        let mut bad = Segment::read(&file);
        bad.downgrade();
        if let Some(hash) = &last {
            let at = bad.header.find("\"hash\":\"").expect("a link") + 8;
            bad.header.replace_range(at..at + 64, hash);
        }
        let (bytes, _) = bad.forge();
        last = Some(hex(&bytes[bytes.len() - 32..]));
        fs::write(&file, bytes).expect("writable");
    }
    let report = verify(work.path()).expect("readable");
    assert_eq!((report.signatures, report.unsigned_records), (0, report.records));
    assert!(found(work.path()).is_some());
}

#[tokio::test]
async fn a_seal_says_that_nothing_follows() {
    let source = signed_store(2).await;
    let work = copy(source.path());
    let file = segments(work.path()).remove(0);
    let mut bad = Segment::read(&file);
    assert_eq!(bad.pieces.last().map(|piece| piece.kind), Some(SEAL));
    let at = bad.pieces.len();
    bad.pieces.push(bad.pieces[0].clone());
    let (bytes, begins) = bad.forge();
    fs::write(&file, bytes).expect("writable");
    assert_eq!(verdict(work.path()), Some((file, begins[at] as u64)));
}
