//! What somebody can do to a store who can write its files, knows the format, and has no private key.

use std::{fs, path::Path};

/// One record of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) payload: Vec<u8>,
    /// The digest of what stood here, where a stub is put.
    pub(super) digest: Option<[u8; 32]>,
}

/// A segment in pieces.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) version: u16,
    pub(super) header: String,
    pub(super) pieces: Vec<Piece>,
}

pub(super) const CHECKPOINT: u16 = 64;
pub(super) const SEAL: u16 = 65;
pub(super) const KEY: u16 = 67;
pub(super) const STUB: u16 = 16;

impl Piece {
    pub(super) fn new(kind: u16, payload: Vec<u8>) -> Self {
        Self { kind, flags: 0, payload, digest: None }
    }

    pub(super) fn is_statement(&self) -> bool {
        matches!(self.kind, CHECKPOINT | SEAL)
    }

    /// What a record without its hash looks like.
    fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("small").to_le_bytes();
        let rest =
            [&self.kind.to_le_bytes()[..], &self.flags.to_le_bytes(), &self.payload].concat();
        [&length[..], &crc32c::crc32c(&rest).to_le_bytes(), &rest].concat()
    }

    /// Takes the record out and leaves its digest, as if it had been deleted.
    pub(super) fn stub(&mut self) {
        let digest = *blake3::hash(&self.bytes()).as_bytes();
        self.payload.fill(0);
        self.payload.resize(self.payload.len().max(32), 0);
        self.payload[..32].copy_from_slice(&digest);
        self.flags |= STUB;
        self.digest = Some(digest);
    }
}

impl Segment {
    pub(super) fn read(path: &Path) -> Self {
        let bytes = fs::read(path).expect("readable");
        let number = |at: usize| {
            usize::try_from(u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")))
                .expect("small")
        };
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        let mut at = 14 + number(10);
        let header = String::from_utf8(bytes[14..at].to_vec()).expect("JSON");
        at += 4;
        let mut pieces = Vec::new();
        while at < bytes.len() {
            let length = number(at);
            let two = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let payload = bytes[at + 12..at + 12 + length].to_vec();
            let (kind, flags) = (two(at + 8), two(at + 10));
            pieces.push(Piece { kind, flags, payload, digest: None });
            at += 12 + length + 32;
        }
        Self { version, header, pieces }
    }

    /// The file with every checksum and the whole chain made anew, and where its records begin.
    pub(super) fn forge(&self) -> (Vec<u8>, Vec<usize>) {
        let length = u32::try_from(self.header.len()).expect("small").to_le_bytes();
        let version = self.version.to_le_bytes();
        let mut file = [&b"DECKLOG\0"[..], &version, &length, self.header.as_bytes()].concat();
        file.extend_from_slice(&crc32c::crc32c(&file).to_le_bytes());
        let mut hash = *blake3::hash(&file).as_bytes();
        let mut begins = Vec::new();
        for piece in &self.pieces {
            begins.push(file.len());
            let bytes = piece.bytes();
            let digest = piece.digest.unwrap_or(*blake3::hash(&bytes).as_bytes());
            let linked = if self.version == 1 { &bytes[..] } else { &digest };
            hash = *blake3::hash(&[&hash[..], linked].concat()).as_bytes();
            file.extend_from_slice(&bytes);
            file.extend_from_slice(&hash);
        }
        begins.push(file.len());
        (file, begins)
    }

    /// Where a change of the piece at `index` is told at the latest: by the next statement, which speaks of
    /// another chain, or by the next segment.
    pub(super) fn told_at(&self, index: usize) -> u64 {
        let (_, begins) = self.forge();
        let statement = (index..self.pieces.len()).find(|i| self.pieces[*i].is_statement());
        begins[statement.unwrap_or(self.pieces.len())] as u64
    }

    /// Takes away every statement from here on.
    pub(super) fn strip_signatures(&mut self, from: usize) {
        let mut index = 0;
        self.pieces.retain(|piece| {
            index += 1;
            index <= from || !piece.is_statement()
        });
    }

    /// Signs every statement from here on anew, true to the forged chain, with a key that nobody trusts.
    pub(super) fn sign_anew(&mut self, from: usize, key: &ed25519_dalek::SigningKey) {
        let id = self.header.split("\"segment\":\"").nth(1).expect("an id")[..32].to_owned();
        for index in from..self.pieces.len() {
            if !self.pieces[index].is_statement() {
                continue;
            }
            let before = Self { pieces: self.pieces[..index].to_vec(), ..self.clone() };
            let (file, _) = before.forge();
            let hash = hex(&file[file.len() - 32..]);
            let key_id = hex(&blake3::hash(key.verifying_key().as_bytes()).as_bytes()[..8]);
            let (why, word) = match self.pieces[index].kind {
                SEAL => (r#""by":"close","#, "decklog seal 2\n"),
                _ => ("", "decklog checkpoint 2\n"),
            };
            let json = format!(
                r#"{{"segment":"{id}","time":"2026-09-21T14:13:20.000000Z",{why}"records":{index},"bytes":{},"hash":"{hash}","key":"{key_id}"}}"#,
                file.len(),
            );
            self.pieces[index].payload = signed(key, word, &json);
        }
    }

    /// The segment as if it had been written before anything was signed.
    pub(super) fn downgrade(&mut self) {
        self.version = 1;
        let at = self.header.find("\"key\":\"").expect("a key") + 7;
        self.header.replace_range(at..at + 16, "");
        self.pieces.retain(|piece| !piece.is_statement() && piece.kind != KEY);
    }
}

/// A signature and what it is of.
pub(super) fn signed(key: &ed25519_dalek::SigningKey, word: &str, json: &str) -> Vec<u8> {
    use ed25519_dalek::Signer as _;
    let signature = key.sign(&[word.as_bytes(), json.as_bytes()].concat());
    [&signature.to_bytes()[..], json.as_bytes()].concat()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
