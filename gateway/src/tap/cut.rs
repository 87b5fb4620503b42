//! What ends a live stream besides its two ends: the token's expiry, the gateway's stop, and whatever
//! [`crate::live`] says.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use atomic_waker::AtomicWaker;
use recorder_user::model::{Ending, Timestamp};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{bounds::EXPIRY_CHECK, live::LiveGuard};

/// Tells when a live stream must end. Sleeps on the monotonic clock, and looks at the wall clock at
/// least every [`EXPIRY_CHECK`], so that a clock step is noticed.
///
/// It is polled with every frame of the stream, and hardly ever has anything to say: what it waits for is asked
/// only after a wake-up of its own.
pub struct Cut {
    sources: Sources,
    alarm: Arc<Alarm>,
    /// Wakes the alarm.
    waker: Waker,
}

struct Sources {
    expires: Option<Timestamp>,
    sleep: Pin<Box<Sleep>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    guard: LiveGuard,
}

/// Whether one of the sources has something to say, and whose task it is.
struct Alarm {
    rang: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl Cut {
    /// For a stream whose token expires at `expires` and that is registered as live.
    #[must_use]
    pub fn new(expires: Option<Timestamp>, stop: &CancellationToken, guard: LiveGuard) -> Self {
        let sources = Sources {
            expires,
            sleep: Box::pin(tokio::time::sleep(wait(expires, Timestamp::now()))),
            stop: Box::pin(stop.clone().cancelled_owned()),
            guard,
        };
        // As if it had rung: nobody has asked the sources yet.
        let alarm = Arc::new(Alarm { rang: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { sources, waker: Waker::from(Arc::clone(&alarm)), alarm }
    }

    /// Ready with the reason once the stream must end.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        self.alarm.task.register(cx.waker());
        if !self.alarm.rang.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let ending = self.sources.poll(&mut Context::from_waker(&self.waker));
        if ending.is_ready() {
            // The answer stays the same, however often it is asked for.
            self.alarm.rang.store(true, Ordering::Release);
        }
        ending
    }
}

impl Sources {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        if let Poll::Ready(ending) = self.guard.poll_ended(cx) {
            return Poll::Ready(ending);
        }
        if self.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ending::GatewayStopped);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = Timestamp::now();
            if self.expires.is_some_and(|expires| now >= expires) {
                return Poll::Ready(Ending::TokenExpired);
            }
            self.sleep.as_mut().reset(Instant::now() + wait(self.expires, now));
        }
        Poll::Pending
    }
}

/// HTTP status, `Status` reason and message that tell a client why its live stream was ended.
#[must_use]
pub const fn told(ending: Ending) -> (u16, &'static str, &'static str) {
    match ending {
        Ending::TokenExpired => (401, "Unauthorized", "the token expired: log in again"),
        Ending::TokenRevoked => {
            (401, "Unauthorized", "the token's issuer withdrew its key: log in again")
        }
        Ending::GrantEnded => (403, "Forbidden", "policy does not permit this any more"),
        Ending::Killed => (403, "Forbidden", "an operator of the gateway killed the session"),
        Ending::LimitReached => {
            (408, "Timeout", "the stream was idle or lasted longer than the gateway allows")
        }
        Ending::RecorderFailed => {
            (503, "ServiceUnavailable", "the gateway cannot record any more: try again later")
        }
        Ending::UpstreamLost => {
            (503, "ServiceUnavailable", "the API server left before the stream's end")
        }
        Ending::GatewayStopped | Ending::Finished | Ending::ClientLost => {
            (503, "ServiceUnavailable", "the gateway is stopping: connect again")
        }
    }
}

fn wait(expires: Option<Timestamp>, now: Timestamp) -> Duration {
    let left_us = expires.map_or(i64::MAX, |expires| expires.micros_since(now).max(0));
    EXPIRY_CHECK.min(Duration::from_micros(left_us.unsigned_abs()))
}
