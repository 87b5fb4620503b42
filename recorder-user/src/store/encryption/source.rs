//! The operator's key: in a file, or with a key management service that a command asks.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{EncryptionError, KEY_BYTES, Key, STORE, failed};

/// Where the operator's key is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeySource {
    /// A file of 32 bytes that only its owner can read.
    KeyFile(PathBuf),
    /// A command that is run with `wrap` or `unwrap` as its last argument, gets base64 on its standard input
    /// and gives base64 on its standard output, within 30 s.
    Command(Vec<String>),
}

impl KeySource {
    pub(super) fn wrap(&self, key: &Key) -> Result<Vec<u8>, EncryptionError> {
        match self {
            Self::KeyFile(path) => key.wrapped(&read_key(path)?, STORE),
            Self::Command(command) => ask(command, "wrap", &key.0),
        }
    }

    pub(super) fn unwrap(&self, wrapped: &[u8]) -> Result<Key, EncryptionError> {
        match self {
            Self::KeyFile(path) => Key::unwrap(wrapped, &read_key(path)?, STORE),
            Self::Command(command) => {
                let key = ask(command, "unwrap", wrapped)?;
                key.try_into().map(Key).map_err(|_| EncryptionError::WrongKey)
            }
        }
    }
}

fn read_key(path: &PathBuf) -> Result<Key, EncryptionError> {
    let bytes = fs::read(path).map_err(failed("read", path))?;
    let mode = fs::metadata(path).map_err(failed("read", path))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(EncryptionError::Open { path: path.clone() });
    }
    let what = "a key of 32 bytes (head -c 32 /dev/urandom > FILE)";
    let bad = |_| EncryptionError::Bad { path: path.clone(), what };
    <[u8; KEY_BYTES]>::try_from(bytes).map(Key).map_err(bad)
}

fn ask(command: &[String], what: &'static str, bytes: &[u8]) -> Result<Vec<u8>, EncryptionError> {
    let program = command.first().cloned().unwrap_or_default();
    let failed = |why: String| EncryptionError::Command { command: program.clone(), what, why };
    let mut child = Command::new(&program)
        .args(command.iter().skip(1))
        .arg(what)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let given = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| writeln!(stdin, "{}", BASE64_STANDARD.encode(bytes)));
    let answer = child.stdout.take().map(|stdout| {
        thread::spawn(move || {
            let mut text = String::new();
            stdout.take(ANSWER_BYTES_MAX).read_to_string(&mut text).map(|_| text)
        })
    });
    let exited = wait(&mut child).map_err(failed)?;
    if !exited {
        return Err(failed("it exited with an error".into()));
    }
    // One that does not read all of its input may have the answer all the same.
    let given = given.or_else(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    });
    given.map_err(|error| failed(error.to_string()))?;
    let text = answer.and_then(|answer| answer.join().ok()?.ok()).unwrap_or_default();
    BASE64_STANDARD.decode(text.trim()).map_err(|_| failed("its answer is not base64".into()))
}

/// Whether it ended well; it is ended when it takes too long.
fn wait(child: &mut Child) -> Result<bool, String> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.success()),
            Ok(None) if Instant::now() < give_up => thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                drop(child.kill());
                drop(child.wait());
                return Err(format!("it took longer than {} s", PATIENCE.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
/// A longer answer is no wrapped key.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
