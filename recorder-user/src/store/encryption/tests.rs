use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use super::*;
use crate::{
    model::{
        Chunk, Direction, ExchangeId, ExchangeOpened, LocalUser, Record, SessionChanged, SessionId,
        SessionState, Timestamp,
    },
    store::{
        DecodePayloadError, Need, ReadError, Reader, Store, StoreOptions, erase_session, signing,
        system_clock, verify,
    },
};

struct Place {
    directory: tempfile::TempDir,
    options: StoreOptions,
}

impl Place {
    fn new(source: impl FnOnce(&Path) -> KeySource) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut options = StoreOptions::new(directory.path().join("store"));
        options.sync_interval = Duration::from_millis(1);
        options.encryption = Some(source(directory.path()));
        Self { directory, options }
    }

    fn with_key_file() -> Self {
        Self::new(|directory| {
            let path = directory.join("operator.key");
            fs::write(&path, [3; KEY_BYTES]).expect("writable");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("ours");
            KeySource::KeyFile(path)
        })
    }

    async fn write(&self, records: Vec<Record>) {
        let (store, _) = Store::open(self.options.clone(), system_clock()).expect("it opens");
        for record in records {
            store.recorder().append(record, Need::Durable).await.expect("a good disk");
        }
        store.close().await.expect("a good disk");
    }

    fn read(&self) -> Vec<Result<Record, ReadError>> {
        let reader = Reader::open(&self.options.directory).expect("a store");
        let records = reader.records().map(|stored| stored.map(|stored| stored.record));
        let ours = |record: &Result<Record, ReadError>| !matches!(record, Ok(Record::Unknown { kind, .. }) if kind.0 >= 64);
        records.filter(ours).collect()
    }

    /// Everything that is on the disk, but the keys.
    fn stored(&self) -> Vec<u8> {
        let segments = self.options.directory.join("segments");
        let files = fs::read_dir(segments).expect("readable");
        files.flat_map(|file| fs::read(file.expect("readable").path()).expect("readable")).collect()
    }

    fn verifies(&self) {
        let trust = signing::trusted(&self.options.keys).expect("keys");
        let report = verify(&self.options.directory, trust).expect("readable");
        assert!(report.is_ok() && report.signatures > 0, "{report:?}");
    }
}

