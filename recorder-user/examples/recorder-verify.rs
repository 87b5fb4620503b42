//! A second verifier of a Decklog record, written from `docs/format.md` alone: it shares no code with the gateway
//! or the `recorder` command, and is short enough to be read before it is believed.
//!
//! `recorder-verify STORE|BUNDLE|SEGMENT.seg... [PUBLIC-KEY.pub...]` checks headers, checksums, the chain of
//! digests, links between segments, checkpoints, seals, endorsements, tombstones and stubs (rules 1 to 6). It does not unpack
//! payloads, so it does not compare bodies with the hashes in their outcomes (rule 7).
//! Exit code 0: everything fits; 1: the first file and offset that do not; 2: wrong usage.

use std::path::{Path, PathBuf};
use std::{collections::BTreeMap, env, fs, process::ExitCode};

use crc32c::crc32c;
use ed25519_dalek::{Signature, VerifyingKey};

pub(crate) struct Bad {
    pub(crate) file: PathBuf,
    pub(crate) offset: u64,
    pub(crate) why: String,
}

#[derive(Default)]
pub(crate) struct Checked {
    pub(crate) segments: u64,
    pub(crate) records: u64,
    pub(crate) signatures: u64,
    pub(crate) unsigned: u64,
    pub(crate) stubs: u64,
    pub(crate) gaps: u64,
}

#[derive(Default)]
struct Verifier {
    keys: BTreeMap<String, VerifyingKey>,
    /// `bundle.json`, if there is one.
    bundle: Option<String>,
    /// Segments may be missing: in a bundle, or when files were named.
    partial: bool,
    gateway: Option<String>,
    /// Version, file, segment, last hash and length of the segment before.
    before: Option<(u64, PathBuf, String, String, usize)>,
    hash: [u8; 32],
    /// What tombstones say is gone: runs of segments, and records by segment, count and hash.
    runs: Vec<Run>,
    thinned: Vec<[String; 3]>,
    /// The stubs of this segment: where the first is, how many, and their digests.
    missing: (Option<usize>, u64, blake3::Hasher),
    checked: Checked,
}

/// A run of deleted segments: first and last, last hash, and what came before it.
struct Run {
    first: String,
    last: String,
    hash: String,
    previous: Option<(String, String)>,
}

/// What a statement must say of everything before it: segment, records, bytes, hash.
type Here<'a> = [&'a str; 4];

struct Header<'a> {
    version: u64,
    segment: &'a str,
    gateway: &'a str,
    previous: Option<(Option<&'a str>, Option<&'a str>)>,
    length: usize,
}

fn main() -> ExitCode {
    let (mut keys, mut targets) = (Vec::new(), Vec::new());
    for path in env::args_os().skip(1).map(PathBuf::from) {
        match fs::read_to_string(&path).ok().and_then(|text| public_key(&text)) {
            Some(key) => keys.push(key),
            None => targets.push(path),
        }
    }
    if targets.is_empty() {
        eprintln!("usage: recorder-verify STORE|BUNDLE|SEGMENT.seg... [PUBLIC-KEY.pub...]");
        return ExitCode::from(2);
    }
    match verify(&targets, &keys) {
        Ok(Checked { segments, records, signatures, unsigned, stubs, gaps }) => {
            println!("verified: {segments} segments, {records} records, checksums, chain, links");
            println!("with {} keys: {signatures} signatures, {unsigned} records after", keys.len());
            println!(
                "{stubs} stubs, {gaps} links to segments that are not here; bodies not checked"
            );
            ExitCode::SUCCESS
        }
        Err(Bad { file, offset, why }) => {
            println!("DOES NOT VERIFY: {} at offset {offset}: {why}", file.display());
            ExitCode::FAILURE
        }
    }
}

/// Checks a store, a bundle, or some segments.
pub(crate) fn verify(targets: &[PathBuf], keys: &[VerifyingKey]) -> Result<Checked, Bad> {
    let mut verifier = Verifier::default();
    keys.iter().for_each(|key| verifier.trust(*key));
    let mut files: Vec<_> = targets.iter().filter(|target| !target.is_dir()).cloned().collect();
    verifier.partial = !files.is_empty();
    for target in targets.iter().filter(|target| target.is_dir()) {
        let segments = target.join("segments");
        let entries = fs::read_dir(&segments).map_err(|error| bad(&segments, 0, error))?;
        let paths = entries.flatten().map(|entry| entry.path());
        files.extend(paths.filter(|path| path.extension().is_some_and(|end| end == "seg")));
        if let Ok(manifest) = fs::read_to_string(target.join("bundle.json")) {
            if manifest.matches("{\"segment\":").count() != files.len() {
                return Err(bad(&target.join("bundle.json"), 0, "it names other segments"));
            }
            (verifier.bundle, verifier.partial) = (Some(manifest), true);
        }
    }
    files.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
    verifier.read_tombstones(&files);
    files.iter().try_for_each(|file| verifier.segment(file))?;
    Ok(verifier.checked)
}

