//! Every exchange has one row, whichever segments it spans; a session's last row is what `ls` shows.

use std::collections::BTreeMap;

use archive::{ColumnKind, Table, arrow_schema, columns};
use arrow_array::{Array as _, Int64Array, ListArray, RecordBatch, StringArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use recorder_user::model::{Effect, ExchangeId, SessionId};

use crate::{
    faulty::Bench,
    records::{DAY_US, at, ended, opened, refused, session, settled, started, store},
};

async fn read(bench: &Bench, table: Table) -> Vec<(String, RecordBatch)> {
    let mut batches = Vec::new();
    for name in bench.objects.names().await {
        if !name.contains(&format!("/tables/{}/", table.name())) {
            continue;
        }
        let bytes = bench.objects.bytes(&name).await;
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("Parquet");
        assert_eq!(reader.schema().fields(), arrow_schema(table).fields());
        for batch in reader.build().expect("Parquet") {
            batches.push((name.clone(), batch.expect("Parquet")));
        }
    }
    batches
}

fn text(batch: &RecordBatch, column: &str, row: usize) -> Option<String> {
    let column = batch.column_by_name(column).expect("a column");
    let column = column.as_any().downcast_ref::<StringArray>().expect("text");
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn int(batch: &RecordBatch, column: &str, row: usize) -> Option<i64> {
    let column = batch.column_by_name(column).expect("a column");
    let column = column.as_any().downcast_ref::<Int64Array>().expect("numbers");
    column.is_valid(row).then(|| column.value(row))
}

#[tokio::test]
async fn rows_are_complete_and_unique_across_segments() {
    let bench = Bench::new();
    let id = SessionId::new();
    let [whole, spanning, lost, refused_one, ran] = std::array::from_fn(|_| ExchangeId::new());
    let first = vec![
        started(at(0)),
        session(id, at(0)),
        opened(id, whole, at(1)),
        settled(id, whole, Effect::Deleted),
        opened(id, spanning, at(2)),
        opened(id, lost, at(3)),
        refused(refused_one, at(4)),
    ];
    let second = vec![settled(id, spanning, Effect::Read)];
    let third = vec![
        started(at(DAY_US)),
        opened(id, ran, at(DAY_US)),
        settled(id, ran, Effect::Executed),
        ended(id, at(DAY_US + 1)),
    ];
    store(bench.directory.path(), vec![first, second, third]).await;
    // Each pass by an archiver that knows nothing but what was kept.
    bench.archiver().pass().await.expect("it works");

    let mut rows = BTreeMap::new();
    for (name, batch) in read(&bench, Table::Exchanges).await {
        for row in 0..batch.num_rows() {
            let exchange = text(&batch, "exchange", row).expect("an id");
            let status = int(&batch, "status", row);
            let effect = text(&batch, "effect", row).expect("a word");
            let partition = name.split('/').skip(3).take(2).collect::<Vec<_>>().join("/");
            let before = rows.insert(exchange, (status, effect, partition));
            assert!(before.is_none(), "an exchange has one row: {before:?}");
        }
    }
    let expect = |status, effect: &str, partition: &str| (status, effect.into(), partition.into());
    let (day, next) = ("day=2026-09-21/cluster=prod", "day=2026-09-22/cluster=prod");
    let expected = BTreeMap::from([
        (whole.to_string(), expect(Some(200), "deleted", day)),
        (spanning.to_string(), expect(Some(200), "read", day)),
        (lost.to_string(), expect(None, "unknown", day)),
        (refused_one.to_string(), expect(Some(401), "nothing", "day=2026-09-21/cluster=_")),
        (ran.to_string(), expect(Some(200), "executed", next)),
    ]);
    assert_eq!(rows, expected);

    let mut effects: Vec<_> = Vec::new();
    for (_, batch) in read(&bench, Table::Effects).await {
        for row in 0..batch.num_rows() {
            effects.push((text(&batch, "change", row), text(&batch, "kind", row)));
        }
    }
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        effects,
        [(some("deleted"), some("ConfigMap")), (some("executed"), some("configmaps"))]
    );

    let mut last = None;
    let mut count = 0;
    for (_, batch) in read(&bench, Table::Sessions).await {
        for row in 0..batch.num_rows() {
            count += 1;
            let (state, exchanges) = (text(&batch, "state", row), int(&batch, "exchanges", row));
            last = last.max(Some((text(&batch, "segment", row), state, exchanges)));
            let groups = batch.column_by_name("groups").expect("a column");
            let groups = groups.as_any().downcast_ref::<ListArray>().expect("a list").value(row);
            assert_eq!(groups.len(), 2);
        }
    }
    assert_eq!(count, 3, "one for each segment that changed it");
    let (_, state, exchanges) = last.expect("rows");
    assert_eq!((state, exchanges), (some("ended"), Some(4)));
}

#[tokio::test]
async fn rows_do_not_depend_on_what_was_kept_between_segments() {
    let (bench, forgetful) = (Bench::new(), Bench::new());
    let (id, spanning) = (SessionId::new(), ExchangeId::new());
    let first = vec![session(id, at(0)), opened(id, spanning, at(2))];
    let records = vec![first, vec![settled(id, spanning, Effect::Deleted)]];
    store(bench.directory.path(), records).await;
    bench.archiver().pass().await.expect("it works");
    // The same store again, and everything noted of the first segment is gone before the second comes.
    let copy = forgetful.directory.path().join("segments");
    std::fs::create_dir(&copy).expect("a directory");
    let segments = crate::records::finished(bench.directory.path());
    for segment in &segments {
        let name = segment.path.file_name().expect("a name");
        std::fs::copy(&segment.path, copy.join(name)).expect("a copy");
        forgetful.archiver().pass().await.expect("it works");
        std::fs::remove_file(forgetful.directory.path().join("archive/carried.json"))
            .expect("what was kept");
    }
    assert_eq!(forgetful.objects.names().await, bench.objects.names().await);
    for name in bench.objects.names().await {
        assert_eq!(
            forgetful.objects.bytes(&name).await,
            bench.objects.bytes(&name).await,
            "{name}"
        );
    }
}

#[test]
fn the_documented_schema_is_the_schema() {
    let document = include_str!("../../../docs/store.md");
    for table in Table::ALL {
        let heading = format!("#### `{}`", table.name());
        let (_, rest) = document.split_once(&heading).expect("the table's section");
        let section = rest.split("\n#").next().expect("some text");
        let documented: Vec<_> = section
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|line| line.split_once("` | "))
            .map(|(name, rest)| (name, rest.split(" |").next().unwrap_or_default()))
            .collect();
        let expected: Vec<_> = columns(table)
            .iter()
            .map(|column| {
                let kind = match (column.kind, column.nullable) {
                    (ColumnKind::Text, false) => "text",
                    (ColumnKind::Text, true) => "text or null",
                    (ColumnKind::Int, false) => "int",
                    (ColumnKind::Int, true) => "int or null",
                    (ColumnKind::Time, false) => "time",
                    (ColumnKind::Time, true) => "time or null",
                    (ColumnKind::Texts, _) => "list of text",
                };
                (column.name, kind)
            })
            .collect();
        assert_eq!(documented, expected, "{}", table.name());
    }
}
