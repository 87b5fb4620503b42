//! An upgraded connection from its 101 to its outcome: both directions, and what may cut them.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::upgrade::{OnUpgrade, Upgraded};
use recorder_user::{model::Ending, wire::stream::Side};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, Sleep, timeout},
};

use super::{
    book::Book,
    flow::{Broken, Flow, Reach},
    forward::Place,
};
use crate::{
    accept::ClientIo,
    bounds::{FAREWELL_TIMEOUT, HALF_CLOSED_TIMEOUT, HEAD_TIMEOUT},
    gateway::Gateway,
    refuse,
    tap::{self, Cut},
    upstream::UpgradeIo,
};

/// How long a stream may be silent, and how long it may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Without data in either direction; pings do not count.
    pub idle: Duration,
    /// In all; none for as long as its ends and the token want.
    pub longest: Option<Duration>,
}

/// What a stream starts from.
pub(super) struct Carried {
    /// The client's side, which becomes a stream once the 101 is written.
    pub(super) client: OnUpgrade,
    /// The API server's side.
    pub(super) upstream: Upgraded,
    /// Its record.
    pub(super) book: Book,
    /// What ends it besides its two ends.
    pub(super) cut: Cut,
    /// How long it may last.
    pub(super) limits: Limits,
    /// Its place among all streams.
    pub(super) place: Place,
}

/// Carries a stream to its end, and settles its exchange.
pub(super) async fn carry(gateway: Arc<Gateway>, carried: Carried) {
    let Carried { client, upstream, mut book, cut, limits, place } = carried;
    let Ok(Ok(client)) = timeout(HEAD_TIMEOUT, client).await else {
        return drop(book.settle(Ending::ClientLost));
    };
    let (Ok(client), Ok(upstream)) =
        (client.downcast::<ClientIo>(), upstream.downcast::<UpgradeIo>())
    else {
        tracing::error!("an upgraded connection is not of the type that was made for it");
        return drop(book.settle(Ending::UpstreamLost));
    };
    let (early, late) = (client.read_buf, upstream.read_buf);
    let mut pair = Pair::new(client.io.into_inner(), upstream.io.into_inner(), cut, limits);
    let started = pair.begin(early, late, &mut book);
    let end = match started {
        Ok(()) => std::future::poll_fn(|cx| pair.poll(cx, &mut book)).await,
        Err(broken) => End::Broken(broken),
    };
    let ending = pair.conclude(end, &mut book).await;
    if let Err(error) = book.settle(ending).await {
        tracing::error!(%error, "outcome of a stream not recorded");
    }
    // Closed only now: the connections' own accounts come after that of their exchange.
    drop(pair);
    drop(place);
    drop(gateway);
}

/// Why a pair stopped.
enum End {
    /// Both directions came to their end; this side's first.
    Both(Side),
    /// One end was silent for too long after the other had ended.
    HalfClosed(Side),
    /// A direction failed.
    Broken(Broken),
    /// The gateway ends the stream.
    Cut(Ending),
}

/// Both connections of a stream.
struct Pair<C, U> {
    client: C,
    upstream: U,
    up: Flow,
    down: Flow,
    cut: Cut,
    limits: Limits,
    begun: Instant,
    timer: Pin<Box<Sleep>>,
    first: Option<Side>,
    /// The API server took no more while it may still have had something to say.
    refused: bool,
    /// Which direction goes first this time: a busy one must not use up the turns of both.
    turn: bool,
}

