//! Whole files: cut, taken away, exchanged, older than they were.

use std::fs;

use recorder_user::store::{HeadFound, Reader};

use super::{
    SEGMENT_BYTES, attacker::Segment, copy, copy_all, found, signed_store, with_head, write,
};
use crate::{support::*, verdict::verdict};

#[tokio::test]
async fn a_file_that_is_cut_anywhere_is_found() {
    let source = signed_store(6).await;
    let work = copy(source.path());
    for file in segments(work.path()) {
        let good = fs::read(&file).expect("readable");
        let (_, begins) = Segment::read(&file).forge();
        let within = begins.windows(2).flat_map(|pair| [pair[0] + 1, pair[0] + 12, pair[1] - 1]);
        for cut in begins.iter().copied().chain(within).chain([0, 7, begins[0] - 1]) {
            if cut == good.len() {
                continue;
            }
            fs::write(&file, &good[..cut]).expect("writable");
            let begin = begins.iter().rfind(|begin| **begin <= cut).copied().unwrap_or(0);
            let expected = Some((file.clone(), begin as u64));
            assert_eq!(found(work.path()), expected, "cut at {cut} of {}", good.len());
        }
        fs::write(&file, good).expect("writable");
    }
    assert_eq!(found(work.path()), None);
}

#[tokio::test]
async fn a_segment_that_is_taken_away_is_found() {
    let source = signed_store(6).await;
    let count = segments(source.path()).len();
    assert!(count >= 3, "{count}");
    for i in 0..count {
        let work = copy(source.path());
        let files = segments(work.path());
        fs::remove_file(&files[i]).expect("writable");
        let expected = match files.get(i + 1) {
            Some(next) => (next.clone(), 0),
            None => (files[i - 1].clone(), fs::metadata(&files[i - 1]).expect("there").len()),
        };
        assert_eq!(found(work.path()), Some(expected), "segment {i} of {count}");
    }
}

#[tokio::test]
async fn a_segment_of_another_store_is_found() {
    let source = signed_store(6).await;
    let other = signed_store(6).await;
    let count = segments(source.path()).len().min(segments(other.path()).len());
    for i in 0..count {
        let foreign = &segments(other.path())[i];
        // Under the name of the one that it replaces, and under its own.
        let work = copy(source.path());
        let file = segments(work.path())[i].clone();
        fs::copy(foreign, &file).expect("writable");
        assert_eq!(found(work.path()), Some((file.clone(), 0)), "instead of segment {i}");

        let work = copy(source.path());
        let beside = segments(work.path())[i].with_file_name(foreign.file_name().expect("a name"));
        fs::copy(foreign, &beside).expect("writable");
        let (_, offset) = found(work.path()).expect("another gateway's segment");
        assert_eq!(offset, 0, "beside segment {i}");
    }
}

#[tokio::test]
async fn an_older_copy_is_found() {
    let source = signed_store(3).await;
    let older = copy(source.path());
    let before = segments(older.path());
    let end = (before[before.len() - 1].clone(), 0);
    write(source.path(), SEGMENT_BYTES, 3).await;
    assert_eq!(with_head(source.path()).head, HeadFound::Reached);

    // The whole store, with the head of the newer one: its own signatures are as good.
    let rolled = copy(older.path());
    let head = |from: &std::path::Path, to: &std::path::Path| {
        fs::copy(from.join("keys/head"), to.join("keys/head")).expect("writable")
    };
    head(source.path(), rolled.path());
    assert_eq!(verdict(rolled.path()), None);
    let (file, offset) = found(rolled.path()).expect("it is older");
    assert_eq!(file.file_name(), end.0.file_name());
    assert_eq!(offset, fs::metadata(&file).expect("there").len());

    // The start of a gateway on it keeps the head of what is lost.
    let lost = fs::read(rolled.path().join("keys/head")).expect("a head");
    write(rolled.path(), SEGMENT_BYTES, 1).await;
    assert_eq!(fs::read(rolled.path().join("keys/head.lost")).expect("kept"), lost);
    assert_eq!(found(rolled.path()), None, "it has a head of its own now");
    fs::write(rolled.path().join("keys/head"), lost).expect("writable");
    assert!(found(rolled.path()).is_some(), "it went on in another way");

    // A fork: two stores that were one, with the newer half of the other.
    let fork = copy(older.path());
    write(fork.path(), SEGMENT_BYTES, 3).await;
    let spliced = copy(source.path());
    let (ours, theirs) = (segments(spliced.path()), segments(fork.path()));
    let last = theirs.last().expect("segments");
    let ours_last = ours.last().expect("segments");
    fs::remove_file(ours_last).expect("writable");
    let put_in = ours_last.with_file_name(last.file_name().expect("a name"));
    fs::copy(last, &put_in).expect("writable");
    assert_eq!(found(spliced.path()), Some((put_in, 0)), "the end of a fork");
    let forked = copy(fork.path());
    head(source.path(), forked.path());
    assert_eq!(verdict(forked.path()), None);
    assert!(found(forked.path()).is_some(), "the whole fork");
}

