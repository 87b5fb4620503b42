//! Policies for scenarios, and the examples that ship in `deploy/policy`.

use std::path::Path;

use anyhow::{Context as _, Result};

/// Anybody may do anything: the scenario is about something else.
pub const ALLOW_ALL: &str = "@id(\"allow-all\")\npermit(principal, action, resource);\n";

/// The shipped example policies of a set (`access` or `recording`): names and texts.
///
/// # Errors
/// When they cannot be read.
pub fn examples(set: &str) -> Result<Vec<(String, String)>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policy").join(set);
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a UTF-8 name")?;
        Ok((name.to_owned(), std::fs::read_to_string(&path)?))
    };
    let entries = std::fs::read_dir(&directory);
    let entries = entries.with_context(|| format!("read {}", directory.display()))?;
    let mut files: Vec<_> = entries.map(read).collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}
