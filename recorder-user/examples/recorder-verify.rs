//! A second verifier of a Decklog record, written from `docs/format.md` alone: it shares no code with the gateway
//! or the `recorder` command, and is short enough to be read before it is believed.
//!
//! `recorder-verify STORE|BUNDLE|SEGMENT.seg... [PUBLIC-KEY.pub...]` checks headers, checksums, the chain of
//! digests, links between segments, checkpoints, seals, endorsements, tombstones and stubs (rules 1 to 6).
//! Exit code 0: everything fits; 1: the first file and offset that do not; 2: wrong usage.
//!
//! It leaves to `recorder verify`: what is inside of payloads, so that bodies are not compared with the hashes in
//! their outcomes (rule 7); the head, so that an older copy of a whole store is not found; patience with a record
//! that is being written; and to tell which key signed what, and what was deleted when and by whom.

use std::path::{Path, PathBuf};
use std::{cmp::Reverse, collections::BTreeMap, env, fs, process::ExitCode};

use crc32c::crc32c;
use ed25519_dalek::{Signature, VerifyingKey, pkcs8::DecodePublicKey as _};

/// Or what is wrong.
type Rule<T> = Result<T, &'static str>;

/// A segment's id and its last hash; empty for what is before the first segment.
type End = (String, String);

struct Header {
    version: u64,
    segment: String,
    gateway: String,
    previous: End,
    length: usize,
}

#[derive(Default)]
pub(crate) struct Verifier {
    keys: BTreeMap<String, VerifyingKey>,
    /// The JSON of tombstones that count, and that of a bundle.
    tombstones: Vec<String>,
    bundle: Option<String>,
    /// Segments may be missing.
    partial: bool,
    gateway: Option<String>,
    /// Version, file, length and end of the segment before.
    before: (u64, PathBuf, u64, End),
    /// What is looked at, and the hash before it.
    pub(crate) file: PathBuf,
    pub(crate) offset: u64,
    chain: [u8; 32],
    /// Offsets and digests of the records of this segment of which only the digest is left.
    missing: Vec<(u64, [u8; 32])>,
    /// What was counted: `unsigned` records are those after the last signature.
    pub(crate) segments: u64,
    pub(crate) records: u64,
    pub(crate) signatures: u64,
    pub(crate) unsigned: u64,
    pub(crate) stubs: u64,
    pub(crate) gaps: u64,
}

fn main() -> ExitCode {
    let paths: Vec<_> = env::args_os().skip(1).map(PathBuf::from).collect();
    let key = |path: &PathBuf| public_key(&fs::read_to_string(path).ok()?);
    let keys: Vec<_> = paths.iter().filter_map(key).collect();
    let targets: Vec<_> = paths.into_iter().filter(|path| key(path).is_none()).collect();
    if targets.is_empty() {
        eprintln!("usage: recorder-verify STORE|BUNDLE|SEGMENT.seg... [PUBLIC-KEY.pub...]");
        return ExitCode::from(2);
    }
    let mut verifier = Verifier::default();
    if let Err(why) = verifier.verify(&targets, &keys) {
        let (file, offset) = (verifier.file.display(), verifier.offset);
        println!("DOES NOT VERIFY: {file} at offset {offset}: {why}");
        return ExitCode::FAILURE;
    }
    let Verifier { segments, records, signatures, unsigned, stubs, gaps, .. } = verifier;
    println!("verified, but for bodies: {segments} segments, {records} records, {stubs} stubs,");
    println!("{signatures} signatures, {unsigned} records after the last, {gaps} missing links");
    ExitCode::SUCCESS
}

impl Verifier {
    /// Checks a store, a bundle, or some segments. After an error `file` and `offset` tell the place.
    pub(crate) fn verify(&mut self, targets: &[PathBuf], keys: &[VerifyingKey]) -> Rule<()> {
        keys.iter().for_each(|key| self.trust(*key));
        let mut files = Vec::new();
        for target in targets {
            let Ok(entries) = fs::read_dir(target.join("segments")) else {
                self.partial = true;
                files.push(target.clone());
                continue;
            };
            let paths = entries.flatten().map(|entry| entry.path());
            files.extend(paths.filter(|path| path.extension().is_some_and(|end| end == "seg")));
            self.file = target.join("bundle.json");
            if let Ok(bundle) = fs::read_to_string(&self.file) {
                let named = bundle.matches("{\"segment\":").count();
                (self.bundle, self.partial) = (Some(bundle), true);
                rule(named == files.len(), "it names other segments")?;
            }
        }
        files.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
        files.iter().for_each(|file| self.read_tombstones(file));
        files.iter().try_for_each(|file| self.segment(file))
    }

    fn trust(&mut self, key: VerifyingKey) {
        self.keys.insert(blake3::hash(key.as_bytes()).to_hex()[..16].into(), key);
    }

