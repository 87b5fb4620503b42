//! Where tasks belong: every task of the gateway is spawned on one tracker, which a stop waits for. And when one runs.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

use tokio_util::task::TaskTracker;

/// Lets hyper spawn on our tracker.
#[derive(Clone)]
pub(crate) struct Tasks(pub(crate) TaskTracker);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// Runs `future`, and whenever it is woken, lets those run first that are ready too.
///
/// The streams of an HTTP/2 connection are tasks of their own. Each wakes the connection, which would write what one of
/// them gave it before the next had its turn: a system call and a TLS record for each event of each watch.
pub(crate) async fn after_others<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    let mut stood_back = false;
    poll_fn(move |context| {
        stood_back = !stood_back;
        if stood_back {
            // Who wakes itself while it runs goes to the end of the queue.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        future.as_mut().poll(context)
    })
    .await
}