fn of(session: SessionId, exchange: ExchangeId) -> Vec<Record> {
    let chunk = |data: &str| {
        let (direction, at_us, offset) = (Direction::Response, 1, 0);
        Record::Chunk(Chunk { exchange, direction, at_us, offset, data: data.to_owned().into() })
    };
    vec![
        Record::ExchangeOpened(Box::new(ExchangeOpened {
            exchange,
            session: Some(session),
            peer: "a peer in clear".into(),
            ..ExchangeOpened::default()
        })),
        chunk("a body in clear"),
        chunk(&"a body in clear that is long ".repeat(100)),
    ]
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

fn is_erased(record: &Result<Record, ReadError>) -> bool {
    matches!(record, Err(ReadError::Payload { source: DecodePayloadError::Erased, .. }))
}

#[tokio::test]
async fn what_is_stored_is_encrypted_and_read_as_it_was() {
    let place = Place::with_key_file();
    let (records, more) =
        (of(SessionId::new(), ExchangeId::new()), of(SessionId::new(), ExchangeId::new()));
    place.write(records.clone()).await;
    place.write(more.clone()).await;
    assert!(!contains(&place.stored(), "in clear"));
    let read: Vec<_> = place.read().into_iter().map(|record| record.expect("good")).collect();
    assert_eq!(read, [records, more].concat());
    place.verifies();
}

#[tokio::test]
async fn one_session_is_erased_and_the_chain_stands() {
    let place = Place::with_key_file();
    let (gone, kept) = (SessionId::new(), SessionId::new());
    place.write([of(gone, ExchangeId::new()), of(kept, ExchangeId::new())].concat()).await;
    assert_eq!(erase(&place.options.keys, gone).expect("writable"), Erased::Now);
    assert_eq!(erase(&place.options.keys, gone).expect("writable"), Erased::Before);
    assert_eq!(erase(&place.options.keys, SessionId::new()).expect("writable"), Erased::NoKey);
    let read = place.read();
    assert!(read[..3].iter().all(is_erased), "{read:?}");
    assert!(read[3..].iter().all(Result::is_ok), "{read:?}");
    place.verifies();
    // It may go on, with a new key; what was erased stays so.
    let changed = Record::SessionChanged(SessionChanged {
        session: gone,
        time: Timestamp::EPOCH,
        state: SessionState::Open,
        ended: None,
        by: None,
        why: None,
        account: None,
    });
    place.write(vec![changed.clone()]).await;
    let read = place.read();
    assert!(read[..3].iter().all(is_erased), "{read:?}");
    assert_eq!(read.last().and_then(|record| record.as_ref().ok()), Some(&changed));
    place.verifies();
}

#[tokio::test]
async fn an_erasure_is_on_record_and_leaves_no_row() {
    let place = Place::with_key_file();
    let (gone, kept) = (ExchangeId::new(), ExchangeId::new());
    let session = SessionId::new();
    place.write([of(session, gone), of(SessionId::new(), kept)].concat()).await;
    let by = LocalUser { uid: 7, user: Some("auditor".into()), pid: None };
    let store = &place.options.directory;
    let erased = erase_session(store, session, by.clone()).await.expect("no gateway runs");
    assert_eq!(erased, Erased::Now);
    let catalog = Reader::open(store).expect("a store").catalog().expect("readable");
    assert!(catalog.damage().is_empty() && store.join("index/FORMAT").exists());
    assert!(catalog.exchange(gone).expect("readable").is_none());
    assert!(catalog.exchange(kept).expect("readable").is_some());
    let read = place.read();
    let told = read.iter().find_map(|record| match record {
        Ok(Record::RecordingRead(read)) => Some(read),
        _ => None,
    });
    let told = told.expect("who did it");
    assert_eq!(
        (&told.by, told.verb.as_str(), &told.what.sessions[..]),
        (&by, "erase", &[session][..])
    );
    place.verifies();
}

#[tokio::test]
async fn without_the_keys_the_chain_is_checked_and_nothing_is_read() {
    let place = Place::with_key_file();
    place.write(of(SessionId::new(), ExchangeId::new())).await;
    fs::remove_file(place.options.keys.join(DESCRIPTION)).expect("there");
    for record in place.read() {
        let locked = DecodePayloadError::Decryption.to_string();
        let Err(ReadError::Payload { source, .. }) = record else { panic!("read without a key") };
        assert_eq!(source.to_string(), locked);
    }
    place.verifies();
}

#[tokio::test]
async fn another_key_or_an_open_file_is_refused() {
    let place = Place::with_key_file();
    place.write(Vec::new()).await;
    let key = place.directory.path().join("operator.key");
    fs::remove_file(&key).expect("there");
    fs::write(&key, [4; KEY_BYTES]).expect("writable");
    let opened = || Vault::open(&place.options.keys).map(|_| ()).map_err(|error| error.to_string());
    assert!(opened().expect_err("open to all").contains("chmod 0400"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).expect("ours");
    assert!(opened().expect_err("another key").contains("not the one"));
}

#[tokio::test]
async fn a_command_wraps_the_key() {
    // What a key management service would do, in two words of shell.
    let place = Place::new(|directory| {
        let path = directory.join("kms");
        fs::write(
            &path,
            "#!/bin/sh\nif [ $1 = wrap ]; then echo d3JhcA==; cat > $0.key; else cat $0.key; fi\n",
        )
        .expect("writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("ours");
        KeySource::Command(vec![path.display().to_string()])
    });
    let records = of(SessionId::new(), ExchangeId::new());
    place.write(records.clone()).await;
    place.write(Vec::new()).await;
    let read: Vec<_> = place.read().into_iter().map(|record| record.expect("good")).collect();
    assert_eq!(read, records);
    for (script, says) in [("exit 3", "error"), ("echo '*'", "base64")] {
        let command = vec!["sh".into(), "-c".into(), script.into()];
        let error = KeySource::Command(command).wrap(&Key([0; KEY_BYTES])).expect_err(script);
        assert!(error.to_string().contains(says), "{error}");
    }
}
