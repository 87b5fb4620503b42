use std::{
    fs,
    path::{Path, PathBuf},
};

use recorder_user::{
    model::{ExchangeId, Record, SessionId},
    store::{Need, Reader, Store, StoreOptions},
};

use crate::{support::*, verdict::verdict};

/// A closed store of several small segments.
async fn closed(directory: &Path, segment_bytes_max: u64, exchanges: usize) {
    let options = StoreOptions { segment_bytes_max, ..options(directory) };
    let (store, _) = Store::open(options, clock()).expect("it opens");
    let recorder = store.recorder();
    let session = SessionId::new();
    recorder.append(session_opened(session), Need::Written).await.expect("a good disk");
    for i in 0..exchanges {
        let records = exchange(session, ExchangeId::new(), &format!("map-{i}"));
        recorder.append_all(records, Need::Written).await.expect("a good disk");
    }
    store.close().await.expect("a good disk");
}

/// A copy of the segments alone, to damage.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a directory");
    fs::create_dir(to.path().join("segments")).expect("writable");
    for path in segments(from) {
        let name = path.file_name().expect("a file");
        fs::copy(&path, to.path().join("segments").join(name)).expect("writable");
    }
    to
}

/// The offsets at which records begin, and the end of the last.
fn boundaries(directory: &Path, segment: usize) -> Vec<usize> {
    let reader = Reader::open(directory).expect("a store");
    let info = &reader.segments().expect("good headers")[segment];
    let positions = reader.records().map(|stored| stored.expect("good").position);
    let of_segment = positions.filter(|position| position.segment == info.segment);
    let mut offsets: Vec<_> =
        of_segment.map(|position| usize::try_from(position.offset).expect("small")).collect();
    offsets.push(usize::try_from(info.bytes).expect("small"));
    offsets
}

fn first_bad(directory: &Path) -> Option<(PathBuf, u64)> {
    verdict(directory)
}

#[tokio::test]
async fn every_flipped_byte_is_found_where_it_is() {
    let source = tempfile::tempdir().expect("a directory");
    closed(source.path(), 2 << 10, 3).await;
    let copy = copy(source.path());
    assert_eq!(first_bad(copy.path()), None);
    let files = segments(copy.path());
    assert!(files.len() > 1);
    for (i, file) in files.iter().enumerate() {
        let good = fs::read(file).expect("readable");
        let boundaries = boundaries(source.path(), i);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(file, &bad).expect("writable");
            let begin = boundaries.iter().rfind(|begin| **begin <= at).copied().unwrap_or(0);
            let expected = Some((file.clone(), begin as u64));
            assert_eq!(first_bad(copy.path()), expected, "byte {at} of segment {i}");
        }
        fs::write(file, &good).expect("writable");
    }
    assert_eq!(first_bad(copy.path()), None);
}

#[tokio::test]
async fn what_is_dropped_moved_doubled_or_put_in_is_found() {
    let source = tempfile::tempdir().expect("a directory");
    closed(source.path(), 64 << 10, 4).await;
    let foreign = tempfile::tempdir().expect("a directory");
    closed(foreign.path(), 64 << 10, 4).await;
    let b = boundaries(source.path(), 0);
    let good = fs::read(&segments(source.path())[0]).expect("readable");
    let other = fs::read(&segments(foreign.path())[0]).expect("readable");
    let c = boundaries(foreign.path(), 0);
    let record = |i: usize| &good[b[i]..b[i + 1]];
    let cases: [(&str, Vec<u8>, usize); 6] = [
        ("dropped", [&good[..b[2]], &good[b[3]..]].concat(), b[2]),
        ("moved", [&good[..b[2]], record(3), record(2), &good[b[4]..]].concat(), b[2]),
        ("doubled", [&good[..b[3]], record(2), &good[b[3]..]].concat(), b[3]),
        ("put in", [&good[..b[2]], &other[c[2]..c[3]], &good[b[2]..]].concat(), b[2]),
        ("after the seal", [&good[..], record(1)].concat(), good.len()),
        ("cut within", good[..good.len() - 1].to_vec(), b[b.len() - 2]),
    ];
    for (what, bytes, offset) in cases {
        let copy = copy(source.path());
        let file = segments(copy.path()).remove(0);
        fs::write(&file, bytes).expect("writable");
        assert_eq!(first_bad(copy.path()), Some((file, offset as u64)), "{what}");
    }
}

