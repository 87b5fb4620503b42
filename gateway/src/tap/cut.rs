//! What ends a live stream besides its two ends: the token's expiry, and the gateway's stop.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use recorder_user::model::{Ending, Timestamp};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::bounds::EXPIRY_CHECK;

/// Tells when a live stream must end. Sleeps on the monotonic clock, and looks at the wall clock at
/// least every [`EXPIRY_CHECK`], so that a clock step is noticed.
pub struct Cut {
    expires: Option<Timestamp>,
    sleep: Pin<Box<Sleep>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Cut {
    /// For a stream whose token expires at `expires`.
    #[must_use]
    pub fn new(expires: Option<Timestamp>, stop: &CancellationToken) -> Self {
        Self {
            expires,
            sleep: Box::pin(tokio::time::sleep(wait(expires, Timestamp::now()))),
            stop: Box::pin(stop.clone().cancelled_owned()),
        }
    }

    /// Ready with the reason once the stream must end.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
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

fn wait(expires: Option<Timestamp>, now: Timestamp) -> Duration {
    let left_us = expires.map_or(i64::MAX, |expires| expires.micros_since(now).max(0));
    EXPIRY_CHECK.min(Duration::from_micros(left_us.unsigned_abs()))
}
