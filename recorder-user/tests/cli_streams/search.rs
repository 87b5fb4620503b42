//! Execs are found by what they ran.

use crate::{
    cli_support::{EXEC, Made, exchange, exec, recorder, said, status},
    script,
};

fn ran(number: u8, command: &[&str]) -> Made {
    let parts = [said(20_000, 1, b"done"), said(30_000, 3, &status(0))];
    Made::new(number, 0, "kubectl exec", "create", EXEC).stream(
        exec(false, command),
        "v5.channel.k8s.io",
        &parts,
    )
}

#[test]
fn a_part_of_the_command_line_is_enough() {
    let script = format!("{}; rm -rf /data", "echo a step ".repeat(100));
    let store = script::store([
        ran(1, &["ls", "-la", "/tmp"]),
        ran(2, &["sh", "-c", "rm -rf /tmp/cache"]),
        ran(3, &["sh", "-c", &script]),
    ]);
    for (part, expected) in [
        ("rm -rf", &[2, 3][..]),
        ("rm -rf /data", &[3]),
        ("ls", &[1]),
        ("sh -c", &[2, 3]),
        ("kubectl exec", &[1, 2, 3]),
        ("shutdown", &[]),
    ] {
        let ran = recorder(store.path(), &["search", "--command", part, "--json"]);
        let found: Vec<_> = ran.objects().iter().map(|line| line["exchange"].clone()).collect();
        let expected: Vec<_> =
            expected.iter().map(|number| exchange(*number).to_string()).collect();
        assert_eq!(found, expected, "{part}");
    }
    let lines = recorder(store.path(), &["search", "--json"]).objects();
    assert_eq!(lines[1]["commandLine"], "sh -c rm -rf /tmp/cache");
    assert!(lines[1].get("commandLineCut").is_none());
    let cut = lines[2]["commandLine"].as_str().expect("text");
    assert!(cut.starts_with("sh -c echo a step") && cut.ends_with('…'), "{cut}");
    assert_eq!(lines[2]["commandLineCut"], true);
}
