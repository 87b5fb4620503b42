//! What a configuration may say of the store and its archive.

use std::time::Duration;

use recorder_user::store::{IndexBackend, encryption::KeySource};

use super::{GOOD, Place, check};

#[test]
fn the_index_can_be_kept_in_each_of_its_databases() {
    for backend in IndexBackend::ALL {
        let text =
            GOOD.replacen("directory: data", &format!("directory: data, index: {backend}"), 1);
        let config = Place::new().load(&text).expect("good");
        assert_eq!(config.store.index, backend);
        assert!(config.masked().contains(&format!("index: {backend}")), "{}", config.masked());
    }
    check("directory: data", "directory: data, index: paper", &["store.index: \"paper\" is not"]);
}

#[test]
fn retention_has_rules_or_is_not_there() {
    let with = |retention: &str| format!("store: {{directory: data, retention: {retention}}}");
    let place = Place::new();
    assert_eq!(place.load(GOOD).expect("good").store.retention, None);
    let text = with("{age: 90d, size: 200GiB, bodiesOfReads: 7d}");
    let text = GOOD.replace("store: {directory: data}", &text);
    let config = place.load(&text).expect("good");
    let kept = config.store.retention.expect("asked for");
    let days = |days: u64| Some(Duration::from_secs(days * 24 * 60 * 60));
    assert_eq!((kept.rules.age, kept.rules.bodies_of_reads), (days(90), days(7)));
    assert_eq!((kept.rules.size, kept.rules.reads), (Some(200 << 30), None));
    assert_eq!(kept.interval, Duration::from_secs(3600));
    assert!(config.masked().contains("bodiesOfReads: 7d"), "{}", config.masked());
    for (bad, keys) in [
        ("{}", &["store.retention"][..]),
        ("{interval: 1h}", &["store.retention"]),
        ("{age: forever}", &["store.retention.age"]),
        ("{size: 1KiB, reads: 0s}", &["store.retention.reads", "store.retention.size"]),
    ] {
        check("store: {directory: data}", &with(bad), keys);
    }
}

const ARCHIVE: &str = "store: {directory: data}
archive:
  url: s3://audit/decklog
  endpoint: https://minio.example:9000
  certificateAuthority: ca.crt
  credentials: {accessKeyIdFile: token, secretAccessKeyFile: tls.key}
";

#[cfg(feature = "archive")]
#[test]
fn archives() {
    let place = Place::new();
    let text = GOOD.replace("store: {directory: data}\n", ARCHIVE);
    let archive = place.load(&text).expect("good").archive.expect("an archive");
    assert_eq!(archive.credentials.secret_access_key, place.path("tls.key"));
    assert_eq!(archive.alarm_after, Duration::from_secs(3600));
    assert_eq!(archive.part_bytes, 16 << 20);
    let shown = place.load(&text).expect("good").masked();
    let shown: Vec<_> =
        shown.lines().filter(|line| !line.contains("the platform's roots")).collect();
    let again = place.load(&shown.join("\n")).expect("the effective configuration reads back");
    assert_eq!(again.archive, Some(archive));

    let change = |from: &str, to: &str, expected: &[&str]| {
        check("store: {directory: data}\n", &ARCHIVE.replace(from, to), expected);
    };
    change("s3://audit", "https://audit", &["archive.url"]);
    change("https://minio.example:9000", "https://a:b@minio.example/x", &["archive.endpoint"]);
    change(
        "accessKeyIdFile: token",
        "accessKeyIdFile: absent",
        &["archive.credentials.accessKeyIdFile"],
    );
    change("certificateAuthority: ca.crt", "alarmAfter: 1s", &["archive.alarmAfter"]);
    change("certificateAuthority: ca.crt", "partSize: 1MiB", &["archive.partSize"]);
    change("certificateAuthority: ca.crt", "secretAccessKey: x", &["archive"]);
}

#[cfg(not(feature = "archive"))]
#[test]
fn an_archive_needs_a_gateway_that_has_one() {
    check("store: {directory: data}\n", ARCHIVE, &["archive"]);
}

#[test]
fn encryption_takes_a_file_or_a_command() {
    let with = |encryption: &str| {
        let store = format!("store: {{directory: data, encryption: {encryption}}}");
        let text = GOOD.replacen("store: {directory: data}", &store, 1);
        let place = Place::new();
        let config = place.load(&text).expect(encryption);
        assert!(config.masked().contains("encryption"), "{}", config.masked());
        (place.path("operator.key"), config.store.encryption.expect("asked for"))
    };
    let (file, source) = with("{keyFile: operator.key}");
    assert_eq!(source, KeySource::KeyFile(file));
    let (_, source) = with("{command: [kms, --key, a]}");
    assert_eq!(source, KeySource::Command(vec!["kms".into(), "--key".into(), "a".into()]));
    for bad in ["{}", "{keyFile: ''}", "{command: []}", "{keyFile: a, command: [b]}"] {
        let to = format!("store: {{directory: data, encryption: {bad}}}");
        check("store: {directory: data}", &to, &["store.encryption"]);
    }
}
