use std::{fs, io::Write as _, path::PathBuf};

use crate::{
    model::{
        Chunk, Direction, ExchangeId, GatewayStopped, SessionChanged, SessionId, SessionState,
    },
    store::scan::Scan,
};

use super::*;

fn header(previous: Option<Previous>) -> Header {
    Header {
        segment: SegmentId::from_bytes([0x51; 16]),
        gateway: GatewayId::from_bytes([0x6a; 16]),
        boot: BootId::from_bytes([0xb0; 16]),
        key: String::new(),
        created: Timestamp::from_micros(1_790_000_000_000_000),
        previous,
    }
}

/// One of each shape: small JSON, binary, compressed binary, empty payload, unknown kind.
fn records() -> Vec<Record> {
    let time = Timestamp::from_micros(1_790_000_000_000_001);
    let chunk = |offset, data: Vec<u8>| {
        Record::Chunk(Chunk {
            exchange: ExchangeId::from_bytes([0xec; 16]),
            direction: Direction::Response,
            at_us: 1500,
            offset,
            data: data.into(),
        })
    };
    vec![
        Record::SessionChanged(SessionChanged {
            session: SessionId::from_bytes([0x5e; 16]),
            time,
            state: SessionState::Open,
            ended: None,
            by: None,
            why: None,
        }),
        chunk(0, b"\0\x01binary\xff".to_vec()),
        chunk(9, b"compressible ".repeat(60)),
        Record::Unknown { kind: Kind(999), payload: Bytes::new() },
        Record::Unknown { kind: Kind(1000), payload: Bytes::from_static(b"from a later version") },
        Record::GatewayStopped(GatewayStopped { gateway: GatewayId::from_bytes([0x6a; 16]), time }),
    ]
}

fn segment() -> Vec<u8> {
    let previous =
        Previous { segment: SegmentId::from_bytes([0x50; 16]), hash: ChainHash([0x11; 32]) };
    let mut bytes = Vec::new();
    let mut encoder = Encoder::begin(&header(Some(previous)), &mut bytes);
    for record in records() {
        let offset = encoder.record(&record, &mut bytes).expect("small");
        assert!(offset < bytes.len() as u64);
    }
    let time = Timestamp::from_micros(1_790_000_000_000_002);
    encoder.seal(header(None).segment, time, SealedBy::Close, 0, &mut bytes);
    assert_eq!(encoder.mark().offset, bytes.len() as u64);
    assert_eq!(encoder.mark().records, 7);
    bytes
}

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/store/golden/segment-v1.seg")
}

/// The format is a contract: these bytes never change. If a new zstd compresses otherwise, keep this file
/// for reading, and add another one.
#[test]
fn the_golden_segment_is_written_byte_for_byte() {
    if std::env::var_os("DECKLOG_WRITE_GOLDEN").is_some() {
        fs::write(golden(), segment()).expect("writable");
    }
    let golden = fs::read(golden()).expect("the golden file is in the repository");
    assert!(golden == segment(), "the format has changed");
}

#[test]
fn the_golden_segment_is_read() {
    let (mut scan, read) = Scan::open(&golden()).expect("a good header");
    assert_eq!(read.previous.map(|previous| previous.hash), Some(ChainHash([0x11; 32])));
    assert_eq!(Header { previous: None, ..read }, header(None));
    for record in records() {
        let raw = scan.next().expect("a good record").expect("not the end");
        assert_eq!(raw.decode().expect("a good payload"), record);
    }
    let seal = scan.next().expect("a good record").expect("not the end");
    let seal: Seal = serde_json::from_slice(&seal.payload().expect("good")).expect("a seal");
    assert_eq!((seal.by, seal.records, seal.torn_bytes), (SealedBy::Close, 6, 0));
    assert!(scan.is_sealed());
    assert!(scan.next().expect("the end").is_none());
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
        let refused = expand(FLAG_ZSTD, bad.into());
        assert!(matches!(refused, Err(DecodePayloadError::Compression)), "{refused:?}");
    }
    assert_eq!(expand(FLAG_ZSTD, good.into()).expect("a good frame"), "good");
    for flags in [2, 3, 0x8000] {
        assert!(matches!(expand(flags, Bytes::new()), Err(DecodePayloadError::Flags { .. })));
    }
}

