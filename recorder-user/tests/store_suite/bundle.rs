//! Bundles: one session's records, checked without the store.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use recorder_user::{
    model::{ConnectionClosed, Direction, ExchangeId, Record, SessionId, Timestamp},
    store::{
        BundleError, BundleManifest, BundleOf, Check, Need, Query, Reader, Store, StoreOptions,
        VerifyReport, export_bundle, signing,
    },
};

use crate::{
    support::*,
    verdict::{public_keys, second},
};

const OURS: &str = "what our session got";
const THEIRS: &str = "what another session got";

/// A store in which two sessions do the same by turns, and somebody unknown is refused.
struct Sessions {
    directory: tempfile::TempDir,
    ours: SessionId,
    theirs: SessionId,
}

async fn sessions() -> Sessions {
    let directory = tempfile::tempdir().expect("a directory");
    let options = StoreOptions { segment_bytes_max: 48 << 10, ..options(directory.path()) };
    let (store, _) = Store::open(options, clock()).expect("it opens");
    let (ours, theirs) = (SessionId::new(), SessionId::new());
    let recorder = store.recorder();
    let first = vec![gateway_started(store.gateway_id()), session_opened(theirs)];
    recorder.append_all(first, Need::Written).await.expect("a good disk");
    // A segment of its own before ours begins, and one after it ended.
    turn(&recorder, theirs, THEIRS, 4).await;
    recorder.append(session_opened(ours), Need::Written).await.expect("a good disk");
    for _ in 0..4 {
        turn(&recorder, theirs, THEIRS, 1).await;
        turn(&recorder, ours, OURS, 1).await;
    }
    let connection = |sessions: Vec<SessionId>| {
        Record::ConnectionClosed(Box::new(ConnectionClosed {
            time: Timestamp::from_micros(START),
            role: "upstream".into(),
            peer: "192.0.2.7:6443".into(),
            evidence: Default::default(),
            account: Default::default(),
            exchanges: 1,
            sessions,
            ends: Vec::new(),
        }))
    };
    let closed = vec![connection(vec![ours, theirs]), connection(vec![theirs])];
    recorder.append_all(closed, Need::Written).await.expect("a good disk");
    turn(&recorder, theirs, THEIRS, 4).await;
    store.close().await.expect("a good disk");
    Sessions { directory, ours, theirs }
}

/// Exchanges with long bodies.
async fn turn(
    recorder: &recorder_user::store::Recorder,
    session: SessionId,
    text: &str,
    exchanges: usize,
) {
    for i in 0..exchanges {
        let id = ExchangeId::new();
        // Ours come again, so that they build on each other.
        let mut body = noise(if text == OURS { text.as_bytes() } else { id.as_bytes() });
        body.extend_from_slice(format!("{text} {i}").as_bytes());
        let records = vec![
            exchange_opened(session, id, text),
            chunk(id, 0, &body),
            exchange_settled(session, id, text, &body),
        ];
        recorder.append_all(records, Need::Written).await.expect("a good disk");
    }
}

fn noise(seed: &[u8]) -> Vec<u8> {
    let mut noise = vec![0; 12 << 10];
    blake3::Hasher::new().update(seed).finalize_xof().fill(&mut noise);
    noise
}

impl Sessions {
    fn export(&self, to: &Path) -> Result<BundleManifest, BundleError> {
        let reader = Reader::open(self.directory.path()).expect("a store");
        let catalog = reader.catalog().expect("rows");
        let view = catalog.session(self.ours).expect("readable").expect("our session");
        let keys = signing::list(&keys(self.directory.path())).expect("good keys");
        let key = |key: &signing::KeyInfo| signing::read_public_key(&key.public_key_file);
        let of = BundleOf {
            session: self.ours,
            first: view.first,
            made: Timestamp::from_micros(START),
            by: "test 1".into(),
            keys: keys.iter().map(|info| key(info).expect("a good key")).collect(),
        };
        export_bundle(self.directory.path(), &of, to)
    }

    /// What both verifiers say of a bundle, with the store's key.
    fn verdict(&self, bundle: &Path) -> (VerifyReport, Option<(PathBuf, u64)>) {
        let keys = keys(self.directory.path());
        let trust = signing::trusted(&keys).expect("good keys");
        let report = Check { trust, ..Check::default() }.run(bundle).expect("readable");
        let ours = report.first_bad.as_ref().map(|bad| (bad.file.clone(), bad.offset));
        match second(&[bundle.to_owned()], public_keys(&keys)) {
            Ok(checked) => {
                let both = (report.records, report.pruned_records, report.absent_links);
                assert_eq!((checked.records, checked.stubs, checked.gaps), both);
                assert_eq!(ours, None, "{:?}", report.first_bad);
            }
            Err((place, why)) => assert_eq!(Some(place), ours, "{why}"),
        }
        (report, ours)
    }
}

