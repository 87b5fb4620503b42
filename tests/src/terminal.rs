//! A program on a terminal of its own, as a person would run it: it can be typed to and resized.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process;
use crate::wait::{Level, until};

/// A running program and its terminal.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts `command` on a terminal of this size.
    ///
    /// # Errors
    /// When there is no terminal to have, or the program cannot be started.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Result<Self> {
        let (master, slave) = open(columns, rows).context("open a terminal")?;
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
        // SAFETY: the closure runs between fork and exec and makes system calls only.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = process::spawn(command).context("start a program on a terminal")?;
        let (shown, screen) = (Arc::<Mutex<Vec<u8>>>::default(), File::from(master));
        let keyboard = screen.try_clone()?;
        let seen = Arc::clone(&shown);
        // It ends when the last program on the terminal has gone (EIO).
        std::thread::spawn(move || watch(screen, &seen));
        Ok(Self { keyboard, child, shown })
    }

    /// Types text; `\r` is the Enter key.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn types(&mut self, text: &str) -> Result<()> {
        self.keyboard.write_all(text.as_bytes()).context("type")
    }

    /// Gives the terminal another size; the program gets SIGWINCH.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the pointer is to a live winsize, which TIOCSWINSZ reads.
        let done =
            unsafe { libc::ioctl(self.keyboard.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        if done < 0 { Err(io::Error::last_os_error()).context("resize") } else { Ok(()) }
    }

    /// All that was shown so far.
    #[must_use]
    pub fn shown(&self) -> String {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Waits until the terminal has shown `text`.
    ///
    /// # Errors
    /// When it does not.
    pub async fn shows(&self, text: &str) -> Result<()> {
        until(&format!("the terminal shows {text:?}"), LIMIT, async || {
            let shown = self.shown();
            Ok(Level::when(shown.contains(text), || shown.clone()))
        })
        .await
    }

    /// The program's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the program has ended.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let shown = Arc::clone(&self.shown);
        let child = &mut self.child;
        until("the program on the terminal ends", LIMIT, async || {
            let shown = || {
                let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                String::from_utf8_lossy(&shown).into_owned()
            };
            Ok(child.try_wait()?.map_or_else(|| Level::NotYet(shown()), Level::Reached))
        })
        .await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Errors mean that it is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn open(columns: u16, rows: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut master, mut slave) = (-1, -1);
    // SAFETY: the pointers are to live values; null means no name and no settings.
    let done = unsafe {
        let nothing = std::ptr::null_mut();
        libc::openpty(&raw mut master, &raw mut slave, nothing, nothing.cast(), &raw mut size)
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: openpty has just made both, and nobody else has them.
    let pair = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    // The program must not inherit our end.
    // SAFETY: F_SETFD takes no pointers.
    if unsafe { libc::fcntl(pair.0.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(pair)
}

fn watch(mut screen: File, shown: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(bytes) = screen.read(&mut buffer) {
        if bytes == 0 {
            return;
        }
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.extend_from_slice(&buffer[..bytes]);
    }
}

const LIMIT: Duration = Duration::from_secs(30);