#[test]
fn a_payload_over_the_bound_leaves_the_chain_as_it_was() {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::begin(&header(None), &mut bytes);
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
    assert_eq!(with(8, 2), Some(BadHeader::Version(2)));
    assert!(matches!(with(13, 0xff), Some(BadHeader::Length(_))));
    assert_eq!(with(20, 0), Some(BadHeader::Checksum));
}

#[test]
fn what_is_too_short_to_gain_is_not_compressed() {
    let chunk = |bytes: usize| {
        Record::Chunk(Chunk {
            exchange: ExchangeId::from_bytes([0xec; 16]),
            direction: Direction::Response,
            at_us: 1500,
            offset: 0,
            data: vec![b'x'; bytes].into(),
        })
    };
    let other =
        |bytes: usize| Record::Unknown { kind: Kind(999), payload: vec![b'x'; bytes].into() };
    let flags = |record: &Record| {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::begin(&header(None), &mut bytes);
        let begin = bytes.len();
        encoder.record(record, &mut bytes).expect("small");
        let head = bytes[begin..].first_chunk().expect("a whole head");
        RecordHead::decode(head).expect("within the bound").flags
    };
    assert_eq!(flags(&other(COMPRESS_BYTES_MIN - 1)), 0);
    assert_eq!(flags(&other(COMPRESS_BYTES_MIN)), FLAG_ZSTD);
    // A chunk's own head, its 33 bytes before the data, counts too.
    assert_eq!(flags(&chunk(COMPRESS_CHUNK_BYTES_MIN - 33 - 1)), 0);
    assert_eq!(flags(&chunk(COMPRESS_CHUNK_BYTES_MIN - 33)), FLAG_ZSTD);
}

#[test]
fn long_pieces_are_compressed_only_where_a_sample_gains() {
    let stored = |data: Vec<u8>| {
        let bytes = data.len();
        let record = Record::Chunk(Chunk {
            exchange: ExchangeId::from_bytes([0xec; 16]),
            direction: Direction::Response,
            at_us: 1500,
            offset: 0,
            data: data.into(),
        });
        let mut out = Vec::new();
        let mut encoder = Encoder::begin(&header(None), &mut out);
        let begin = out.len();
        encoder.record(&record, &mut out).expect("small");
        let head = out[begin..].first_chunk().expect("a whole head");
        let head = RecordHead::decode(head).expect("within the bound");
        let payload =
            Bytes::copy_from_slice(&out[begin + RECORD_HEAD_BYTES..]).slice(..head.payload_bytes);
        // However it is stored, it is read as it was.
        assert_eq!(decode(head.kind, head.flags, payload).expect("intact"), record);
        (head.flags, head.payload_bytes < bytes)
    };
    let mut noise = vec![0; 64 << 10];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let text = b"a line of a log, as many of them look\n".repeat(1800);
    assert_eq!(stored(text.clone()), (FLAG_ZSTD, true));
    assert_eq!(stored(noise.clone()), (0, false));
    // The middle decides: noise around text is compressed, text around noise is not.
    let around = |mut outer: Vec<u8>, inner: &[u8]| {
        outer[24 << 10..40 << 10].copy_from_slice(&inner[..16 << 10]);
        outer
    };
    assert_eq!(stored(around(text[..64 << 10].to_vec(), &noise)), (0, false));
    assert_eq!(stored(around(noise.clone(), &text)), (FLAG_ZSTD, true));
    // A short piece is compressed where it gains anything worth it.
    let mut short = noise[..8 << 10].to_vec();
    short.extend_from_slice(&text[..4 << 10]);
    assert_eq!(stored(short), (FLAG_ZSTD, true));
}
