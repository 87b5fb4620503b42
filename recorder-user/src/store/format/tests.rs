use std::{collections::HashMap, fs, io::Write as _, path::PathBuf, sync::Arc};

use bytes::Bytes;

use super::{
    compress::{COMPRESS_BYTES_MIN, COMPRESS_CHUNK_BYTES_MIN},
    *,
};
use crate::{
    model::{
        BootId, Chunk, Direction, ExchangeId, ExchangeOpened, GatewayId, GatewayStopped, Record,
        RequestHead, SegmentId, SessionChanged, SessionId, SessionState, Timestamp,
    },
    store::{
        scan::Scan,
        signing::{self, SigningKey, Trust},
    },
};

fn key() -> Arc<SigningKey> {
    SigningKey::from_seed([7; 32])
}

fn header(previous: Option<Previous>) -> Header {
    Header {
        segment: SegmentId::from_bytes([0x51; 16]),
        gateway: GatewayId::from_bytes([0x6a; 16]),
        boot: BootId::from_bytes([0xb0; 16]),
        key: Some(key().id()),
        created: Timestamp::from_micros(1_790_000_000_000_000),
        previous,
        encryption: None,
    }
}

const EXCHANGES: [ExchangeId; 2] =
    [ExchangeId::from_bytes([0xec; 16]), ExchangeId::from_bytes([0xed; 16])];

fn chunk(exchange: ExchangeId, offset: u64, data: Vec<u8>) -> Record {
    let (direction, at_us) = (Direction::Response, 1500);
    Record::Chunk(Chunk { exchange, direction, at_us, offset, data: data.into() })
}

fn opened(exchange: ExchangeId, session: u8) -> Record {
    Record::ExchangeOpened(Box::new(ExchangeOpened {
        exchange,
        session: Some(SessionId::from_bytes([session; 16])),
        head: Some(RequestHead { target: "/api/v1/pods".into(), ..RequestHead::default() }),
        ..ExchangeOpened::default()
    }))
}

/// One of each shape: small JSON, binary, compressed binary, empty payload, unknown kind.
fn records_of_version_1() -> Vec<Record> {
    let time = Timestamp::from_micros(1_790_000_000_000_001);
    vec![
        Record::SessionChanged(SessionChanged {
            session: SessionId::from_bytes([0x5e; 16]),
            time,
            state: SessionState::Open,
            ended: None,
            by: None,
            why: None,
            account: None,
        }),
        chunk(EXCHANGES[0], 0, b"\0\x01binary\xff".to_vec()),
        chunk(EXCHANGES[0], 9, b"compressible ".repeat(60)),
        Record::Unknown { kind: Kind(999), payload: Bytes::new() },
        Record::Unknown { kind: Kind(1000), payload: Bytes::from_static(b"from a later version") },
        Record::GatewayStopped(GatewayStopped { gateway: GatewayId::from_bytes([0x6a; 16]), time }),
    ]
}

/// Words that repeat, with numbers that do not.
fn text(bytes: usize) -> Vec<u8> {
    (0..bytes).flat_map(|n| format!("pod-{n} is fine; ").into_bytes()).take(bytes).collect()
}

/// A body, the same again, and nearly the same.
fn records() -> Vec<Record> {
    let body =
        |change: u32| (0..200 + change).flat_map(|n| format!("pod-{n} ").into_bytes()).collect();
    let mut records = records_of_version_1();
    records.extend([opened(EXCHANGES[0], 1), chunk(EXCHANGES[0], 0, body(0))]);
    records.extend([opened(EXCHANGES[1], 1), chunk(EXCHANGES[1], 0, body(0))]);
    records.push(chunk(EXCHANGES[1], 0, body(1)));
    records
}

fn segment() -> Vec<u8> {
    let previous =
        Previous { segment: SegmentId::from_bytes([0x50; 16]), hash: ChainHash([0x11; 32]) };
    let mut bytes = Vec::new();
    let mut encoder = Encoder::begin(&header(Some(previous)), key(), None, &mut bytes);
    for record in records() {
        let offset = encoder.record(&record, &mut bytes).expect("small");
        assert!(offset < bytes.len() as u64);
    }
    let time = Timestamp::from_micros(1_790_000_000_000_002);
    encoder.checkpoint(time, &mut bytes);
    encoder.seal(time, SealedBy::Close, 0, &mut bytes);
    assert_eq!(encoder.mark().offset, bytes.len() as u64);
    assert_eq!(encoder.mark().records, records().len() as u64 + 2);
    bytes
}

