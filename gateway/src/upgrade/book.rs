//! What is kept of an upgraded connection, and what the gateway understands of it while it carries it.

use bytes::Bytes;
use recorder_user::{
    model::{Ending, Record, StreamFacts, StreamKind},
    store::{Ack, Need, Recorder},
    wire::stream::{CommandStatus, Decoder, Event, EventKind, Protocol, Side, StdinMask},
};
use tokio::time::Instant;

use super::flow::Broken;
use crate::{
    settle::Exchange,
    tap::{self, Append, lock},
};

/// What policy says of a stream's record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Keep {
    /// Of stdin only the sizes.
    pub(super) stdin_sizes: bool,
    /// Whether a stream that cannot be decoded is ended.
    pub(super) refuse_undecodable: bool,
}

/// The record of one upgraded connection in the making. Both directions go through it in the order in
/// which the gateway saw their bytes.
pub(super) struct Book {
    exchange: Box<Exchange>,
    recorder: Recorder,
    kind: StreamKind,
    decoder: Decoder,
    /// Takes stdin out of what is stored.
    mask: Option<StdinMask>,
    refuse_undecodable: bool,
    facts: StreamFacts,
    seen: Seen,
}

/// What frames said so far.
struct Seen {
    status: Option<CommandStatus>,
    /// The client said that it is done.
    client_ended: bool,
    undecodable: Option<&'static str>,
    /// The two ends may read some of it in different ways.
    doubtful: bool,
    /// When data last flowed: pings and window updates do not count.
    active: Instant,
    /// In the bytes taken last: the command's end.
    ends: bool,
}

impl Seen {
    fn note(&mut self, event: &Event<'_>) {
        match &event.kind {
            EventKind::Data { .. } | EventKind::Resize { .. } | EventKind::Opened(_) => {
                self.active = Instant::now();
            }
            EventKind::Status(status) => {
                self.status = Some(status.clone());
                self.ends = true;
            }
            EventKind::Ended { .. } if event.side == Side::Client => self.client_ended = true,
            EventKind::Undecodable { reason, .. } => {
                self.undecodable.get_or_insert(reason);
                self.active = Instant::now();
            }
            EventKind::Doubtful { .. } => self.doubtful = true,
            _ => {}
        }
    }
}

impl Book {
    /// For a connection whose ends agreed on what `decoder` decodes.
    #[must_use]
    pub(super) fn new(
        exchange: Box<Exchange>,
        recorder: Recorder,
        kind: StreamKind,
        keep: Keep,
        decoder: Decoder,
        facts: StreamFacts,
    ) -> Self {
        let seen = Seen {
            status: None,
            client_ended: false,
            undecodable: None,
            doubtful: false,
            active: Instant::now(),
            ends: false,
        };
        let mask = keep.stdin_sizes.then(|| StdinMask::new(decoder.agreement()));
        let refuse_undecodable = keep.refuse_undecodable;
        Self { exchange, recorder, kind, decoder, mask, refuse_undecodable, facts, seen }
    }

    /// Queues the record of the 101: a stream may be silent for long.
    pub(super) fn begin(&mut self) {
        let records = self.exchange.take_pending();
        if let Err(records) = self.recorder.try_queue(records) {
            // They go with the first bytes.
            self.exchange.put_pending(records);
        }
    }

    /// When data last flowed.
    pub(super) const fn active(&self) -> Instant {
        self.seen.active
    }

    /// Records bytes of one side; gives what they have to wait for before they are passed on.
    pub(super) fn take(&mut self, side: Side, bytes: &Bytes) -> Result<Option<Append>, Broken> {
        self.seen.ends = false;
        let stored = self.decode(side, bytes);
        let (now, mut records) = (std::time::Instant::now(), self.exchange.take_pending());
        let mut shared = lock(self.exchange.shared());
        match side {
            Side::Client => shared.request.push(&stored, now, &mut records),
            Side::Server => {
                if let Some(response) = &mut shared.response {
                    response.push(&stored, now, &mut records);
                }
            }
        }
        drop(shared);
        if self.refuses() {
            self.exchange.put_pending(records);
            return Err(Broken::Undecodable);
        }
        Ok(self.queue(records))
    }

    /// Whether policy refuses the stream for what was seen of it: a command could be hidden where a server
    /// reads other frames than the decoder.
    pub(super) fn refuses(&self) -> bool {
        self.refuse_undecodable && (self.seen.undecodable.is_some() || self.seen.doubtful)
    }