#[tokio::test]
async fn a_missing_cut_or_foreign_segment_is_found() {
    let source = tempfile::tempdir().expect("a directory");
    closed(source.path(), 2 << 10, 6).await;
    let files = segments(source.path());
    assert!(files.len() >= 4, "{}", files.len());

    let gone = copy(source.path());
    let files = segments(gone.path());
    fs::remove_file(&files[1]).expect("writable");
    assert_eq!(first_bad(gone.path()), Some((files[2].clone(), 0)), "the second is missing");

    let gone = copy(source.path());
    let files = segments(gone.path());
    fs::remove_file(&files[0]).expect("writable");
    assert_eq!(first_bad(gone.path()), Some((files[1].clone(), 0)), "the first is missing");

    // Cut at a record's end: every record that is left is good, only the successor knows.
    let cut = copy(source.path());
    let files = segments(cut.path());
    let seal = boundaries(source.path(), 1);
    let seal = seal[seal.len() - 2];
    let bytes = fs::read(&files[1]).expect("readable");
    fs::write(&files[1], &bytes[..seal]).expect("writable");
    assert_eq!(first_bad(cut.path()), Some((files[1].clone(), seal as u64)), "the seal is missing");

    let renamed = copy(source.path());
    let files = segments(renamed.path());
    fs::rename(&files[2], files[0].with_file_name(format!("{}.seg", "f".repeat(32)))).expect("ok");
    assert!(first_bad(renamed.path()).is_some(), "a segment under another name");

    let foreign = tempfile::tempdir().expect("a directory");
    closed(foreign.path(), 2 << 10, 3).await;
    let spliced = copy(source.path());
    for path in segments(foreign.path()) {
        let name = path.file_name().expect("a file");
        fs::copy(&path, spliced.path().join("segments").join(name)).expect("writable");
    }
    let (file, offset) = first_bad(spliced.path()).expect("another gateway's segment");
    assert_eq!(offset, 0);
    assert_eq!(file.file_name(), segments(foreign.path())[0].file_name());
}

#[tokio::test]
async fn a_body_without_one_of_its_chunks_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let (session, id) = (SessionId::new(), ExchangeId::new());
    let records = vec![
        session_opened(session),
        exchange_opened(session, id, "a"),
        chunk(id, 0, b"half"),
        exchange_settled(session, id, "a", b"half and half"),
    ];
    store.recorder().append_all(records, Need::Durable).await.expect("a good disk");
    store.close().await.expect("a good disk");
    let report = verify(directory.path()).expect("readable");
    let bad = report.first_bad.expect("the outcome speaks of more bytes than there are");
    assert!(bad.why.contains(&id.to_string()), "{}", bad.why);
}

/// Cuts a segment at every byte, and starts a gateway over it.
#[tokio::test]
async fn a_tail_torn_anywhere_is_cut_kept_and_sealed() {
    let source = tempfile::tempdir().expect("a directory");
    {
        // Dropped without close: unsealed.
        let (store, _) = open(source.path());
        let id = ExchangeId::new();
        let records = vec![
            session_opened(SessionId::new()),
            chunk(id, 0, b"first"),
            chunk(id, 5, &[b'x'; 600]),
            chunk(id, 605, b"last"),
        ];
        store.recorder().append_all(records, Need::Durable).await.expect("a good disk");
    }
    let segment = Torn {
        name: segments(source.path())[0].file_name().expect("a file").to_owned(),
        good: fs::read(&segments(source.path())[0]).expect("readable"),
        boundaries: boundaries(source.path(), 0),
        all: records(source.path()),
    };
    // Each cut costs a dozen flushes, which run well beside each other.
    let threads = 8;
    std::thread::scope(|scope| {
        for first in 0..threads {
            let segment = &segment;
            let cuts = (segment.boundaries[0]..=segment.good.len()).skip(first).step_by(threads);
            scope.spawn(move || cuts.for_each(|cut| segment.check(cut)));
        }
    });
}

struct Torn {
    name: std::ffi::OsString,
    good: Vec<u8>,
    boundaries: Vec<usize>,
    all: Vec<Record>,
}

impl Torn {
    fn check(&self, cut: usize) {
        let Self { name, good, boundaries, all } = self;
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        fs::create_dir(directory.join("segments")).expect("writable");
        fs::write(directory.join("segments").join(name), &good[..cut]).expect("writable");
        // Hundreds of databases would take a minute: with this in their way there is none.
        fs::write(directory.join("index"), b"").expect("writable");
        let whole = boundaries.iter().filter(|end| **end <= cut).count() - 1;
        let torn = &good[boundaries[whole]..cut];
        assert_eq!(first_bad(directory).is_some(), !torn.is_empty(), "cut at {cut}");

        let (store, recovered) = open(directory);
        assert!(!recovered.clean, "cut at {cut}");
        assert_eq!(recovered.torn_bytes, torn.len() as u64, "cut at {cut}");
        assert_eq!(recovered.torn.len(), usize::from(!torn.is_empty()), "cut at {cut}");
        for tail in &recovered.torn {
            assert_eq!(fs::read(&tail.kept).expect("kept"), torn, "cut at {cut}");
        }
        let read = records(directory);
        assert_eq!(read[..whole], all[..whole], "cut at {cut}");
        assert!(matches!(read[whole], Record::Unknown { .. }), "the seal, cut at {cut}");
        let lost = usize::from(whole > 0);
        assert_eq!(recovered.lost_sessions.len(), lost, "cut at {cut}");
        drop(store);
        assert_eq!(first_bad(directory), None, "cut at {cut}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_even_a_header_is_set_aside() {
    let directory = tempfile::tempdir().expect("a directory");
    closed(directory.path(), 64 << 10, 1).await;
    let path = directory.path().join("segments").join(format!("{}.seg", "e".repeat(32)));
    fs::write(&path, b"DECK").expect("writable");
    assert_eq!(first_bad(directory.path()), Some((path.clone(), 0)));
    let (store, recovered) = open(directory.path());
    assert_eq!((recovered.clean, recovered.torn_bytes), (false, 4));
    assert!(!path.exists() && recovered.torn[0].kept.exists());
    store.close().await.expect("a good disk");
    assert_eq!(first_bad(directory.path()), None);
}
