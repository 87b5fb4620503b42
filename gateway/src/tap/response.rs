//! The response's body on its way to the client. Frames flow on at once; the response's end waits until
//! the outcome is written.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use recorder_user::{
    model::Ending,
    store::{Ack, Recorder},
    wire,
};

use super::{
    Cut, lock, told,
    waiting::{Append, NotRecorded, queue},
};
use crate::{body::BodyError, settle::Exchange};

/// The API server's body, and the exchange that it ends.
pub struct ResponseTap {
    inner: Incoming,
    recorder: Recorder,
    /// Bytes until the declared end; none where the length was not declared.
    left: Option<u64>,
    /// What may end a live stream; none for ordinary calls.
    live: Option<Live>,
    exchange: Option<Box<Exchange>>,
    state: State,
}

/// What a watch or a followed log needs besides its bytes.
pub struct Live {
    cut: Cut,
    /// None for a framing that we do not know: then no event of ours can be added.
    frames: Option<wire::watch::FrameTracker>,
    content_type: Option<String>,
}

impl Live {
    /// For a stream of this content type; `watch` where it is one, not a log.
    #[must_use]
    pub fn new(cut: Cut, watch: bool, content_type: Option<&str>) -> Self {
        let framing = if watch { wire::watch::Framing::of(content_type) } else { None };
        let frames = framing.map(wire::watch::FrameTracker::new);
        Self { cut, frames, content_type: content_type.map(str::to_owned) }
    }

    /// Tells the client why the stream ends.
    fn event(&self, ending: Ending) -> Bytes {
        let (code, reason, message) = told(ending);
        wire::status::error_event(self.content_type.as_deref(), code, reason, message)
    }

    fn at_boundary(&self) -> bool {
        self.frames.as_ref().is_some_and(wire::watch::FrameTracker::at_boundary)
    }
}

enum State {
    Flowing,
    /// The recorder is behind its bound; afterwards this frame goes.
    Waiting(Waiting),
    /// The outcome is being written; afterwards these bytes, the last, go.
    Settling(Ack, Option<Bytes>),
    Done,
}

struct Waiting {
    append: Append,
    data: Bytes,
    /// Whether what went before ended with a frame of the stream, so that an event of ours may follow it.
    rests: bool,
}

impl ResponseTap {
    /// Taps `inner`, the response to `exchange`.
    #[must_use]
    pub fn new(
        inner: Incoming,
        recorder: Recorder,
        live: Option<Live>,
        mut exchange: Box<Exchange>,
    ) -> Self {
        let left = inner.size_hint().exact();
        let mut state = State::Flowing;
        if live.is_some() && exchange.recorded() {
            // A watch may be silent for long: its head is recorded before the first event.
            if let Some(append) = queue(&recorder, exchange.take_pending()) {
                let rests = live.as_ref().is_some_and(Live::at_boundary);
                state = State::Waiting(Waiting { append, data: Bytes::new(), rests });
            }
        }
        Self { inner, recorder, left, live, exchange: Some(exchange), state }
    }

    /// Records a frame; gives it back if it may go at once.
    fn pass(&mut self, data: Bytes, now: Instant) -> Option<Bytes> {
        let rests = self.live.as_ref().is_some_and(Live::at_boundary);
        let Some(exchange) = &mut self.exchange else { return Some(data) };
        let mut records = exchange.take_pending();
        // A frame is one record, as a rule; a Vec that grows by itself would begin with four.
        records.reserve_exact(1);
        let mut shared = lock(exchange.shared());
        shared.observe(|observer| observer.response_chunk(&data));
        if let Some(recording) = &mut shared.response {
            recording.push(&data, now, &mut records);
        }
        drop(shared);
        if let Some(frames) = self.live.as_mut().and_then(|live| live.frames.as_mut()) {
            frames.push(&data);
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(data.len() as u64);
        }
        if self.left == Some(0) || self.inner.is_end_stream() {
            exchange.put_pending(records);
            self.settle(Ending::Finished, Some(data));
            return None;
        }
        if exchange.recorded()
            && let Some(append) = queue(&self.recorder, records)
        {
            self.state = State::Waiting(Waiting { append, data, rests });
            return None;
        }
        Some(data)
    }