fn golden(version: u16) -> PathBuf {
    let name = format!("src/store/golden/segment-v{version}.seg");
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The format is a contract: these bytes never change. If a new zstd compresses otherwise, keep this file
/// for reading, and add another one.
#[test]
fn the_golden_segment_is_written_byte_for_byte() {
    if std::env::var_os("DECKLOG_WRITE_GOLDEN").is_some() {
        fs::write(golden(VERSION), segment()).expect("writable");
    }
    let golden = fs::read(golden(VERSION)).expect("the golden file is in the repository");
    assert!(golden == segment(), "the format has changed");
}

#[test]
fn the_golden_segments_are_read() {
    for version in VERSIONS_READ {
        let (mut scan, read) = Scan::open(&golden(version)).expect("a good header");
        assert_eq!(read.previous.map(|previous| previous.hash), Some(ChainHash([0x11; 32])));
        assert_eq!(read.key, (version > 1).then(|| key().id()));
        assert_eq!(Header { previous: None, key: Some(key().id()), ..read }, header(None));
        let written = if version == 1 { records_of_version_1() } else { records() };
        for record in &written {
            let raw = scan.next().expect("a good record").expect("not the end");
            assert_eq!(&raw.decode().expect("a good payload"), record);
        }
        let mut before = written.len() as u64;
        if version > 1 {
            let checkpoint = scan.next().expect("a good record").expect("not the end");
            let payload = checkpoint.payload().expect("good");
            let signed = Signed::<Checkpoint>::read(&payload).expect("a checkpoint");
            assert_eq!(signed.statement.records, before);
            let public = key();
            let public = public.public();
            assert!(public.verifies(signing::CHECKPOINT, &signed.json, &signed.signature));
            assert!(!public.verifies(signing::SEAL, &signed.json, &signed.signature));
            before += 1;
        }
        let seal = scan.next().expect("a good record").expect("not the end");
        let seal = read_seal(version, &seal.payload().expect("good")).expect("a seal").seal;
        assert_eq!((seal.by, seal.records, seal.torn_bytes), (SealedBy::Close, before, 0));
        assert!(scan.is_sealed());
        assert!(scan.next().expect("the end").is_none());
    }
}

/// What stands before `offset` in a segment, for payloads that build on it.
#[derive(Default)]
struct Earlier(HashMap<u64, (Kind, u16, Bytes)>);

impl Stored for Earlier {
    fn record_at(&self, offset: u64) -> Option<(Kind, u16, Bytes)> {
        self.0.get(&offset).cloned()
    }

    fn decrypt(
        &self,
        _record: (u64, Kind, u16),
        _payload: &[u8],
    ) -> Result<Bytes, DecodePayloadError> {
        Err(DecodePayloadError::Decryption)
    }
}

/// Encodes records; gives flags and stored length of each, after having read each as it was.
fn stored(records: &[Record]) -> Vec<(u16, usize)> {
    let mut out = Vec::new();
    let mut encoder = Encoder::begin(&header(None), key(), None, &mut out);
    let mut earlier = Earlier::default();
    let stored = records.iter().map(|record| {
        let begin = out.len();
        let offset = encoder.record(record, &mut out).expect("small");
        let head = out[begin..].first_chunk().expect("a whole head");
        let head = RecordHead::decode(head).expect("within the bound");
        let payload =
            Bytes::copy_from_slice(&out[begin + RECORD_HEAD_BYTES..]).slice(..head.payload_bytes);
        earlier.0.insert(offset, (head.kind, head.flags, payload.clone()));
        let read = decode(&earlier, (offset, head.kind, head.flags), payload);
        assert_eq!(&read.expect("intact"), record);
        (head.flags, head.payload_bytes)
    });
    stored.collect()
}

const AGAIN: u16 = flag::BASE;
const NEARLY: u16 = flag::BASE | flag::ZSTD;

#[test]
fn what_comes_again_is_told_by_what_came_before() {
    let list =
        |pods: u32| (0..pods).flat_map(|n| format!("pod-{n} is fine; ").into_bytes()).collect();
    let [first, second] = EXCHANGES;
    let stored = stored(&[
        opened(first, 1),
        chunk(first, 0, list(500)),
        opened(second, 1),
        chunk(second, 0, list(500)),
        chunk(second, 0, list(501)),
        // Too different: it is whole, and what follows is told by it.
        chunk(second, 0, vec![b'x'; 9000]),
        chunk(second, 0, vec![b'x'; 9000]),
    ]);
    let flags: Vec<_> = stored.iter().map(|(flags, _)| *flags).collect();
    assert_eq!(flags[1], flag::ZSTD);
    assert_eq!(flags[3..], [AGAIN, NEARLY, NEARLY, NEARLY]);
    assert!(stored[3].1 < 64 && stored[4].1 < 200, "{stored:?}");
}

#[test]
fn no_session_is_told_by_another() {
    let [first, second] = EXCHANGES;
    let body = text(4096);
    let stored = stored(&[
        opened(first, 1),
        chunk(first, 0, body.clone()),
        opened(second, 2),
        chunk(second, 0, body),
    ]);
    assert_eq!(stored[1], stored[3]);
    assert_eq!(stored[3].0, flag::ZSTD);
}

#[test]
fn a_payload_that_builds_on_the_wrong_record_is_refused() {
    let head = [0; CHUNK_HEADER];
    let mut earlier = Earlier::default();
    let whole = Bytes::from([&head[..], b"data"].concat());
    earlier.0.insert(100, (Kind::CHUNK, 0, whole));
    earlier.0.insert(200, (Kind::SESSION_OPENED, 0, Bytes::from_static(&[0; 99])));
    earlier.0.insert(300, (Kind::CHUNK, flag::BASE, Bytes::from_static(&[0; 99])));
    earlier.0.insert(400, (Kind::CHUNK, 0, Bytes::from_static(b"short")));
    let read = |base: u64, rest: &[u8]| {
        let payload = [&base.to_le_bytes()[..], &head, rest].concat();
        expand(&earlier, (1000, Kind::CHUNK, flag::BASE), payload.into())
    };
    assert!(read(100, b"").expect("good").ends_with(b"data"));
    for (base, rest) in
        [(200, &b""[..]), (300, b""), (400, b""), (500, b""), (2000, b""), (100, b"x")]
    {
        assert!(matches!(read(base, rest), Err(DecodePayloadError::Base)), "{base} {rest:?}");
    }
    for short in 0..8 + CHUNK_HEADER {
        let payload = [&100u64.to_le_bytes()[..], &head].concat()[..short].to_vec();
        let read = expand(&earlier, (1000, Kind::CHUNK, flag::BASE), payload.into());
        assert!(matches!(read, Err(DecodePayloadError::Base)), "{short}");
    }
}

const CHUNK_HEADER: usize = crate::model::CHUNK_HEADER_BYTES;

#[test]
fn a_key_that_was_exchanged_is_trusted_by_the_old_one() {
    let (old, stranger) = (key(), SigningKey::from_seed([9; 32]));
    let new = old.succeeded_by([8; 32]);
    let mut trust = Trust::new(vec![*old.public()]);
    assert!(trust.key(new.id()).is_none());
    assert!(new.endorsements().iter().all(|endorsement| trust.endorse(endorsement)));
    assert!(trust.key(new.id()).is_some());
    // One that nobody trusts changes nothing; a forged one is told.
    let strange = stranger.succeeded_by([10; 32]);
    assert!(trust.endorse(&strange.endorsements()[0]));
    assert!(trust.key(strange.id()).is_none());
    let mut forged = strange.endorsements()[0].payload();
    let by = forged.windows(16).position(|part| part == stranger.id().to_string().as_bytes());
    let by = by.expect("the key's id is in it");
    forged[by..by + 16].copy_from_slice(old.id().to_string().as_bytes());
    let forged = signing::Endorsement::read(&forged).expect("well formed");
    assert!(!trust.endorse(&forged));
}

#[test]
fn a_compressed_payload_that_lies_is_refused() {
    let bomb = zstd::bulk::compress(&vec![0; PAYLOAD_BYTES_MAX + 1], 1).expect("it compresses");
    assert!(bomb.len() < 4096);
    let good = zstd::bulk::compress(b"good", 1).expect("it compresses");
    // A stream does not know its length when it begins.
    let unsized_frame = {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("it compresses");
        encoder.write_all(b"stream").expect("it compresses");
        encoder.flush().expect("it compresses");
        encoder.finish().expect("it compresses")
    };
    for bad in [bomb, good[..good.len() - 1].to_vec(), unsized_frame, b"no frame".to_vec(), vec![]]
    {
        let refused = expand(&Earlier::default(), (9, Kind(999), flag::ZSTD), bad.into());
        assert!(matches!(refused, Err(DecodePayloadError::Compression)), "{refused:?}");
    }
    assert_eq!(
        expand(&Earlier::default(), (9, Kind(999), flag::ZSTD), good.into()).expect("a good frame"),
        "good"
    );
    for flags in [flag::BASE, flag::SESSION, 0x8000] {
        let read = expand(&Earlier::default(), (9, Kind(999), flags), Bytes::new());
        assert!(matches!(read, Err(DecodePayloadError::Flags { .. })));
    }
}

#[test]
fn a_payload_over_the_bound_leaves_the_chain_as_it_was() {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::begin(&header(None), key(), None, &mut bytes);
    let (mark, length) = (encoder.mark(), bytes.len());
    let payload = vec![0; PAYLOAD_BYTES_MAX + 1].into();
    let large = Record::Unknown { kind: Kind(999), payload };
    assert!(encoder.record(&large, &mut bytes).is_err());
    assert_eq!((encoder.mark(), bytes.len()), (mark, length));
}

#[test]
fn bad_headers_are_named() {
    let good = segment();
    let length = decode_header(&good).map(|read| read.bytes).expect("good");
    for cut in 0..length {
        assert_eq!(decode_header(&good[..cut]).err(), Some(BadHeader::Incomplete), "{cut}");
    }
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        decode_header(&bad).err()
    };
    assert_eq!(with(0, b'd'), Some(BadHeader::Magic));
    assert_eq!(with(8, 3), Some(BadHeader::Version(3)));
    assert!(matches!(with(13, 0xff), Some(BadHeader::Length(_))));
    assert_eq!(with(20, 0), Some(BadHeader::Checksum));
}