    /// Takes in the tombstones of a file, since they come after what they are about. A bad one is found later.
    fn read_tombstones(&mut self, file: &Path) {
        let bytes = fs::read(file).unwrap_or_default();
        let mut at = header(&bytes).map_or(bytes.len(), |header| header.length);
        while let Ok((kind, _, body, _)) = record(&bytes[at..]) {
            at += body.len() + 32;
            let json = (kind > 65).then(|| self.statement(kind, &body[12..])).and_then(Result::ok);
            self.tombstones.extend(json.filter(|_| kind == 66).map(ToOwned::to_owned));
        }
    }

    /// Whether tombstones speak of everything between two segments.
    fn is_bridged(&self, from: &End, to: &End) -> bool {
        let runs = self.tombstones.iter().flat_map(|json| json.split("{\"first\":").skip(1));
        let (runs, mut at) = (runs.filter_map(run).collect::<Vec<_>>(), from);
        while at != to {
            let longest = |(first, ..): &&(String, _, _)| (*first > to.0, Reverse(first.clone()));
            match runs.iter().filter(|(_, end, _)| end == at).max_by_key(longest) {
                Some((first, _, previous)) if *first > to.0 => at = previous,
                // A later deletion joined both sides of a segment that is still there.
                run => return run.is_some_and(|(_, end, _)| to.0 <= end.0),
            }
        }
        true
    }

    fn segment(&mut self, path: &Path) -> Rule<()> {
        (self.file, self.offset) = (path.into(), 0);
        let bytes = fs::read(path).map_err(|_| "it cannot be read")?;
        let header = header(&bytes).ok_or("the header is bad")?;
        self.link(&header)?;
        let (mut at, mut kind, mut records) = (header.length, 0, 0);
        self.chain = blake3::hash(&bytes[..at]).into();
        while at < bytes.len() {
            self.offset = at as u64;
            rule(kind != 65, "there is a record after the seal")?;
            let record = self.record(&header, &bytes[at..], records)?;
            (kind, at, records) = (record.0, at + record.1, records + 1);
        }
        let (id, hash, end) = (header.segment, blake3::Hash::from(self.chain).to_hex(), at as u64);
        if let (Some((first, _)), None) = (self.missing.first(), &self.bundle) {
            let digests: Vec<_> = self.missing.iter().flat_map(|(_, digest)| *digest).collect();
            let (count, digests) = (self.missing.len(), blake3::hash(&digests).to_hex());
            let said = format!(r#"{{"segment":"{id}","count":{count},"digestOf":"{digests}""#);
            self.offset = *first;
            let is_said = self.tombstones.iter().any(|json| json.contains(&said));
            rule(is_said, "records were taken out, and no tombstone says so")?;
        }
        self.missing.clear();
        self.offset = end;
        let said = format!(r#"{{"segment":"{id}","bytes":{end},"hash":"{hash}""#);
        let is_said = self.bundle.as_ref().is_none_or(|json| json.contains(&said));
        rule(is_said, "it does not end as bundle.json says")?;
        (self.segments, self.records) = (self.segments + 1, self.records + records);
        self.before = (header.version, path.into(), end, (id, hash.to_string()));
        Ok(())
    }

    /// Whether the segment is the one that follows.
    fn link(&mut self, header: &Header) -> Rule<()> {
        let name = self.file.file_stem().and_then(|stem| stem.to_str());
        rule(name == Some(&header.segment), "the file's name is not its segment's id")?;
        let gateway = self.gateway.get_or_insert_with(|| header.gateway.clone());
        rule(*gateway == header.gateway, "another gateway wrote it")?;
        let (version, file, length, end) = &self.before;
        rule(header.version >= *version, "it has version 1, and the one before version 2")?;
        let previous = &header.previous;
        if previous.0 == end.0 && previous.1 != end.1 {
            (self.file, self.offset) = (file.clone(), *length);
            return Err("it does not end as the next segment says");
        }
        let is_gap = self.partial && previous != end && !previous.0.is_empty();
        self.gaps += u64::from(is_gap);
        rule(is_gap || self.is_bridged(previous, end), "the segment before it is missing")
    }

    /// Checks the record at the beginning of `rest`, the one after `records` others; gives its kind and length.
    fn record(&mut self, header: &Header, rest: &[u8], records: u64) -> Rule<(u64, usize)> {
        let (kind, flags, body, link) = record(rest)?;
        let (payload, own) = (&body[12..], blake3::hash(body));
        rule(number(&body[4..8]) == u64::from(crc32c(&body[8..])), "the checksum does not match")?;
        let is_stub = header.version > 1 && flags & 16 != 0;
        let digest = if is_stub { payload.first_chunk() } else { Some(own.as_bytes()) };
        let digest = digest.ok_or("it is too short for a digest")?;
        let linked = if header.version == 1 { body } else { digest };
        let next = blake3::hash(&[&self.chain, linked].concat());
        rule(next == *link, "the hash does not continue the chain")?;
        self.unsigned += 1;
        let is_signed = (64..=67).contains(&kind);
        let known = if header.version == 1 { 1 } else { 29 | u64::from(kind == 6) << 1 };
        let fit = flags & !known == 0 && flags & 12 != 8 && !(is_signed && flags != 0);
        rule(fit, "such flags do not occur")?;
        if is_stub {
            rule(payload[32..].iter().all(|byte| *byte == 0), "no zeros follow the digest")?;
            self.stubs += 1;
            self.missing.push((self.offset, *digest));
        } else if is_signed {
            let json = match (kind, header.version) {
                (65, 1) => str::from_utf8(payload).unwrap_or_default(),
                _ => self.statement(kind, payload)?,
            };
            let hash = blake3::Hash::from(self.chain).to_string();
            let here = [&header.segment, &records.to_string(), &self.offset.to_string(), &hash];
            let says = ["segment", "records", "bytes", "hash"].map(|name| field(json, name));
            rule(kind > 65 || says == here.map(|it| Some(&it[..])), "its totals are wrong")?;
        }
        self.chain = next.into();
        Ok((kind, body.len() + 32))
    }

    /// The JSON of a signed statement. Without any key it is believed; an endorsement by a strange key says nothing.
    fn statement<'a>(&mut self, kind: u64, payload: &'a [u8]) -> Rule<&'a str> {
        let word = ["checkpoint", "seal", "tombstone", "key"].get(kind.wrapping_sub(64) as usize);
        let word = word.ok_or("nobody signs such a record")?;
        let by = if kind == 67 { "by" } else { "key" };
        let (signature, json) = payload.split_first_chunk().ok_or("it is too short")?;
        let json = str::from_utf8(json).map_err(|_| "it is no JSON")?;
        let Some(key) = self.keys.get(field(json, by).ok_or("it does not name its key")?) else {
            rule(self.keys.is_empty() || kind == 67, "it is signed by a key that is not trusted")?;
            return Ok(json);
        };
        let message = format!("decklog {word} 2\n{json}");
        let good = key.verify_strict(message.as_bytes(), &Signature::from_bytes(signature));
        good.map_err(|_| "its signature is not that of its key")?;
        if kind == 67 {
            let key = field(json, "publicKey").and_then(|key| public_key(&PEM.replace('*', key)));
            self.trust(key.ok_or("it does not hold a key")?);
        } else if kind != 66 {
            (self.signatures, self.unsigned) = (self.signatures + 1, 0);
        }
        Ok(json)
    }
}