impl<C, U> Pair<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    fn new(client: C, upstream: U, cut: Cut, limits: Limits) -> Self {
        let begun = Instant::now();
        Self {
            client,
            upstream,
            up: Flow::new(Side::Client),
            down: Flow::new(Side::Server),
            cut,
            limits,
            begun,
            timer: Box::pin(tokio::time::sleep_until(begun)),
            first: None,
            refused: false,
            turn: false,
        }
    }

    /// Takes what came right behind the heads.
    fn begin(
        &mut self,
        early: bytes::Bytes,
        late: bytes::Bytes,
        book: &mut Book,
    ) -> Result<(), Broken> {
        // The head's own record goes with the first bytes, or now.
        book.begin();
        if !early.is_empty() {
            self.up.take(early, book)?;
        }
        if !late.is_empty() {
            self.down.take(late, book)?;
        }
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>, book: &mut Book) -> Poll<End> {
        if let Poll::Ready(ending) = self.cut.poll(cx) {
            return Poll::Ready(End::Cut(ending));
        }
        self.turn = !self.turn;
        for up in [self.turn, !self.turn] {
            let moved =
                if up { self.poll_up(cx, book) } else { self.poll_down(cx, book, Reach::End) };
            let side = if up { Side::Client } else { Side::Server };
            match moved {
                Poll::Ready(Ok(())) => {
                    self.first.get_or_insert(side);
                }
                // What the client still sends after the API server has ended goes nowhere.
                Poll::Ready(Err(Broken::Lost(Side::Server, _))) if self.down.is_done() => {
                    return Poll::Ready(End::Both(Side::Server));
                }
                // A command may end before it has read all of its stdin: what the API server said before
                // it closed, such as the exit code, is still to be read.
                Poll::Ready(Err(Broken::Lost(Side::Server, error))) if up => {
                    tracing::debug!(%error, "the API server takes no more of a stream");
                    self.first.get_or_insert(Side::Server);
                    self.refused = true;
                    self.up.give_up();
                }
                Poll::Ready(Err(broken)) => return Poll::Ready(End::Broken(broken)),
                Poll::Pending => {}
            }
        }
        if let (true, true, Some(first)) = (self.up.is_done(), self.down.is_done(), self.first) {
            return Poll::Ready(End::Both(first));
        }
        self.poll_timer(cx, book)
    }

    fn poll_up(&mut self, cx: &mut Context<'_>, book: &mut Book) -> Poll<Result<(), Broken>> {
        let (reader, writer) = (Pin::new(&mut self.client), Pin::new(&mut self.upstream));
        self.up.poll(cx, reader, writer, book, Reach::End)
    }

    fn poll_down(
        &mut self,
        cx: &mut Context<'_>,
        book: &mut Book,
        reach: Reach,
    ) -> Poll<Result<(), Broken>> {
        let (reader, writer) = (Pin::new(&mut self.upstream), Pin::new(&mut self.client));
        self.down.poll(cx, reader, writer, book, reach)
    }

    /// Looks at the clock when something may be due; bytes do not move the timer, they are compared
    /// with when it fires.
    fn poll_timer(&mut self, cx: &mut Context<'_>, book: &Book) -> Poll<End> {
        loop {
            let half = self.first.map(|first| (book.active() + HALF_CLOSED_TIMEOUT, first));
            let idle = book.active() + self.limits.idle;
            let longest = self.limits.longest.map(|longest| self.begun + longest);
            let limit = longest.map_or(idle, |longest| longest.min(idle));
            let now = Instant::now();
            if let Some((_, first)) = half.filter(|(due, _)| *due <= now) {
                return Poll::Ready(End::HalfClosed(first));
            }
            if limit <= now {
                return Poll::Ready(End::Cut(Ending::LimitReached));
            }
            let due = half.map_or(limit, |(due, _)| due.min(limit));
            if self.timer.deadline() > due || self.timer.is_elapsed() {
                self.timer.as_mut().reset(due);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// The last words to both ends, and how it ended.
    async fn conclude(&mut self, end: End, book: &mut Book) -> Ending {
        let ending = match end {
            End::Both(first) | End::HalfClosed(first) => book.ending(first, self.refused),
            End::Broken(Broken::Lost(side, error)) => {
                tracing::debug!(?side, %error, "a stream's end was lost");
                // Who ended in order before is who ended it.
                let first = self.first.map(|first| (first, self.refused));
                let (first, failed) = first.unwrap_or((side, true));
                book.ending(first, failed)
            }
            End::Broken(Broken::Recorder(why)) => {
                tracing::error!(why, "a stream is cut: it cannot be recorded");
                Ending::RecorderFailed
            }
            End::Broken(Broken::Undecodable) => Ending::GrantEnded,
            End::Cut(ending) => ending,
        };
        if !matches!(ending, Ending::Finished | Ending::ClientLost) {
            // A client that reads slowly, or has gone, does not keep the stream alive.
            drop(timeout(FAREWELL_TIMEOUT, self.farewell(ending, book)).await);
        }
        // Whoever is still there sees an orderly end.
        drop(timeout(FAREWELL_TIMEOUT, self.close()).await);
        // The outcome counts and hashes what was read, so all of that must be on record before it.
        for flow in [&mut self.up, &mut self.down] {
            if flow.recorded().await.is_err() {
                return Ending::RecorderFailed;
            }
        }
        ending
    }

    /// Tells the client why, where its protocol has a place for it: behind the frame under way.
    async fn farewell(&mut self, ending: Ending, book: &mut Book) {
        if ending != Ending::RecorderFailed {
            let whole = std::future::poll_fn(|cx| self.poll_down(cx, book, Reach::Frame)).await;
            if whole.is_err() || self.down.is_done() {
                return;
            }
        } else if !book.is_at_boundary(Side::Server) || !self.down.take_back() {
            return;
        }
        let (code, reason, mut message) = tap::told(ending);
        if book.refuses() {
            message = "policy refuses a stream that cannot be decoded";
        }
        let status = refuse::status_json(code, reason, message);
        let Some(frames) = book.closing(status.as_bytes(), message) else { return };
        // Whether it still hears it changes nothing.
        drop(self.client.write_all(&frames).await);
    }

    async fn close(&mut self) {
        let (client, upstream) = (self.client.shutdown(), self.upstream.shutdown());
        // Whether they still hear it changes nothing.
        drop(tokio::join!(client, upstream));
        // Closing with unread bytes would reset the connection under what the client was told last.
        let mut unread = [0; 1024];
        while self.client.read(&mut unread).await.is_ok_and(|bytes| bytes > 0) {}
    }
}
