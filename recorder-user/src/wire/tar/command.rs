//! The commands that `kubectl cp` executes (kubectl `pkg/cmd/cp/cp.go`, 1.27 to 1.36).

/// Which way files go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Into the container: the tar stream is stdin.
    IntoContainer,
    /// Out of the container: the tar stream is stdout.
    OutOfContainer,
}

/// What a command copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Which way.
    pub direction: Direction,
    /// In the container: the directory into which entries go, or the file or directory that is read.
    pub path: String,
    /// Bytes of the tar stream that are left out at its beginning: not 0 where `--retries` resumes. A
    /// [`super::Listing`] reads only streams that begin at their beginning.
    pub skipped_bytes: u64,
}

/// Whether an argument vector is one that `kubectl cp` executes. People may type the same.
#[must_use]
pub fn copied(argv: &[String]) -> Option<Copied> {
    let words: Vec<&str> = argv.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["tar", "cf" | "-cf", "-", path] => Some(Copied::out_of(path, 0)),
        ["sh", "-c", script] => resumed(script),
        ["tar", "--no-same-permissions", "--no-same-owner", rest @ ..] | ["tar", rest @ ..] => {
            into(rest)
        }
        _ => None,
    }
}

impl Copied {
    fn out_of(path: &str, skipped_bytes: u64) -> Self {
        Self { direction: Direction::OutOfContainer, path: path.to_owned(), skipped_bytes }
    }
}

fn into(words: &[&str]) -> Option<Copied> {
    let path = match words {
        ["xmf" | "-xmf" | "xf" | "-xf", "-"] => ".",
        ["xmf" | "-xmf" | "xf" | "-xf", "-", "-C", path] => path,
        _ => return None,
    };
    Some(Copied { direction: Direction::IntoContainer, path: path.to_owned(), skipped_bytes: 0 })
}

/// With `--retries`: `tar cf - 'PATH' | tail -c+N`, where N counts from 1 and 0 means the same. Older kubectl
/// does not quote the path.
fn resumed(script: &str) -> Option<Copied> {
    let (path, from) = script.strip_prefix("tar cf - ")?.rsplit_once(" | tail -c+")?;
    let from: u64 = from.parse().ok()?;
    let quoted = path.strip_prefix('\'').and_then(|path| path.strip_suffix('\''));
    let path = match quoted {
        Some(path) => path.replace("'\\''", "'"),
        None => path.to_owned(),
    };
    Some(Copied::out_of(&path, from.saturating_sub(1)))
}