fn rule(holds: bool, why: &'static str) -> Rule<()> {
    if holds { Ok(()) } else { Err(why) }
}

fn header(bytes: &[u8]) -> Option<Header> {
    let length = 14 + number(bytes.get(10..14)?).min(65_537) as usize;
    let (head, crc) = (bytes.get(..length)?, bytes.get(length..length + 4)?);
    let version = number(&head[8..10]);
    let (own, before) = str::from_utf8(&head[14..]).ok()?.split_once("\"previous\":")?;
    let (segment, gateway) = (field(own, "segment")?.into(), field(own, "gateway")?.into());
    let header =
        Header { version, segment, gateway, previous: end(before, "segment"), length: length + 4 };
    let good = head.starts_with(b"DECKLOG\0") && number(crc) == u64::from(crc32c(head));
    (good && length <= 14 + 65_536 && (1..=2).contains(&version)).then_some(header)
}

/// A record's kind and flags, the bytes before its link (the payload follows the twelfth), and the link.
fn record(rest: &[u8]) -> Rule<(u64, u64, &[u8], &[u8; 32])> {
    let cut = "the file ends within it";
    let length = number(rest.get(..4).ok_or(cut)?);
    rule(length <= 16_777_216, "its length is over the bound")?;
    let (body, rest) = rest.split_at_checked(12 + length as usize).ok_or(cut)?;
    let link = rest.first_chunk().ok_or(cut)?;
    Ok((number(&body[8..10]), number(&body[10..12]), body, link))
}

/// What a tombstone says of a run of deleted segments: the first, the end, and the end of the segment before.
fn run(json: &str) -> Option<(String, End, End)> {
    let (own, before) = json.split_once("\"previous\":")?;
    let (first, end, previous) = (own.get(1..33)?, end(own, "last"), end(before, "segment"));
    (*first <= *end.0 && *previous.0 < *first).then(|| (first.into(), end, previous))
}

fn end(json: &str, segment: &str) -> End {
    let text = |name| field(json, name).filter(|_| !json.starts_with("null"));
    (text(segment).unwrap_or_default().into(), text("hash").unwrap_or_default().into())
}

/// The value of a field, in JSON as the gateway writes it: without spaces, and nothing here needs an escape.
fn field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(&format!("\"{name}\":"))?;
    Some(rest[..rest.find([',', '}'])?].trim_matches('"'))
}

/// A public key in PEM (RFC 8410): all but the 32 bytes in base64 is the same in each.
const PEM: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA*\n-----END PUBLIC KEY-----\n";

pub(crate) fn public_key(text: &str) -> Option<VerifyingKey> {
    VerifyingKey::from_public_key_pem(text).ok()
}

/// A little-endian number.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
