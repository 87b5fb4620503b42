//! The same answers from the local store, the archive, and both; and nothing that writes.

#[path = "../../archive/tests/suite/records.rs"]
#[expect(dead_code, reason = "the archive's own tests use the rest")]
mod records;

use std::{path::Path, sync::Arc, time::Duration};

use archive::{Archiver, ArchiverOptions, Bucket, SystemTime};
use query::{Form, query};
use recorder_user::model::{Effect, ExchangeId, SessionId};
use records::{DAY_US, at, ended, opened, session, settled, started, store};
use serde_json::{Value, json};

async fn rows(sql: &str, store: Option<&Path>, archive: Option<&Bucket>) -> Vec<Value> {
    let text = query(sql, store, archive, Form::Json).await.expect(sql);
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A store of three segments, the first two archived.
async fn half_archived(directory: &Path) -> Bucket {
    let id = SessionId::new();
    let [one, two, three] = std::array::from_fn(|_| ExchangeId::new());
    let first = vec![
        started(at(0)),
        session(id, at(0)),
        opened(id, one, at(1)),
        settled(id, one, Effect::Deleted),
        opened(id, two, at(2)),
    ];
    store(directory, vec![first, vec![settled(id, two, Effect::Deleted)]]).await;
    let bucket = Bucket::in_memory("s3://audit/decklog".parse().expect("good"));
    let options = ArchiverOptions {
        store: directory.into(),
        interval: Duration::from_secs(1),
        alarm_after: Duration::from_secs(1),
    };
    let archiver = Archiver::new(options, bucket.clone(), Arc::new(SystemTime));
    archiver.expect("a store").pass().await.expect("it works");
    let third = vec![
        opened(id, three, at(DAY_US)),
        settled(id, three, Effect::Executed),
        ended(id, at(DAY_US + 1)),
    ];
    store(directory, vec![third]).await;
    bucket
}

#[tokio::test]
async fn local_rows_and_archived_rows_are_one_table() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let bucket = half_archived(path).await;
    let count = "SELECT count(*) AS n, count(DISTINCT exchange) AS different FROM exchanges";
    for (store, archive, expected) in
        [(Some(path), None, 3), (None, Some(&bucket), 2), (Some(path), Some(&bucket), 3)]
    {
        let found = rows(count, store, archive).await;
        assert_eq!(found, [json!({"n": expected, "different": expected})]);
    }
    let both = (Some(path), Some(&bucket));
    let found = rows(
        "SELECT change, kind, count(*) AS n FROM effects WHERE cluster = 'prod' \
         GROUP BY change, kind ORDER BY change",
        both.0,
        both.1,
    )
    .await;
    let expected = [
        json!({"change": "deleted", "kind": "ConfigMap", "n": 2}),
        json!({"change": "executed", "kind": "configmaps", "n": 1}),
    ];
    assert_eq!(found, expected);
    let found = rows("SELECT name FROM exchanges WHERE day >= '2026-09-22'", both.0, both.1).await;
    assert_eq!(found, [json!({"name": "web"})]);
    let sessions = "SELECT state, exchanges, username, groups FROM sessions";
    let row = |state: &str, exchanges| json!({"state": state, "exchanges": exchanges, "username": "agent-7", "groups": ["agents", "readers"]});
    assert_eq!(rows(sessions, both.0, both.1).await, [row("ended", 3)]);
    assert_eq!(rows(sessions, None, Some(&bucket)).await, [row("open", 2)]);
    let changes = rows("SELECT count(*) AS n FROM session_changes", both.0, both.1).await;
    assert_eq!(changes, [json!({"n": 3})]);
}

#[tokio::test]
async fn an_empty_archive_has_empty_tables() {
    let bucket = Bucket::in_memory("s3://audit".parse().expect("good"));
    for table in ["sessions", "session_changes", "exchanges", "effects"] {
        let found = rows(&format!("SELECT count(*) AS n FROM {table}"), None, Some(&bucket)).await;
        assert_eq!(found, [json!({"n": 0})], "{table}");
    }
}

#[tokio::test]
async fn nothing_is_written_and_no_other_file_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    half_archived(directory.path()).await;
    let target = directory.path().join("out.parquet");
    let target = target.display();
    for sql in [
        format!("COPY exchanges TO '{target}'"),
        format!("CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION '{target}'"),
        "CREATE TABLE x AS SELECT 1".to_owned(),
        "INSERT INTO exchanges SELECT * FROM exchanges".to_owned(),
        "DROP TABLE exchanges".to_owned(),
        "SET datafusion.execution.batch_size = 1".to_owned(),
        "SELECT * FROM '/etc/passwd'".to_owned(),
        "SELECT * FROM nowhere".to_owned(),
    ] {
        let answer = query(&sql, Some(directory.path()), None, Form::Json).await;
        assert!(answer.is_err(), "{sql}: {answer:?}");
    }
    assert!(!directory.path().join("out.parquet").exists());
}

#[tokio::test]
async fn what_was_recorded_is_escaped_in_a_table() {
    let directory = tempfile::tempdir().expect("a directory");
    half_archived(directory.path()).await;
    let sql = "SELECT name || chr(27) || '[31m' AS name FROM exchanges LIMIT 1";
    let text = query(sql, Some(directory.path()), None, Form::Table).await.expect("rows");
    assert!(text.contains("web") && !text.contains('\u{1b}'), "{text:?}");
}