#[tokio::test]
async fn a_bundle_verifies_and_says_what_is_withheld() {
    let sessions = sessions().await;
    let to = tempfile::tempdir().expect("a directory");
    let manifest = sessions.export(to.path()).expect("made");
    let (report, bad) = sessions.verdict(to.path());
    assert_eq!(bad, None);
    assert_eq!(report.bundle.as_ref(), Some(&manifest));
    assert_eq!(report.pruned_records, manifest.withheld);
    assert_eq!(report.records, manifest.records + manifest.withheld);
    assert!(manifest.withheld > 12 && report.signatures > 0, "{report:?}");
    let all = segments(sessions.directory.path()).len();
    assert!(manifest.segments.len() > 1 && manifest.segments.len() < all, "{all} segments");
    // Each of our bodies is whole, also where it builds on another.
    assert_eq!(report.bodies, 8);
    for file in segments(to.path()) {
        let metadata = fs::metadata(&file).expect("there");
        assert!(metadata.blocks() * 512 < metadata.len(), "withheld bytes take no room");
    }
    assert!(matches!(sessions.export(to.path()), Err(BundleError::Exists(_))));
}

#[tokio::test]
async fn a_bundle_holds_nothing_of_others() {
    let sessions = sessions().await;
    let to = tempfile::tempdir().expect("a directory");
    sessions.export(to.path()).expect("made");
    let theirs = sessions.theirs.to_string();
    let mut links = 0;
    for file in segments(to.path()) {
        let bytes = fs::read(file).expect("readable");
        let holds = |text: &[u8]| bytes.windows(text.len()).filter(|part| *part == text).count();
        assert_eq!(holds(THEIRS.as_bytes()), 0);
        links += holds(theirs.as_bytes());
    }
    // The account of the connection that both used names it, and says nothing more.
    assert_eq!(links, 1);
    let read: Vec<_> = Reader::open(to.path()).expect("a store").records().collect();
    for stored in read {
        match stored.expect("nothing is damaged").record {
            Record::SessionOpened(opened) => assert_eq!(opened.session, sessions.ours),
            Record::ExchangeOpened(opened) => assert_eq!(opened.session, Some(sessions.ours)),
            Record::Chunk(chunk) => {
                assert_eq!(chunk.direction, Direction::Response);
                assert!(chunk.data.windows(OURS.len()).any(|part| part == OURS.as_bytes()));
            }
            Record::ConnectionClosed(closed) => assert!(closed.sessions.contains(&sessions.ours)),
            _ => {}
        }
    }
}

#[tokio::test]
async fn the_rows_of_a_bundle_are_those_of_the_store() {
    let sessions = sessions().await;
    let to = tempfile::tempdir().expect("a directory");
    sessions.export(to.path()).expect("made");
    let rows = |directory: &Path| {
        let catalog = Reader::open(directory).expect("a store").catalog().expect("rows");
        assert!(catalog.damage().is_empty(), "{:?}", catalog.damage());
        let query = Query { session: Some(sessions.ours), ..Query::default() };
        let session = catalog.session(sessions.ours).expect("readable").expect("our session");
        (session, catalog.search(&query).expect("readable"))
    };
    let bundled = rows(to.path());
    assert_eq!(bundled, rows(sessions.directory.path()));
    let catalog = Reader::open(to.path()).expect("a store").catalog().expect("rows");
    assert_eq!(catalog.sessions().expect("readable").len(), 1);
    assert_eq!(catalog.search(&Query::default()).expect("readable").len(), bundled.1.len());
}

#[tokio::test]
async fn a_bundle_that_was_tampered_with_is_found() {
    let sessions = sessions().await;
    let to = tempfile::tempdir().expect("a directory");
    let bundle = to.path();
    sessions.export(bundle).expect("made");
    for file in segments(bundle) {
        let good = fs::read(&file).expect("readable");
        let flips = (0..200).chain((200..good.len()).step_by(211));
        for at in flips.chain([good.len() - 1]) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&file, &bad).expect("writable");
            let (_, found) = sessions.verdict(bundle);
            assert_eq!(found.expect("found").0, file, "byte {at}");
        }
        fs::write(&file, &good[..good.len() / 2]).expect("writable");
        assert!(sessions.verdict(bundle).1.is_some(), "cut");
        fs::write(&file, &good).expect("writable");
    }
    let manifest = bundle.join("bundle.json");
    let last = segments(bundle).pop().expect("segments");
    let kept = fs::read(&last).expect("readable");
    fs::remove_file(&last).expect("writable");
    assert_eq!(sessions.verdict(bundle).1, Some((manifest.clone(), 0)), "a segment is missing");
    fs::write(&last, kept).expect("writable");
    assert_eq!(sessions.verdict(bundle).1, None);

    // Without its list it is no bundle, and a store has no stubs.
    fs::remove_file(&manifest).expect("writable");
    assert!(sessions.verdict(bundle).1.is_some());
}