#[test]
fn what_is_too_short_to_gain_is_not_compressed() {
    let other = |bytes: usize| Record::Unknown { kind: Kind(999), payload: text(bytes).into() };
    let flags = |record: Record| stored(&[record])[0].0;
    assert_eq!(flags(other(COMPRESS_BYTES_MIN - 1)), 0);
    assert_eq!(flags(other(COMPRESS_BYTES_MIN)), flag::ZSTD);
    let piece = |bytes: usize| chunk(EXCHANGES[0], 0, text(bytes));
    assert_eq!(flags(piece(COMPRESS_CHUNK_BYTES_MIN - 1)), 0);
    assert_eq!(flags(piece(COMPRESS_CHUNK_BYTES_MIN)), flag::ZSTD);
}

#[test]
fn long_pieces_are_compressed_only_where_a_sample_gains() {
    let stored = |data: Vec<u8>| {
        let bytes = data.len();
        let (flags, stored) = stored(&[chunk(EXCHANGES[0], 0, data)])[0];
        (flags, stored < bytes)
    };
    let mut noise = vec![0; 64 << 10];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let text = b"a line of a log, as many of them look\n".repeat(1800);
    assert_eq!(stored(text.clone()), (flag::ZSTD, true));
    assert_eq!(stored(noise.clone()), (0, false));
    // The middle decides: noise around text is compressed, text around noise is not.
    let around = |mut outer: Vec<u8>, inner: &[u8]| {
        outer[24 << 10..40 << 10].copy_from_slice(&inner[..16 << 10]);
        outer
    };
    assert_eq!(stored(around(text[..64 << 10].to_vec(), &noise)), (0, false));
    assert_eq!(stored(around(noise.clone(), &text)), (flag::ZSTD, true));
    // A short piece is compressed where it gains anything worth it.
    let mut short = noise[..8 << 10].to_vec();
    short.extend_from_slice(&text[..4 << 10]);
    assert_eq!(stored(short), (flag::ZSTD, true));
}
