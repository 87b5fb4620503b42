//! Where built tools are kept between runs, and the lock that parallel runs take around a build.

use std::fs::{self, File, TryLockError};
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// `${XDG_CACHE_HOME:-~/.cache}/decklog`, made when absent.
///
/// # Errors
/// When neither variable is set or the directory cannot be made.
pub fn directory() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => {
            let home = std::env::var_os("HOME").context("set HOME or XDG_CACHE_HOME")?;
            PathBuf::from(home).join(".cache")
        }
    };
    let directory = base.join("decklog");
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    Ok(directory)
}

/// A lock between processes, released when dropped, or by the kernel when its holder dies.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not used")] File);

/// Takes the lock `name` of the cache and says so when it has to wait.
///
/// # Errors
/// When the lock file cannot be made or locked.
pub fn lock(name: &str) -> Result<Lock> {
    let path = directory()?.join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("rig: waiting for another run that builds {name}");
            file.lock().with_context(|| format!("lock {}", path.display()))?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("lock {}", path.display()));
        }
    }
    Ok(Lock(file))
}

/// A short name for exactly these inputs, so that what was built from others is not mistaken for it.
#[must_use]
pub fn digest(inputs: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new();
    for input in inputs {
        hasher.update(&(input.len() as u64).to_le_bytes());
        hasher.update(input);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_separates_its_inputs() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_eq!(digest(&[b"ab", b"c"]), digest(&[b"ab", b"c"]));
    }
}
