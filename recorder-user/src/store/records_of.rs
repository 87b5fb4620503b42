//! The records of one exchange, however many there are.

use super::{
    reader::{ReadError, Records, StoredRecord},
    scan::ScanError,
};
use crate::model::{ExchangeId, Record};

/// Goes through the records of one exchange, in the order in which they were written.
pub struct RecordsOf {
    records: Records,
    exchange: ExchangeId,
    /// The gateway's orderly stop was read: what follows it is all that may still come.
    stopped: bool,
    end: RunEnd,
}

/// Whether more records of an exchange can come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// They can.
    Open,
    /// Its outcome was read.
    Settled,
    /// The gateway that wrote it ended without recording an outcome.
    GatewayEnded,
}

impl RecordsOf {
    pub(super) fn new(records: Records, exchange: ExchangeId) -> Self {
        Self { records, exchange, stopped: false, end: RunEnd::Open }
    }

    /// Whether more can come.
    #[must_use]
    pub const fn end(&self) -> RunEnd {
        self.end
    }
}

impl Iterator for RecordsOf {
    type Item = Result<StoredRecord, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.end != RunEnd::Open {
            return None;
        }
        loop {
            let Some(next) = self.records.next() else {
                if self.stopped {
                    self.end = RunEnd::GatewayEnded;
                }
                return None;
            };
            let stored = match next {
                Ok(stored) => stored,
                // Damage elsewhere does not hide what is still there.
                Err(ReadError::Scan(ScanError::Record { .. } | ScanError::Header { .. })) => {
                    continue;
                }
                Err(ReadError::Payload { .. }) => continue,
                Err(error) => return Some(Err(error)),
            };
            match stored.record {
                // Exchanges of an earlier run get no more records.
                Record::GatewayStarted(_) => {
                    self.end = RunEnd::GatewayEnded;
                    return None;
                }
                Record::GatewayStopped(_) => self.stopped = true,
                _ => {}
            }
            if stored.record.exchange() == Some(self.exchange) {
                if matches!(stored.record, Record::ExchangeSettled(_)) {
                    self.end = RunEnd::Settled;
                }
                return Some(Ok(stored));
            }
        }
    }
}
