use proptest::prelude::*;

use super::*;

/// A header block; whatever is not given is zeros.
fn header(path: &[u8], kind: u8, size: &[u8], link: &[u8], magic: &[u8], prefix: &[u8]) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES];
    for (at, field) in
        [(0, path), (124, size), (148, b"        "), (157, link), (257, magic), (345, prefix)]
    {
        block[at..at + field.len()].copy_from_slice(field);
    }
    block[156] = kind;
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

const POSIX: &[u8] = b"ustar\x0000";
const GNU: &[u8] = b"ustar  \0";

fn octal(size: usize) -> Vec<u8> {
    format!("{size:011o}\0").into_bytes()
}

fn padded(content: &[u8]) -> Vec<u8> {
    let mut content = content.to_vec();
    content.resize(content.len().next_multiple_of(BLOCK_BYTES), 0);
    content
}

fn file(path: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(path.as_bytes(), b'0', &octal(content.len()), b"", POSIX, b"");
    bytes.extend(padded(content));
    bytes
}

fn extended(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(b"././@LongLink", kind, &octal(content.len()), b"", GNU, b"");
    bytes.extend(padded(content));
    bytes
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut content = String::new();
    for (key, value) in records {
        let rest = format!(" {key}={value}\n");
        let mut length = rest.len() + 1;
        while length != rest.len() + length.to_string().len() {
            length += 1;
        }
        content += &format!("{length}{rest}");
    }
    extended(b'x', content.as_bytes())
}

fn list(bytes: &[u8], chunk: usize) -> (Vec<Entry>, Result<(), TarError>, bool) {
    let (mut listing, mut entries, mut read) = (Listing::new(), Vec::new(), Ok(()));
    for part in bytes.chunks(chunk) {
        read = listing.push(part, &mut |entry| entries.push(entry));
    }
    (entries, read, listing.is_complete())
}

fn entry(path: &str, size: u64, kind: EntryKind, link: Option<&str>) -> Entry {
    let link = link.map(|link| link.as_bytes().to_vec());
    Entry { path: path.as_bytes().to_vec(), size, kind, link }
}

fn check(bytes: &[u8], expected: &[Entry], outcome: Result<(), TarError>, complete: bool) {
    for chunk in [usize::MAX, 1, 7, 512, 513] {
        let (entries, read, ended) = list(bytes, chunk);
        assert_eq!(entries, expected, "in chunks of {chunk}");
        assert_eq!((read, ended), (outcome, complete), "in chunks of {chunk}");
    }
}

#[test]
fn every_kind_and_every_way_of_naming() {
    let long = "d/".repeat(100) + "file";
    let end = vec![0; 3 * BLOCK_BYTES];
    let bytes = [
        file("etc/passwd", &[b'x'; 1000]),
        file("../../escape", b""),
        header(b"dir/", b'5', &octal(0), b"", POSIX, b""),
        header(b"old-dir/", 0, &octal(0), b"", b"", b""),
        header(b"link", b'2', &octal(99), b"../target", POSIX, b""),
        header(b"same", b'1', &octal(0), b"etc/passwd", POSIX, b""),
        header(b"pipe", b'6', &octal(0), b"", POSIX, b""),
        header(b"name", b'0', &octal(0), b"", POSIX, b"some/prefix"),
        header(b"gnu", b'0', &octal(0), b"", GNU, b"\x01\x02"),
        extended(b'L', format!("{long}\0").as_bytes()),
        extended(b'K', b"far/away\0"),
        header(b"d/d/d", b'2', &octal(0), b"far", GNU, b""),
        pax(&[("path", "päx"), ("size", "3"), ("mtime", "1.5"), ("comment", "a=b\nc")]),
        header(b"short", b'0', &octal(0), b"", POSIX, b""),
        padded(b"abc"),
        extended(b'g', b"52 comment=0123456789012345678901234567890123456789\n"),
        header(b"base256", b'0', &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5], b"", GNU, b""),
        padded(b"12345"),
        end,
        b"whatever".to_vec(),
    ]
    .concat();
    use EntryKind::{Directory, File, HardLink, Other, Symlink};
    let expected = [
        entry("etc/passwd", 1000, File, None),
        entry("../../escape", 0, File, None),
        entry("dir/", 0, Directory, None),
        entry("old-dir/", 0, Directory, None),
        entry("link", 0, Symlink, Some("../target")),
        entry("same", 0, HardLink, Some("etc/passwd")),
        entry("pipe", 0, Other(b'6'), None),
        entry("some/prefix/name", 0, File, None),
        entry("gnu", 0, File, None),
        entry(&long, 0, Symlink, Some("far/away")),
        entry("päx", 3, File, None),
        entry("base256", 5, File, None),
    ];
    check(&bytes, &expected, Ok(()), true);
}

/// What GNU tar and Python's tarfile write.
#[test]
fn archives_of_others() {
    use EntryKind::{Directory, File, HardLink, Symlink};
    let long = "long/".repeat(30) + "name";
    let tree = |directory: &str| {
        vec![
            entry(directory, 0, Directory, None),
            entry("dir/file", 700, File, None),
            entry("dir/link", 0, Symlink, Some("../target")),
            entry("dir/same", 0, HardLink, Some("dir/file")),
        ]
    };
    let named = |mut tree: Vec<Entry>, path: &str| {
        tree.push(entry(path, 4, File, None));
        tree
    };
    let mut pythons = named(tree("dir/"), &long);
    pythons.push(entry("l", 0, Symlink, Some(&"far/".repeat(40))));
    pythons.push(entry("pä☃", 0, File, None));
    let prefixed = "p".repeat(100) + "/" + &"n".repeat(90);
    for (bytes, expected) in [
        (&include_bytes!("golden/gnu-tar.tar")[..], named(tree("dir/"), &long)),
        (include_bytes!("golden/python-gnu.tar"), pythons.clone()),
        (include_bytes!("golden/python-pax.tar"), pythons),
        (include_bytes!("golden/python-ustar.tar"), named(tree("dir/"), &prefixed)),
    ] {
        check(bytes, &expected, Ok(()), true);
    }
}

