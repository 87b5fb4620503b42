//! What streams carry that is no program's output: files of a copy, forwarded connections.

use recorder_user::model::StreamKind;

use crate::{
    cli_support::{Made, exec, recorder, said, status, typed},
    script::{made, store},
};

/// A tar stream with a directory, a file and a link (POSIX ustar).
fn tar() -> Vec<u8> {
    let entry = |path: &str, kind: u8, link: &str, content: &[u8]| {
        let mut block = vec![0; 512];
        block[..path.len()].copy_from_slice(path.as_bytes());
        block[100..108].copy_from_slice(b"0000644\0");
        block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link.as_bytes());
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.extend_from_slice(content);
        block.resize(block.len().next_multiple_of(512), 0);
        block
    };
    let mut tar = entry("srv/", b'5', "", b"");
    tar.extend(entry("srv/../../etc/passwd", b'0', "", &[b'x'; 1500]));
    tar.extend(entry("srv/link\u{1b}[2J", b'2', "index.html", b""));
    tar.resize(tar.len() + 1024, 0);
    tar
}

#[test]
fn a_copy_is_told_by_its_files() {
    let tar = tar();
    let parts: Vec<_> = tar
        .chunks(700)
        .zip(1..)
        .map(|(piece, n)| typed(n * 10_000, 0, piece))
        .chain([said(900_000, 2, b"tar: removing leading\n"), said(910_000, 3, &status(0))])
        .collect();
    let request = exec(false, &["tar", "-xmf", "-", "-C", "/srv"]);
    let store = store([made(request, &parts)]);
    let ran = recorder(store.path(), &["replay", "ec01"]);
    let (_, told) = ran.out.split_once("\n\n").expect("a header");
    assert_eq!(
        format!("\n{told}"),
        "
 00:00.010   directory  srv/
 00:00.020     1.4 KiB  srv/../../etc/passwd
 00:00.050     symlink  srv/link\\u{1b}[2J to index.html
 00:00.900  stderr  tar: removing leading
 kubectl cp into /srv: 3 entries, 1.4 KiB

00:00.910  exit code 0
  stdin    4.0 KiB in 6 frames
  stderr   22 B in 1 frame
"
    );
    let shown = recorder(store.path(), &["show", "ec01", "--json"]).objects().remove(0);
    let copied = &shown["stream"]["copied"];
    assert_eq!((&copied["way"], &copied["path"]), (&"into".into(), &"/srv".into()));
    assert_eq!(copied["files"][1]["path"], "srv/../../etc/passwd");
    assert_eq!((&copied["files"][1]["bytes"], &copied["complete"]), (&1500.into(), &true.into()));
    let ran = recorder(store.path(), &["show", "ec01"]);
    assert!(ran.out.contains("\n   1.4 KiB  srv/../../etc/passwd\n"), "{}", ran.out);
    let ran = recorder(store.path(), &["replay", "a501"]);
    let line = "exec tar -xmf - -C /srv in container app (kubectl cp into /srv); see it with";
    assert!(ran.out.contains(line), "{}", ran.out);
}

#[test]
fn a_port_forward_is_told_by_connection() {
    let mut request = exec(false, &[]);
    request.kind = StreamKind::PortForward;
    request.ports = vec![8080, 9090];
    let parts = [
        said(5_000, 0, &8080_u16.to_le_bytes()),
        said(5_000, 1, &8080_u16.to_le_bytes()),
        said(6_000, 2, &9090_u16.to_le_bytes()),
        said(6_000, 3, &9090_u16.to_le_bytes()),
        typed(10_000, 0, b"GET / HTTP/1.0\r\n\r\n"),
        said(20_000, 0, &[b'x'; 5000]),
        said(30_000, 3, b"connection refused"),
    ];
    let target = "/api/v1/namespaces/shop/pods/web-0/portforward?ports=8080&ports=9090";
    let made = Made::new(1, 0, "kubectl port-forward", "create", target)
        .stream(request, "v4.channel.k8s.io", &parts)
        .settled(|settled| settled.stream.as_mut().expect("a stream").exit_code = None);
    let store = store([made]);
    let ran = recorder(store.path(), &["replay", "ec01"]);
    let (_, told) = ran.out.split_once("\n\n").expect("a header");
    assert!(told.contains("#0 to port 8080  opened"), "{told}");
    assert!(told.contains("#1 to port 9090  error: connection refused"), "{told}");
    let row: Vec<_> = told
        .lines()
        .find(|line| line.starts_with("#0 "))
        .expect("a row")
        .split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .collect();
    assert_eq!(row[..2], ["#0", "8080"]);
    assert_eq!(row[3..], ["00:00.020", "18 B", "4.8 KiB", "open at the end"], "{told}");
    let shown = recorder(store.path(), &["show", "ec01", "--json"]).objects().remove(0);
    let second = &shown["stream"]["connections"][1];
    assert_eq!((&second["port"], &second["error"]), (&9090.into(), &"connection refused".into()));
    let raw = recorder(store.path(), &["export", "ec01", "--format", "raw"]);
    assert!(raw.code == 2 && raw.err.contains("of kind portforward"), "{}", raw.err);
}