impl Verifier {
    fn trust(&mut self, key: VerifyingKey) {
        self.keys.insert(hex(&blake3::hash(key.as_bytes()).as_bytes()[..8]), key);
    }

    /// Takes in what the tombstones of all files say, which come after what they are about.
    fn read_tombstones(&mut self, files: &[PathBuf]) {
        let mut tombstones = Vec::new();
        for bytes in files.iter().filter_map(|file| fs::read(file).ok()) {
            let Some(Header { length: mut at, .. }) = header(&bytes) else { continue };
            while let (Some(length), Some(kind)) =
                (number(&bytes, at, 4), number(&bytes, at + 8, 4))
            {
                let end = at + 12 + length as usize;
                let Some(payload) = bytes.get(at + 12..end) else { break };
                match kind {
                    66 => tombstones.push(payload.to_owned()),
                    // A bad one makes nothing trusted, and is found when it is checked.
                    67 => drop(self.endorsement(payload)),
                    _ => {}
                }
                at = end + 32;
            }
        }
        for payload in tombstones {
            if let Ok(json) = self.tombstone(&payload) {
                self.bury(json);
            }
        }
    }

    /// Notes what a tombstone says.
    fn bury(&mut self, json: &str) {
        let Some((segments, records)) = json.split_once("\"records\":[") else { return };
        for run in segments.split("{\"first\":").skip(1) {
            let run = format!("\"first\":{run}");
            let Some((own, rest)) = run.split_once("\"previous\":") else { continue };
            let text = |part, name| field(part, name).map(ToOwned::to_owned);
            let previous = text(rest, "segment").zip(text(rest, "hash"));
            let run = text(own, "first").zip(text(own, "last")).zip(text(own, "hash"));
            let Some(((first, last), hash)) = run else { continue };
            let sound = previous.as_ref().is_none_or(|(before, _)| *before < first);
            if first <= last && sound && previous.is_some() != rest.starts_with("null") {
                self.runs.push(Run { first, last, hash, previous });
            }
        }
        for entry in records.split("{\"segment\":").skip(1) {
            let entry = format!("\"segment\":{entry}");
            let words = ["segment", "count", "digestOf"].map(|name| field(&entry, name));
            if let [Some(segment), Some(count), Some(digests)] = words {
                self.thinned.push([segment, count, digests].map(ToOwned::to_owned));
            }
        }
    }

    /// Whether tombstones speak of everything between a segment's predecessor and the one that is there.
    fn is_bridged(&self, from: (&str, &str), to: Option<(&str, &str)>) -> bool {
        let mut at = Some(from);
        while at != to {
            let Some((id, hash)) = at else { return false };
            let beyond = |run: &Run| to.is_none_or(|(to, _)| *run.first > *to);
            let runs = self.runs.iter().filter(|run| run.last == id && run.hash == hash);
            let longest = runs.max_by_key(|run| (beyond(run), std::cmp::Reverse(&run.first)));
            let Some(run) = longest else { return false };
            if !beyond(run) {
                return to.is_some_and(|(to, _)| *to <= *run.last);
            }
            at = run.previous.as_ref().map(|(id, hash)| (&id[..], &hash[..]));
        }
        true
    }

    fn segment(&mut self, path: &Path) -> Result<(), Bad> {
        let bytes = fs::read(path).map_err(|error| bad(path, 0, error))?;
        let header = header(&bytes).ok_or(bad(path, 0, "the header is bad"))?;
        self.link(path, &header)?;
        self.hash = *blake3::hash(&bytes[..header.length]).as_bytes();
        let (mut at, mut records, mut sealed) = (header.length, 0, false);
        while at < bytes.len() {
            if sealed {
                return Err(bad(path, at, "there is a record after the seal"));
            }
            let here = [header.segment, &records.to_string(), &at.to_string(), &hex(&self.hash)];
            let record = self.record(header.version, &bytes[at..], here);
            let (kind, length) = record.map_err(|why| bad(path, at, why))?;
            if self.missing.1 > 0 {
                self.missing.0.get_or_insert(at);
            }
            self.hash.copy_from_slice(&bytes[at..at + length][length - 32..]);
            (at, records, sealed) = (at + length, records + 1, kind == 65);
        }
        let (segment, hash) = (header.segment.to_owned(), hex(&self.hash));
        if let (Some(first), count, digests) = std::mem::take(&mut self.missing) {
            let digests = hex(digests.finalize().as_bytes());
            let missing = [segment.clone(), count.to_string(), digests];
            if self.bundle.is_none() && !self.thinned.contains(&missing) {
                return Err(bad(path, first, "records were taken out, and no tombstone says so"));
            }
        }
        if let Some(list) = &self.bundle {
            let entry = format!("{{\"segment\":\"{segment}\",\"bytes\":{at},\"hash\":\"{hash}\"");
            if !list.contains(&entry) {
                return Err(bad(path, at, "it does not end as bundle.json says"));
            }
        }
        self.checked.segments += 1;
        self.checked.records += records;
        self.before = Some((header.version, path.into(), segment, hash, at));
        Ok(())
    }