#[tokio::test]
async fn a_file_as_it_was_earlier_is_found() {
    let source = signed_store(6).await;
    for (i, path) in segments(source.path()).iter().enumerate() {
        let work = copy(source.path());
        let file = segments(work.path())[i].clone();
        let good = Segment::read(path);
        // As it was after each signature but the last.
        for count in 1..good.pieces.len() {
            if !good.pieces[count - 1].is_statement() {
                continue;
            }
            let pieces = good.pieces[..count].to_vec();
            let (bytes, _) = Segment { pieces, ..good.clone() }.forge();
            let end = bytes.len() as u64;
            fs::write(&file, bytes).expect("writable");
            assert_eq!(found(work.path()), Some((file.clone(), end)), "segment {i}, {count}");
        }
    }
}

#[tokio::test]
async fn a_head_that_cannot_be_used_says_nothing() {
    let source = signed_store(2).await;
    let work = copy(source.path());
    let head = work.path().join("keys/head");
    let text = fs::read_to_string(&head).expect("a head");
    assert_eq!(with_head(work.path()).head, HeadFound::Reached);
    // Somebody who has no key says that the store came further.
    let at = text.find("\"bytes\":").expect("bytes") + 8;
    let mut forged = text.clone();
    forged.insert(at, '9');
    fs::write(&head, forged).expect("writable");
    let report = with_head(work.path());
    assert!(report.is_ok() && matches!(report.head, HeadFound::Unusable(_)), "{:?}", report.head);
    // Or that it came so far in another way.
    let at = text.find("\"hash\":\"").expect("a hash") + 8;
    let mut forged = text;
    forged.replace_range(at..at + 4, "0000");
    fs::write(&head, forged).expect("writable");
    let report = with_head(work.path());
    assert!(report.is_ok() && matches!(report.head, HeadFound::Unusable(_)), "{:?}", report.head);
}

#[tokio::test]
async fn the_head_follows_what_is_durable() {
    let source = tempfile::tempdir().expect("a directory");
    write(source.path(), SEGMENT_BYTES, 3).await;
    let first = fs::read(source.path().join("keys/head")).expect("a head");
    assert_eq!(with_head(source.path()).head, HeadFound::Reached);
    write(source.path(), SEGMENT_BYTES, 1).await;
    assert_ne!(fs::read(source.path().join("keys/head")).expect("a head"), first);
    let report = with_head(source.path());
    assert_eq!((report.head, report.unsigned_records), (HeadFound::Reached, 0));
    // An older head is as true.
    fs::write(source.path().join("keys/head"), first).expect("writable");
    assert_eq!(with_head(source.path()).head, HeadFound::Reached);
    let moved = tempfile::tempdir().expect("a directory");
    copy_all(source.path(), moved.path());
    assert!(Reader::open(moved.path()).is_ok());
}
