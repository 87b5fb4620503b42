//! The clock and the waiting of an archiver, so that hours of outage take no time in a test.

use std::time::Duration;

use async_trait::async_trait;
use recorder_user::model::Timestamp;

/// The wall clock, and waiting.
#[async_trait]
pub trait Time: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;

    /// Waits.
    // Cancel-safe: implementations only wait.
    async fn sleep(&self, duration: Duration);
}

/// The system's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemTime;

#[async_trait]
impl Time for SystemTime {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