    fn link(&mut self, path: &Path, header: &Header<'_>) -> Result<(), Bad> {
        let no = |why: &str| Err(bad(path, 0, why));
        if path.file_stem().and_then(|stem| stem.to_str()) != Some(header.segment) {
            return no("the file's name is not its segment's id");
        }
        if self.gateway.get_or_insert_with(|| header.gateway.into()) != header.gateway {
            return no("another gateway wrote it");
        }
        match (&self.before, header.previous) {
            (Some((before, ..)), _) if header.version < *before => {
                return no("a segment of version 1 follows one of version 2");
            }
            (None, None) => {}
            (Some((_, file, before, hash, end)), Some((id, said))) if id == Some(before) => {
                if said != Some(hash) {
                    return Err(bad(file, *end, "it does not end as the next segment says"));
                }
            }
            (_, Some(_)) if self.partial => self.checked.gaps += 1,
            (before, Some((Some(id), Some(hash)))) => {
                let before = before.as_ref().map(|(_, _, id, hash, _)| (&id[..], &hash[..]));
                if !self.is_bridged((id, hash), before) {
                    return no("the segment before it is missing");
                }
            }
            _ => return no("the segment before it is missing, or it is not the first"),
        }
        Ok(())
    }

    /// Checks the record at the beginning of `rest`; gives its kind and length.
    fn record(&mut self, version: u64, rest: &[u8], here: Here) -> Result<(u64, usize), String> {
        let number = |at, length| number(rest, at, length).ok_or("the file ends within it");
        let (length, crc) = (number(0, 4)?, number(4, 4)?);
        let (kind, flags) = (number(8, 2)?, number(10, 2)?);
        if length > 16_777_216 {
            return Err("its length is over the bound".into());
        }
        let end = 12 + length as usize;
        let link = rest.get(end..end + 32).ok_or("the file ends within it")?;
        let (record, payload, own) = (&rest[..end], &rest[12..end], blake3::hash(&rest[..end]));
        if crc != u64::from(crc32c(&record[8..])) {
            return Err("the checksum does not match".into());
        }
        let stub = version > 1 && flags & 16 != 0;
        let digest = match (stub, version) {
            (true, _) => payload.get(..32).ok_or("a stub is too short for its digest")?,
            (false, 1) => record,
            (false, _) => own.as_bytes(),
        };
        if blake3::hash(&[&self.hash, digest].concat()) != *link {
            return Err("the hash does not continue the chain".into());
        }
        self.checked.unsigned += 1;
        #[rustfmt::skip]
        let known = match (kind, version) { (64..=67, _) => 0, (_, 1) => 1, (6, _) => 31, _ => 29 };
        if flags & !known != 0 || flags & 12 == 8 {
            return Err("such flags do not occur".into());
        }
        self.checked.stubs += u64::from(stub);
        match kind {
            _ if stub && payload[32..].iter().any(|byte| *byte != 0) => {
                return Err("a stub is not followed by zeros".into());
            }
            _ if stub => {
                self.missing.1 += 1;
                self.missing.2.update(digest);
            }
            64 => self.statement(payload, here, "decklog checkpoint 2\n")?,
            65 if version == 1 => totals(payload, here).map(drop)?,
            65 => self.statement(payload, here, "decklog seal 2\n")?,
            66 => self.tombstone(payload).map(drop)?,
            67 => self.endorsement(payload)?,
            _ => {}
        }
        Ok((kind, end + 32))
    }

    /// A checkpoint or seal: its numbers, and whose signature it carries.
    fn statement(&mut self, payload: &[u8], here: Here, word: &str) -> Result<(), String> {
        let (signature, json) = payload.split_first_chunk().ok_or("it is too short")?;
        let by = field(totals(json, here)?, "key").ok_or("it does not name its key")?;
        if self.keys.is_empty() {
            return Ok(());
        }
        let key = self.keys.get(by).ok_or(format!("it is signed by {by}: not trusted"))?;
        let message = [word.as_bytes(), json].concat();
        let good = key.verify_strict(&message, &Signature::from_bytes(signature));
        good.map_err(|_| format!("the signature is not that of {by}"))?;
        self.checked.signatures += 1;
        self.checked.unsigned = 0;
        Ok(())
    }

