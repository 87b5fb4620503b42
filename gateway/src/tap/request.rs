//! The request's body on its way to the API server. Its last byte goes only when the record of intent
//! and body is as durable as the verb asks.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use recorder_user::{
    model::{ExchangeId, Record, RequestEnded},
    store::{Need, Recorder},
    witness::monotonic_ns,
};
use tokio::sync::oneshot;

use super::{
    RequestCut, Shared, Stopwatch, lock, micros,
    waiting::{Append, append, queue},
};
use crate::body::BodyError;

/// A body that goes to the API server.
pub enum RequestBody {
    /// No bytes, or bytes that are on record already.
    Own(Option<Bytes>),
    /// The client's, through the tap.
    Tapped(Tapped),
}

/// A tap on loan to a connection. When the connection lets go of it before its end, it comes back: the
/// API server may have said that it did not process the request, and then it is sent again.
pub struct Tapped {
    /// Frames that a connection before this one had got.
    again: VecDeque<Bytes>,
    tap: Option<Box<RequestTap>>,
    back: Option<oneshot::Sender<Box<RequestTap>>>,
}

/// Where an unfinished tap comes back.
pub type Returned = oneshot::Receiver<Box<RequestTap>>;

impl RequestBody {
    /// Lends `tap`, after the frames that are to be sent again.
    #[must_use]
    pub fn lend(tap: Box<RequestTap>, again: VecDeque<Bytes>) -> (Self, Returned) {
        let (back, returned) = oneshot::channel();
        (Self::Tapped(Tapped { again, tap: Some(tap), back: Some(back) }), returned)
    }
}

impl Drop for Tapped {
    fn drop(&mut self) {
        let unfinished = self.tap.take().filter(|tap| !matches!(tap.state, State::Done));
        if let (Some(tap), Some(back)) = (unfinished, self.back.take()) {
            // Nobody may wait for it any more.
            drop(back.send(tap));
        }
    }
}

/// Reads the client's body one frame ahead, so that the last is known before it is sent.
pub struct RequestTap {
    inner: Incoming,
    exchange: ExchangeId,
    received: Instant,
    shared: Arc<Mutex<Shared>>,
    recorder: Recorder,
    /// The store's failures before the intent was queued.
    epoch: u64,
    /// How durable the record must be before the last byte goes.
    need: Need,
    held: Option<Bytes>,
    pace: Stopwatch,
    state: State,
}

enum State {
    Reading,
    /// The recorder is behind its bound; afterwards this frame goes.
    Waiting(Append, Option<Bytes>),
    /// Everything is queued; the last frame goes when it is kept.
    Ending(Append, Instant),
    Done,
}

impl RequestTap {
    /// Taps `inner`.
    #[must_use]
    pub fn new(
        inner: Incoming,
        exchange: ExchangeId,
        received: Instant,
        shared: Arc<Mutex<Shared>>,
        recorder: Recorder,
        epoch: u64,
        need: Need,
    ) -> Self {
        Self {
            inner,
            exchange,
            received,
            shared,
            recorder,
            epoch,
            need,
            held: None,
            pace: Stopwatch::default(),
            state: State::Reading,
        }
    }

    /// The frames that a connection has got from this tap; none where they were too many to keep.
    #[must_use]
    pub fn sent(&self) -> Option<VecDeque<Bytes>> {
        lock(&self.shared).sent(self.held.is_some())
    }

    /// Records `data` and holds it back; the frame before it may go.
    fn take(&mut self, data: Bytes) -> Option<Bytes> {
        let mut records = Vec::with_capacity(1);
        let now = Instant::now();
        self.pace.stop(now);
        let mut shared = lock(&self.shared);
        shared.request_pace = self.pace.pace();
        shared.request.push(&data, now, &mut records);
        shared.observe(|observer| observer.request_chunk(&data));
        shared.keep_for_replay(&data);
        drop(shared);
        let before = self.held.replace(data);
        if let Some(append) = queue(&self.recorder, records) {
            self.state = State::Waiting(append, before);
            return None;
        }
        before
    }