    /// Looks at bytes of one side; gives them as they may be stored.
    fn decode(&mut self, side: Side, bytes: &Bytes) -> Bytes {
        let seen = &mut self.seen;
        let mut note = |event: Event<'_>| seen.note(&event);
        match &mut self.mask {
            Some(mask) if side == Side::Client => {
                let mut copy = bytes.to_vec();
                mask.push(&mut self.decoder, bytes, &mut copy, &mut note);
                copy.into()
            }
            _ => {
                self.decoder.push(side, bytes, &mut note);
                bytes.clone()
            }
        }
    }

    /// The client learns of a command's end only when everything up to it is written.
    fn queue(&self, records: Vec<Record>) -> Option<Append> {
        if self.seen.ends && !records.is_empty() {
            return Some(tap::append(&self.recorder, records, Need::Written));
        }
        tap::queue(&self.recorder, records)
    }

    /// Whether this side stands between two frames.
    pub(super) fn is_at_boundary(&self, side: Side) -> bool {
        self.decoder.at_boundary(side)
    }

    /// Bytes to the end of this side's frame that is under way; at least one.
    pub(super) fn to_boundary(&self, side: Side) -> usize {
        let bytes = self.decoder.bytes_to_boundary(side).unwrap_or(1);
        usize::try_from(bytes).unwrap_or(usize::MAX).max(1)
    }

    /// Frames that tell the client why its stream is cut; none where its protocol has no place for it.
    pub(super) fn closing(&self, status_json: &[u8], message: &str) -> Option<Vec<u8>> {
        self.decoder.closing(status_json, message)
    }

    /// Whether the API server may end the stream now.
    pub(super) fn may_end(&self) -> bool {
        self.ending(Side::Server, false) == Ending::Finished
    }

    /// How the stream came to its end, when `first` was the first of both ends to go.
    pub(super) fn ending(&self, first: Side, failed: bool) -> Ending {
        let lost = match first {
            Side::Client => Ending::ClientLost,
            Side::Server => Ending::UpstreamLost,
        };
        match self.kind {
            // Without a status nobody knows what became of the command. Before version 4 there is none, and
            // none is seen where frames are not understood.
            StreamKind::Exec | StreamKind::Attach => {
                let told = self.seen.status.is_some();
                let unseen = !self.tells_status() || self.seen.undecodable.is_some();
                let silent = unseen && first == Side::Server && !failed;
                if told || silent { Ending::Finished } else { lost }
            }
            // Only the client ends a port-forward.
            StreamKind::PortForward if self.seen.client_ended || first == Side::Client => {
                Ending::Finished
            }
            StreamKind::PortForward => lost,
            StreamKind::Proxy | StreamKind::Other => {
                if failed && !self.seen.client_ended {
                    lost
                } else {
                    Ending::Finished
                }
            }
        }
    }

    /// Whether a command's end is told in any case: before version 4 success is silence.
    fn tells_status(&self) -> bool {
        match self.decoder.agreement().protocol {
            Protocol::RemoteCommand { version, .. } => version >= 4,
            _ => true,
        }
    }

    /// Queues the outcome, and tells when it is written.
    pub(super) fn settle(mut self, ending: Ending) -> Ack {
        let seen = &mut self.seen;
        self.decoder.finish(&mut |event| seen.note(&event));
        self.facts.stdin_masked_bytes = self.mask.as_ref().map_or(0, StdinMask::masked_bytes);
        if let Some(status) = self.seen.status.take() {
            self.facts.exit_code = status.exit_code;
            self.facts.status = status_text(&status);
        }
        self.facts.undecodable = self.seen.undecodable.map(str::to_owned);
        self.exchange.carried(self.facts);
        self.exchange.settle(ending)
    }
}

fn status_text(status: &CommandStatus) -> String {
    let word = if status.success { "Success" } else { status.reason.as_str() };
    let text = if status.message.is_empty() || status.success {
        word.to_owned()
    } else if word.is_empty() {
        status.message.clone()
    } else {
        format!("{word}: {}", status.message)
    };
    text.chars().take(STATUS_CHARS_MAX).collect()
}

/// Characters of the error channel's last word that the outcome repeats; the stream has all of it.
const STATUS_CHARS_MAX: usize = 256;