    /// A tombstone, if a trusted key signed it; without any key it is believed.
    fn tombstone<'a>(&self, payload: &'a [u8]) -> Result<&'a str, String> {
        let (signature, json) = payload.split_first_chunk().ok_or("it is too short")?;
        let text = str::from_utf8(json).map_err(|_| "it is no JSON")?;
        let by = field(text, "key").ok_or("it does not name its key")?;
        if self.keys.is_empty() {
            return Ok(text);
        }
        let key = self.keys.get(by).ok_or(format!("it is signed by {by}: not trusted"))?;
        let message = [b"decklog tombstone 2\n", json].concat();
        let good = key.verify_strict(&message, &Signature::from_bytes(signature));
        good.map(|()| text).map_err(|_| format!("the signature is not that of {by}"))
    }

    /// By a key that is trusted, an endorsement makes another one trusted.
    fn endorsement(&mut self, payload: &[u8]) -> Result<(), String> {
        let (signature, json) = payload.split_first_chunk().ok_or("it is too short")?;
        let text = str::from_utf8(json).map_err(|_| "it is no JSON")?;
        let public = field(text, "publicKey").and_then(base64).and_then(|key| key.try_into().ok());
        let (public, by) = public.zip(field(text, "by")).ok_or("not the expected JSON")?;
        let Some(key) = self.keys.get(by) else { return Ok(()) };
        let message = [b"decklog key 2\n", json].concat();
        let good = key.verify_strict(&message, &Signature::from_bytes(signature));
        good.map_err(|_| format!("key {by} did not sign this endorsement"))?;
        let new = VerifyingKey::from_bytes(&public).map_err(|_| "it holds no key")?;
        self.trust(new);
        Ok(())
    }
}

fn totals<'a>(json: &'a [u8], here: Here) -> Result<&'a str, String> {
    let json = str::from_utf8(json).map_err(|_| "it is no JSON")?;
    let says = ["segment", "records", "bytes", "hash"].map(|name| field(json, name));
    if says == here.map(Some) { Ok(json) } else { Err("the totals are wrong".into()) }
}

fn header(bytes: &[u8]) -> Option<Header<'_>> {
    let version = number(bytes, 8, 2).filter(|version| (1..=2).contains(version))?;
    let length = 14 + number(bytes, 10, 4).filter(|length| *length <= 65_536)? as usize;
    let crc = number(bytes, length, 4)?;
    if !bytes.starts_with(b"DECKLOG\0") || crc != u64::from(crc32c(&bytes[..length])) {
        return None;
    }
    let (own, previous) = str::from_utf8(&bytes[14..length]).ok()?.split_once("\"previous\":")?;
    let previous =
        (previous != "null}").then(|| (field(previous, "segment"), field(previous, "hash")));
    let (segment, gateway) = (field(own, "segment")?, field(own, "gateway")?);
    Some(Header { version, segment, gateway, previous, length: length + 4 })
}

/// The value of a field, in JSON as the gateway writes it: without spaces, and nothing here needs an escape.
fn field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let name = format!("\"{name}\":");
    let mut parts = json.split(&name).skip(1);
    let (rest, None) = (parts.next()?, parts.next()) else { return None };
    Some(rest[..rest.find([',', '}'])?].trim_matches('"'))
}

/// A public key in PEM (RFC 8410).
pub(crate) fn public_key(text: &str) -> Option<VerifyingKey> {
    let inner = text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----")?;
    let der = base64(inner.strip_suffix("-----END PUBLIC KEY-----")?.trim())?;
    let key = der.strip_prefix(b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\0")?;
    VerifyingKey::from_bytes(key.try_into().ok()?).ok()
}

fn base64(text: &str) -> Option<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |byte| DIGITS.iter().position(|digit| *digit == byte);
    let digits: Vec<_> = text.trim_end_matches('=').bytes().map(digit).collect::<Option<_>>()?;
    let bytes = digits.chunks(4).flat_map(|four| {
        let bits = four.iter().fold(0, |bits, digit| bits << 6 | digit) << (24 - 6 * four.len());
        [bits >> 16, bits >> 8, bits].map(|byte| byte as u8).into_iter().take(four.len() * 3 / 4)
    });
    Some(bytes.collect())
}

/// A little-endian number of so many bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + length)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bad(file: &Path, offset: usize, why: impl ToString) -> Bad {
    Bad { file: file.into(), offset: offset as u64, why: why.to_string() }
}
