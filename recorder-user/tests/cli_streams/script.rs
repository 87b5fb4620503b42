//! Streams that several tests look at.

use recorder_user::model::StreamRequest;
use tempfile::TempDir;

use crate::cli_support::{EXEC, Fixture, Made, Part, alice, opened, said, status, typed};

/// A store with alice's session and these exchanges in it.
pub(crate) fn store(made: impl IntoIterator<Item = Made>) -> TempDir {
    let fixture = Fixture::new();
    fixture.append(vec![opened(1, alice(), Some("fix-123"))]);
    for made in made {
        fixture.append(made.into_records());
    }
    fixture.close()
}

/// The exec `ec01`.
pub(crate) fn made(request: StreamRequest, parts: &[Part]) -> Made {
    Made::new(1, 0, "kubectl exec", "create", EXEC).stream(request, "v5.channel.k8s.io", parts)
}

/// A command that prints, complains, asks, and fails.
pub(crate) fn asking() -> Vec<Part> {
    vec![
        said(20_000, 1, b"checking \xe2\x82"),
        said(30_000, 1, b"\xac\nsecond\r\n"),
        said(31_000, 2, b"warning: \x1b[31mdisk\x1b[0m\n"),
        said(40_000, 1, b"go on? "),
        typed(3_000_000, 0, b"yes\n"),
        said(3_100_000, 1, b"\0\x01\x02\x03\n"),
        said(3_200_000, 2, b"no newline"),
        said(3_210_000, 3, &status(7)),
    ]
}

/// A shell on a terminal of 20 × 4, which becomes 30 × 5.
pub(crate) fn shell() -> Vec<Part> {
    vec![
        typed(10_000, 4, br#"{"Width":20,"Height":4}"#),
        said(20_000, 1, b"$ "),
        typed(500_000, 0, b"ls\r"),
        said(510_000, 1, b"ls\r\n\x1b[1;34mbin\x1b[0m  etc  tm\xc3"),
        said(520_000, 1, b"\xbc\r\n$ "),
        typed(1_500_000, 4, br#"{"Width":30,"Height":5}"#),
        typed(2_000_000, 0, b"progress\r"),
        said(2_010_000, 1, b"progress\r\n 10 %"),
        said(2_020_000, 1, b"\r 50 %"),
        said(2_030_000, 1, b"\r100 %\r\n$ "),
        typed(60_000_000, 0, b"\x04"),
        said(60_010_000, 1, b"exit\r\n"),
        said(60_020_000, 3, &status(0)),
    ]
}