    /// Notes whether the API server is waited for.
    fn time<T>(&mut self, polled: &Poll<T>, now: Instant) {
        let Some(exchange) = &mut self.exchange else { return };
        match polled {
            Poll::Pending => exchange.pace.waits(now),
            Poll::Ready(_) => exchange.pace.stop(now),
        }
    }

    /// Notes that the client has a frame to take.
    fn gave(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.pace.gave(Instant::now());
        }
    }

    /// Writes the outcome, then sends `last` and ends.
    fn settle(&mut self, ending: Ending, last: Option<Bytes>) {
        self.state = match self.exchange.take().map(|exchange| exchange.settle(ending)) {
            Some(ack) => State::Settling(ack, last),
            None => State::Done,
        };
    }

    /// Writes the outcome of a body that cannot go on; the client must see a cut, not an end.
    fn abandon(&mut self, ending: Ending, error: BodyError) -> BodyError {
        if let Some(exchange) = self.exchange.take() {
            drop(exchange.settle(ending));
        }
        self.state = State::Done;
        error
    }

    /// Ends a response that cannot be recorded any more: a watch with an event that says so, where its client can
    /// read one, all else with an error.
    fn unrecorded(&mut self, rests: bool, error: NotRecorded) -> Option<BodyError> {
        match self.live.take().filter(|_| rests) {
            Some(live) => {
                self.settle(Ending::RecorderFailed, Some(live.event(Ending::RecorderFailed)));
                None
            }
            None => Some(self.abandon(Ending::RecorderFailed, error.into())),
        }
    }

    /// Ends a live stream in the middle, with a last event where the client can read one.
    fn cut(&mut self, ending: Ending) {
        let live = self.live.take().filter(Live::at_boundary);
        self.settle(ending, live.map(|live| live.event(ending)));
    }
}

impl Drop for ResponseTap {
    fn drop(&mut self) {
        // A frame that waited for room goes unrecorded with the future that held it, and was never passed on:
        // the outcome, which counts it, must not promise that it is on record.
        if matches!(self.state, State::Waiting(..))
            && let Some(exchange) = self.exchange.take()
        {
            drop(exchange.settle(Ending::RecorderFailed));
        }
    }
}

impl http_body::Body for ResponseTap {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let now = Instant::now();
        if let Some(exchange) = &mut this.exchange {
            exchange.pace.asked(now);
        }
        loop {
            match &mut this.state {
                State::Waiting(waiting) => {
                    let kept = ready!(waiting.append.as_mut().poll(cx));
                    let (data, rests) = (std::mem::take(&mut waiting.data), waiting.rests);
                    this.state = State::Flowing;
                    if let Err(error) = kept {
                        if let Some(error) = this.unrecorded(rests, error) {
                            return Poll::Ready(Some(Err(error)));
                        }
                        continue;
                    }
                    if data.is_empty() {
                        continue;
                    }
                    this.gave();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                State::Settling(ack, last) => {
                    let kept = ready!(Pin::new(ack).poll(cx));
                    let last = last.take();
                    this.state = State::Done;
                    if let Err(error) = kept {
                        return Poll::Ready(Some(Err(error.into())));
                    }
                    return Poll::Ready(last.map(|data| Ok(Frame::data(data))));
                }
                State::Done => return Poll::Ready(None),
                State::Flowing => {}
            }
            if let Some(live) = &mut this.live
                && let Poll::Ready(ending) = live.cut.poll(cx)
            {
                this.cut(ending);
                continue;
            }
            let polled = Pin::new(&mut this.inner).poll_frame(cx);
            this.time(&polled, now);
            match ready!(polled) {
                // The API server sends no trailers; one would come after our outcome.
                Some(Ok(frame)) => {
                    let data = frame.into_data().ok().filter(|data| !data.is_empty());
                    if let Some(data) = data.and_then(|data| this.pass(data, now)) {
                        this.gave();
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Some(Err(error)) => {
                    let error = this.abandon(Ending::UpstreamLost, error.into());
                    return Poll::Ready(Some(Err(error)));
                }
                None => this.settle(Ending::Finished, None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
