//! One recorded stream, read record by record.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    frame::{FrameKind, StreamFrame},
    head::{StreamEnd, StreamHead, is_log},
    sequence::Sequence,
};
use crate::{
    model::{Chunk, Direction, ExchangeSettled, Record},
    store::{ExchangeRow, ReadError, Reader, RecordsOf, RunEnd},
    wire::{
        gzip::{Gunzip, GunzipError},
        stream::{Channel, Side},
    },
};

/// A stream could not be opened for replay.
#[derive(Debug, thiserror::Error)]
pub enum OpenStreamError {
    /// The records could not be read.
    #[error("cannot read the records of the stream")]
    Read(#[from] ReadError),
    /// The exchange is an ordinary request, or the connection was not upgraded.
    #[error("the exchange carried no stream")]
    NotAStream,
    /// The API server's answer is not on record so far.
    #[error("no answer to the request is on record")]
    NotAnswered,
}

/// A recorded stream: what it was, and its frames in time.
pub struct StreamRecording {
    head: StreamHead,
    records: RecordsOf,
    decoding: Decoding,
    /// Frames that are decoded and not yet given: those of one chunk at most.
    ready: VecDeque<StreamFrame>,
    settled: Option<Box<ExchangeSettled>>,
    is_finished: bool,
}

enum Decoding {
    Connection(Box<Sequence>),
    Log(LogBody),
}

impl StreamRecording {
    /// Reads up to the head of the response.
    ///
    /// # Errors
    /// When the records cannot be read, or are not those of a stream.
    pub fn open(reader: &Reader, row: &ExchangeRow) -> Result<Self, OpenStreamError> {
        // Read ahead: it tells the protocol where the head does not.
        let settled = reader.ends_at(row)?.and_then(|ends| ends.settled);
        let facts = settled.and_then(|settled| settled.stream);
        let mut records = reader.records_of(row);
        let mut opened = None;
        for stored in &mut records {
            match stored?.record {
                Record::ExchangeOpened(record) => opened = Some(record),
                Record::ResponseStarted(started) => {
                    let opened = opened.ok_or(OpenStreamError::NotAStream)?;
                    let head = StreamHead::new(&opened, &started, facts.as_ref());
                    let decoding = match Sequence::new(&head) {
                        Some(sequence) => Decoding::Connection(Box::new(sequence)),
                        None if is_log(row) && started.head.status == 200 => {
                            Decoding::Log(LogBody::new(started.head.header("content-encoding")))
                        }
                        None => return Err(OpenStreamError::NotAStream),
                    };
                    let ready = VecDeque::new();
                    return Ok(Self {
                        head,
                        records,
                        decoding,
                        ready,
                        settled: None,
                        is_finished: false,
                    });
                }
                Record::ExchangeSettled(_) => return Err(OpenStreamError::NotAStream),
                _ => {}
            }
        }
        Err(match records.end() {
            RunEnd::Open => OpenStreamError::NotAnswered,
            RunEnd::Settled | RunEnd::GatewayEnded => OpenStreamError::NotAStream,
        })
    }

    /// What it was asked for.
    #[must_use]
    pub const fn head(&self) -> &StreamHead {
        &self.head
    }

    /// The next frame; none at the end, which on a live store may be the end so far.
    ///
    /// # Errors
    /// When the segments cannot be read.
    pub fn next_frame(&mut self) -> Result<Option<StreamFrame>, ReadError> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some(frame));
            }
            let Some(stored) = self.records.next() else {
                if self.records.end() == RunEnd::GatewayEnded {
                    self.finish_once();
                }
                return Ok(self.ready.pop_front());
            };
            match stored?.record {
                Record::Chunk(chunk) => match &mut self.decoding {
                    Decoding::Connection(sequence) => sequence.push(&chunk, &mut self.ready),
                    Decoding::Log(body) => body.push(&chunk, &mut self.ready),
                },
                Record::ExchangeSettled(settled) => {
                    self.settled = Some(settled);
                    self.finish_once();
                }
                _ => {}
            }
        }
    }

    fn finish_once(&mut self) {
        if let Decoding::Connection(sequence) = &mut self.decoding
            && !std::mem::replace(&mut self.is_finished, true)
        {
            sequence.finish(&mut self.ready);
        }
    }

    /// How it ended, as far as it was read.
    #[must_use]
    pub fn end(&self) -> StreamEnd {
        StreamEnd::new(self.settled.as_deref(), self.records.end())
    }
}

/// A log's body: what the containers wrote, without a word on which of their two outputs.
struct LogBody {
    gunzip: Option<Gunzip>,
    next_offset: u64,
    damaged: bool,
}

impl LogBody {
    fn new(encoding: Option<&str>) -> Self {
        let gunzip = matches!(encoding, Some("gzip" | "x-gzip")).then(Gunzip::new);
        Self { gunzip, next_offset: 0, damaged: false }
    }

    fn push(&mut self, chunk: &Chunk, frames: &mut VecDeque<StreamFrame>) {
        if chunk.direction != Direction::Response {
            return;
        }
        let mut push =
            |kind| frames.push_back(StreamFrame { at_us: chunk.at_us, side: Side::Server, kind });
        let (from, to) = (self.next_offset, chunk.offset);
        self.next_offset = to.saturating_add(u64::try_from(chunk.data.len()).unwrap_or(u64::MAX));
        if from != to {
            push(FrameKind::Hole { from, to });
            // Plain text goes on behind a hole; what was packed cannot.
            self.damaged |= self.gunzip.is_some();
        }
        let stdout = |data| FrameKind::Data { channel: Channel::Stdout, data };
        let Some(gunzip) = self.gunzip.as_mut().filter(|_| !self.damaged) else {
            let data = chunk.data.clone();
            push(if self.damaged { FrameKind::Raw(data) } else { stdout(data) });
            return;
        };
        let unpacked = gunzip.push(&chunk.data, |plain| {
            push(stdout(Bytes::copy_from_slice(plain)));
            Ok::<_, GunzipError>(())
        });
        if unpacked.is_err() {
            self.damaged = true;
            let reason = "the gzip stream is damaged";
            push(FrameKind::Undecodable { offset: chunk.offset, reason });
        }
    }
}
