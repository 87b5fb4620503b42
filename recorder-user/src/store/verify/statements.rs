//! Signed statements: their numbers, and whose signatures they carry.

use super::{Scope, Verifier};
use crate::{
    model::SegmentId,
    store::{
        format::{self, ChainHash, Checkpoint, Mark, Signed, Tombstone},
        queue::chain,
        retention,
        rows::Position,
        scan::RawRecord,
        signing::{self, Endorsement, KeyId, Signature},
    },
};

impl Verifier {
    pub(super) fn seal(
        &mut self,
        at: Position,
        raw: &RawRecord,
        before: Mark,
        v: u16,
    ) -> Result<(), String> {
        let payload = raw.payload().map_err(|error| chain(&error))?;
        let read = format::read_seal(v, &payload).ok_or("the seal is not of the expected form")?;
        let seal = read.seal;
        if (seal.segment, seal.records, seal.bytes, seal.hash) != says(at, before) {
            return Err("the seal's totals are wrong".into());
        }
        match (read.signed, seal.key) {
            (Some((json, signature)), Some(key)) => {
                self.signature(at, (key, signing::SEAL), &json, &signature)
            }
            (None, _) => Ok(()),
            (Some(_), None) => Err("the seal does not say which key signs it".into()),
        }
    }

    pub(super) fn checkpoint(
        &mut self,
        at: Position,
        raw: &RawRecord,
        before: Mark,
    ) -> Result<(), String> {
        let payload = raw.payload().map_err(|error| chain(&error))?;
        let signed = Signed::<Checkpoint>::read(&payload);
        let signed = signed.ok_or("the checkpoint is not of the expected form")?;
        let says_so = &signed.statement;
        let totals = (says_so.segment, says_so.records, says_so.bytes, says_so.hash);
        if totals != says(at, before) {
            return Err("the checkpoint's totals are wrong".into());
        }
        let by = (says_so.key, signing::CHECKPOINT);
        self.signature(at, by, &signed.json, &signed.signature)
    }

    pub(super) fn tombstone(&self, raw: &RawRecord) -> Result<(), String> {
        let payload = raw.payload().map_err(|error| chain(&error))?;
        let signed = Signed::<Tombstone>::read(&payload);
        let signed = signed.ok_or("the tombstone is not of the expected form")?;
        let key = signed.statement.key.ok_or("the tombstone does not say which key signs it")?;
        if !self.report.signatures_checked || retention::is_trusted(&self.trust, &signed) {
            return Ok(());
        }
        Err(match self.trust.key(key) {
            None => format!("it is signed by key {key}, which is not trusted"),
            Some(_) => format!("the signature is not that of key {key}"),
        })
    }

    pub(super) fn key(&mut self, raw: &RawRecord) -> Result<(), String> {
        let payload = raw.payload().map_err(|error| chain(&error))?;
        let endorsement = Endorsement::read(&payload);
        let endorsement = endorsement.ok_or("the key's endorsement is not of the expected form")?;
        if self.trust.endorse(&endorsement) {
            Ok(())
        } else {
            let (id, by) = (endorsement.public.id(), endorsement.by);
            Err(format!("key {by} did not sign the endorsement of key {id}"))
        }
    }

    fn signature(
        &mut self,
        at: Position,
        (key, domain): (KeyId, &str),
        statement: &[u8],
        signature: &Signature,
    ) -> Result<(), String> {
        if !self.report.signatures_checked {
            return Ok(());
        }
        let Some(public) = self.trust.key(key) else {
            return Err(format!("it is signed by key {key}, which is not trusted"));
        };
        if !public.verifies(domain, statement, signature) {
            return Err(format!("the signature is not that of key {key}"));
        }
        self.report.signatures += 1;
        self.report.unsigned_records = 0;
        if matches!(self.scope, Scope::Record(_)) && self.report.found {
            self.report.covered_by.get_or_insert(at);
        }
        Ok(())
    }
}

/// What a signed statement that begins at `at` must say of what comes before it.
const fn says(at: Position, before: Mark) -> (SegmentId, u64, u64, ChainHash) {
    (at.segment, before.records, before.offset, before.hash)
}
