//! Where tasks belong: every task of the gateway is spawned on one tracker, which a stop waits for.

use std::future::Future;

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