#[test]
fn what_is_no_tar_stops_with_a_reason() {
    let good = file("a", b"x");
    let first = [entry("a", 1, EntryKind::File, None)];
    let number = |size: &[u8]| header(b"b", b'0', size, b"", POSIX, b"");
    for (bad, reason) in [
        (vec![b'x'; BLOCK_BYTES], TarError::NoHeader),
        ([vec![0; BLOCK_BYTES], file("late", b"")].concat(), TarError::NoHeader),
        (number(b"00000000009\0"), TarError::Number),
        (number(b"-0000000001\0"), TarError::Number),
        (number(&[0xff; 12]), TarError::Number),
        (
            number(&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            TarError::Number,
        ),
        (
            header(b"b", b'x', &octal(EXTENDED_BYTES_MAX + 1), b"", POSIX, b""),
            TarError::ExtendedOverBound,
        ),
        (extended(b'x', b"5 a=b\n"), TarError::Pax),
        (extended(b'x', b"99 a=b\n"), TarError::Pax),
        (extended(b'x', b"0 a=b\n"), TarError::Pax),
        (extended(b'x', b"no length"), TarError::Pax),
        (pax(&[("size", "1e3")]), TarError::Number),
        (pax(&[("size", "9223372036854775808")]), TarError::Number),
        (header(b"b", b'S', &octal(0), b"", GNU, b""), TarError::Sparse),
    ] {
        let bytes = [&good[..], &bad, &good].concat();
        check(&bytes, &first, Err(reason), false);
    }
}

#[test]
fn a_stream_that_is_cut_says_what_is_missing() {
    let bytes = file("big", &[1; 2000]);
    let mut listing = Listing::new();
    let mut sizes = Vec::new();
    listing.push(&bytes[..BLOCK_BYTES + 600], &mut |entry| sizes.push(entry.size)).expect("tar");
    assert_eq!((sizes, listing.missing_bytes()), (vec![2000], 1400));
    assert!(!listing.is_complete());
}

#[test]
fn commands_of_cp() {
    let into = |path: &str| Copied {
        direction: Direction::IntoContainer,
        path: path.into(),
        skipped_bytes: 0,
    };
    let out = |path: &str, skipped_bytes| Copied {
        direction: Direction::OutOfContainer,
        path: path.into(),
        skipped_bytes,
    };
    for (argv, expected) in [
        (&["tar", "cf", "-", "/var/log"][..], Some(out("/var/log", 0))),
        (&["tar", "-xmf", "-", "-C", "/tmp"], Some(into("/tmp"))),
        (&["tar", "xmf", "-", "-C", "/tmp"], Some(into("/tmp"))),
        (&["tar", "-xmf", "-"], Some(into("."))),
        (
            &["tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-", "-C", "/"],
            Some(into("/")),
        ),
        (&["sh", "-c", "tar cf - '/a b' | tail -c+0"], Some(out("/a b", 0))),
        (&["sh", "-c", "tar cf - '/it'\\''s' | tail -c+1025"], Some(out("/it's", 1024))),
        (&["sh", "-c", "tar cf - /plain | tail -c+1"], Some(out("/plain", 0))),
        (&["sh", "-c", "tar cf - /plain | tail -c+x"], None),
        (&["sh", "-c", "tar cf - /etc; id"], None),
        (&["tar", "czf", "-", "/etc"], None),
        (&["tar", "cf", "-", "/a", "/b"], None),
        (&["test", "-d", "/tmp"], None),
        (&["tar"], None),
        (&[], None),
    ] {
        let argv: Vec<String> = argv.iter().map(ToString::to_string).collect();
        assert_eq!(copied(&argv), expected, "{argv:?}");
    }
}

proptest! {
    #[test]
    fn trees_in_every_chunking(
        files in prop::collection::vec(("[a-z/]{1,90}", 0usize..3000), 0..6),
        chunk in 1usize..2000,
    ) {
        let mut bytes: Vec<u8> =
            files.iter().flat_map(|(path, size)| file(path, &vec![0xff; *size])).collect();
        bytes.extend([0; 2 * BLOCK_BYTES]);
        let expected: Vec<_> = files
            .iter()
            .map(|(path, size)| entry(path, *size as u64, EntryKind::File, None))
            .collect();
        prop_assert_eq!(list(&bytes, chunk), (expected, Ok(()), true));
    }

    /// A flipped byte anywhere, or any bytes at all: the same in every chunking, and no panic.
    #[test]
    fn any_bytes_are_safe(at in 0usize..4000, byte in any::<u8>(), noise in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut bytes = [pax(&[("path", "p"), ("size", "600")]), file("x", &[7; 600]), extended(b'L', b"y"), noise].concat();
        let at = at % bytes.len();
        bytes[at] = byte;
        prop_assert_eq!(list(&bytes, 1), list(&bytes, usize::MAX));
    }
}
