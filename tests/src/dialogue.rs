//! A command that is talked with: what it is told next depends on what it has said.

use std::io::{Read, Write as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::process::{self, Output};
use crate::wait::{Level, until};

/// A running command with pipes to all of its ends; killed when dropped. All that it says is kept.
#[derive(Debug)]
pub struct Dialogue {
    shown: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Listener,
    stderr: Listener,
}

impl Dialogue {
    /// Starts `command`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let shown = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process::spawn(command).with_context(|| format!("start {shown}"))?;
        let stdin = child.stdin.take();
        let stdout = Listener::to(child.stdout.take().expect("piped"));
        let stderr = Listener::to(child.stderr.take().expect("piped"));
        Ok(Self { shown, child, stdin, stdout, stderr })
    }

    /// Tells it something.
    ///
    /// # Errors
    /// When its input is closed.
    pub fn say(&mut self, text: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("its input was ended before")?;
        stdin.write_all(text.as_bytes()).with_context(|| format!("tell {}", self.shown))
    }

    /// Ends its input.
    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Waits until its standard output has `text` in it.
    ///
    /// # Errors
    /// When it ends without having said that, or `limit` passes.
    pub async fn hears(&mut self, text: &str, limit: Duration) -> Result<()> {
        until(&format!("{} says {text:?}", self.shown), limit, async || {
            // In this order: what it says last is heard before its end is seen.
            let ended = self.child.try_wait()?.is_some() && self.stdout.is_finished();
            let heard = self.stdout.text();
            if heard.contains(text) {
                return Ok(Level::Reached(()));
            }
            if ended {
                bail!("{} ended and never said {text:?}: {heard:?}", self.shown);
            }
            Ok(Level::NotYet(format!("{heard:?}, {:?}", self.stderr.text())))
        })
        .await
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When that does not come within `limit`.
    pub async fn end(mut self, limit: Duration) -> Result<Output> {
        let status: ExitStatus = until(&format!("{} ends", self.shown), limit, async || {
            let said = || format!("{:?}, {:?}", self.stdout.text(), self.stderr.text());
            // Another process may still have its pipes: all that it said is there when they are closed.
            let quiet = self.stdout.is_finished() && self.stderr.is_finished();
            Ok(match self.child.try_wait()? {
                Some(status) if quiet => Level::Reached(status),
                _ => Level::NotYet(said()),
            })
        })
        .await?;
        let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
        Ok(Output { code: status.code(), stdout, stderr })
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        // Errors mean that it is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What comes out of a pipe.
#[derive(Debug)]
struct Listener {
    heard: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Listener {
    fn to(mut pipe: impl Read + Send + 'static) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&heard);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            // An error is an end, too.
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                let mut heard = keep.lock().unwrap_or_else(PoisonError::into_inner);
                heard.extend_from_slice(&buffer[..count]);
            }
        });
        Self { heard, thread }
    }

    fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    fn text(&self) -> String {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&heard).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Dialogue {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Dialogue::start(command).unwrap()
    }

    #[tokio::test]
    async fn it_is_told_what_follows_from_what_it_said() {
        let mut dialogue = shell("echo name; read -r name; echo hello $name; cat; exit 3");
        dialogue.hears("name\n", LIMIT).await.unwrap();
        dialogue.say("you\n").unwrap();
        dialogue.hears("hello you\n", LIMIT).await.unwrap();
        dialogue.end_input();
        let output = dialogue.end(LIMIT).await.unwrap();
        assert_eq!((output.code, &*output.stdout), (Some(3), "name\nhello you\n"));
    }

    #[tokio::test]
    async fn an_end_without_the_words_is_an_error() {
        let error = shell("echo other").hears("word", LIMIT).await.unwrap_err();
        assert!(error.to_string().contains("never said"), "{error}");
    }
}
