//! Waiting for a level with a deadline: the only way in which the rig waits.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks `ready` until it answers with a value; the last "not yet" is part of the error.
///
/// # Errors
/// When `ready` fails (that is final), or `limit` passes.
pub async fn until<T, F>(what: &str, limit: Duration, mut ready: F) -> Result<T>
where
    F: AsyncFnMut() -> Result<Level<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let reason = match ready().await? {
            Level::Reached(value) => return Ok(value),
            Level::NotYet(reason) => reason,
        };
        if Instant::now() > deadline {
            bail!("{what}: not within {limit:?}: {reason}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether what is waited for is there.
#[derive(Debug)]
pub enum Level<T> {
    /// It is.
    Reached(T),
    /// It is not, and why.
    NotYet(String),
}

impl Level<()> {
    /// Reached when `condition` holds; else `reason`.
    pub fn when(condition: bool, reason: impl FnOnce() -> String) -> Self {
        if condition { Self::Reached(()) } else { Self::NotYet(reason()) }
    }
}

const POLL: Duration = Duration::from_millis(20);
