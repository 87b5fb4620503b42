//! The eBPF object: embedded in the build, or a file named at run time.

use std::{
    borrow::Cow,
    fs, io,
    path::{Path, PathBuf},
};

#[cfg(ebpf_object)]
const EMBEDDED: Option<&[u8]> =
    Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/recorder-probe.bpf.o")));
#[cfg(not(ebpf_object))]
const EMBEDDED: Option<&[u8]> = None;

/// There are no programs to load.
#[derive(Debug, thiserror::Error)]
pub enum FindObjectError {
    /// This build has none.
    #[error("no eBPF object in this build: run `cargo xtask build-ebpf` and build again")]
    NotEmbedded,
    /// The file named at run time could not be read.
    #[error("cannot read the eBPF object {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// The object: `path` wins over what is embedded.
pub(super) fn find(path: Option<&Path>) -> Result<Cow<'static, [u8]>, FindObjectError> {
    choose(path, EMBEDDED)
}

fn choose(
    path: Option<&Path>,
    embedded: Option<&'static [u8]>,
) -> Result<Cow<'static, [u8]>, FindObjectError> {
    match (path, embedded) {
        (Some(path), _) => match fs::read(path) {
            Ok(bytes) => Ok(bytes.into()),
            Err(source) => Err(FindObjectError::Read { path: path.to_owned(), source }),
        },
        (None, Some(bytes)) => Ok(bytes.into()),
        (None, None) => Err(FindObjectError::NotEmbedded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_wins_and_absence_says_what_to_run() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        fs::write(file.path(), b"theirs").expect("write it");
        assert_eq!(&*choose(Some(file.path()), Some(b"ours")).expect("file"), b"theirs");
        assert_eq!(&*choose(None, Some(b"ours")).expect("embedded"), b"ours");
        let missing = choose(None, None).expect_err("nothing there");
        assert!(missing.to_string().contains("cargo xtask build-ebpf"), "{missing}");
        assert!(choose(Some(Path::new("/nonexistent/object")), Some(b"ours")).is_err());
    }
}