    fn end(&mut self) {
        let mut records = Vec::with_capacity(2);
        self.pace.stop(Instant::now());
        let mut shared = lock(&self.shared);
        shared.request_pace = self.pace.pace();
        let body = shared.request.finish(true, &mut records);
        shared.complete_request();
        drop(shared);
        let at_us = micros(self.received.elapsed());
        records.push(Record::RequestEnded(RequestEnded { exchange: self.exchange, at_us, body }));
        let append = append(&self.recorder, records, self.need);
        self.state = State::Ending(append, Instant::now());
    }

    fn fail(&mut self, cut: RequestCut, error: BodyError) -> BodyError {
        self.state = State::Done;
        self.held = None;
        self.pace.stop(Instant::now());
        let mut shared = lock(&self.shared);
        shared.request_pace = self.pace.pace();
        shared.request_cut.get_or_insert(cut);
        drop(shared);
        error
    }

    fn poll_tap(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.pace.asked(Instant::now());
        let polled = self.poll_next(cx);
        if let Poll::Ready(Some(Ok(_))) = &polled
            && !matches!(self.state, State::Done)
        {
            self.pace.gave(Instant::now());
        }
        polled
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            match &mut self.state {
                State::Waiting(append, next) => {
                    let kept = ready!(append.as_mut().poll(cx));
                    let next = next.take();
                    self.state = State::Reading;
                    if let Err(error) = kept {
                        let error = self.fail(RequestCut::Recorder, error.into());
                        return Poll::Ready(Some(Err(error)));
                    }
                    if let Some(next) = next {
                        return Poll::Ready(Some(Ok(next)));
                    }
                }
                State::Ending(append, since) => {
                    let kept = ready!(append.as_mut().poll(cx));
                    let waited_us = micros(since.elapsed());
                    if let Err(error) = kept {
                        let error = self.fail(RequestCut::Recorder, error.into());
                        return Poll::Ready(Some(Err(error)));
                    }
                    if self.recorder.epoch() != self.epoch {
                        let lost = "the store failed meanwhile: the intent may be lost";
                        let error = self.fail(RequestCut::Recorder, lost.into());
                        return Poll::Ready(Some(Err(error)));
                    }
                    let mut shared = lock(&self.shared);
                    shared.open_us += waited_us;
                    shared.handed_ns = Some(monotonic_ns());
                    drop(shared);
                    self.state = State::Done;
                    return Poll::Ready(self.held.take().map(Ok));
                }
                State::Done => return Poll::Ready(None),
                State::Reading => match self.poll_inner(cx) {
                    Poll::Pending => {
                        self.pace.waits(Instant::now());
                        return Poll::Pending;
                    }
                    Poll::Ready(Some(Ok(frame))) => {
                        // Trailers are not passed on: nothing of the Kubernetes API uses them, and
                        // they could carry identity past the head's checks.
                        let data = frame.into_data().ok().filter(|data| !data.is_empty());
                        if let Some(before) = data.and_then(|data| self.take(data)) {
                            return Poll::Ready(Some(Ok(before)));
                        }
                    }
                    Poll::Ready(Some(Err(error))) => {
                        let error = self.fail(RequestCut::Client, error.into());
                        return Poll::Ready(Some(Err(error)));
                    }
                    Poll::Ready(None) => self.end(),
                },
            }
        }
    }

    fn poll_inner(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }
}

impl Drop for RequestTap {
    /// What waited for room when the client left was counted, and is not on record.
    fn drop(&mut self) {
        if matches!(self.state, State::Waiting(..)) {
            lock(&self.shared).request_cut.get_or_insert(RequestCut::Recorder);
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Tapped(Tapped { again, tap, .. }) => match (again.pop_front(), tap) {
                (Some(data), _) => Poll::Ready(Some(Ok(Frame::data(data)))),
                (None, Some(tap)) => {
                    tap.poll_tap(cx).map(|next| next.map(|result| result.map(Frame::data)))
                }
                (None, None) => Poll::Ready(None),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Tapped(Tapped { again, tap, .. }) => {
                again.is_empty() && tap.as_ref().is_none_or(|tap| matches!(tap.state, State::Done))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            // Asked once, before the first frame, to frame the request.
            Self::Tapped(Tapped { again, tap: Some(tap), .. }) if again.is_empty() => {
                tap.inner.size_hint()
            }
            Self::Tapped(_) => SizeHint::default(),
        }
    }
}
