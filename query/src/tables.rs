//! The tables of a store and of an archive as tables of DataFusion.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use archive::{Bucket, ColumnKind, Table, columns, table_files};
use datafusion::{
    arrow::datatypes::{DataType, Field, Schema, TimeUnit},
    datasource::{
        file_format::parquet::ParquetFormat,
        listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl},
    },
    prelude::SessionContext,
};
use object_store::{ObjectStore as _, PutOptions, memory::InMemory, path::Path as Name};
use recorder_user::store::{
    Reader,
    archive::{ArchiveState, Carried},
};
use url::Url;

use crate::bridge::{Bridge, Source};

/// A session with the tables of a store, of an archive, or of both.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn session(
    store: Option<&Path>,
    archive: Option<&Bucket>,
) -> Result<SessionContext> {
    let mut sources = Vec::new();
    if let Some(store) = store {
        let objects = Arc::new(local(store, archive.is_some()).await?);
        sources.push(Source { objects, prefix: String::new() });
    }
    if let Some(bucket) = archive {
        let prefix = bucket.url().prefix().to_owned();
        sources.push(Source { objects: Arc::clone(bucket.objects()), prefix });
    }
    let context = SessionContext::new();
    context.register_object_store(&Url::parse(ROOT)?, Arc::new(Bridge { sources }));
    for table in Table::ALL {
        // Of a session there are several rows: the view below is called by the table's own name.
        let name = if table == Table::Sessions { "session_changes" } else { table.name() };
        context.register_table(name, Arc::new(listing(table)?))?;
    }
    context.sql(SESSIONS).await.context("define the view of sessions")?;
    Ok(context)
}

/// The tables of what the store has, in memory. What is known to be in the archive is left to it.
async fn local(store: &Path, archived: bool) -> Result<InMemory> {
    let reader = Reader::open(store)?;
    let state = ArchiveState::of(store);
    let (objects, mut carried) = (InMemory::new(), Carried::default());
    for info in reader.segments()? {
        let (gateway, segment) = (info.header.gateway, info.segment);
        let files = table_files(&reader, gateway, segment, &mut carried)?;
        if archived && state.copied(segment).is_some_and(|copied| copied.tables.is_some()) {
            continue;
        }
        for file in files {
            let name = Name::from(file.partition.path(gateway, segment));
            objects.put_opts(&name, file.bytes.into(), PutOptions::default()).await?;
        }
    }
    Ok(objects)
}

fn listing(table: Table) -> Result<ListingTable> {
    let url = ListingTableUrl::parse(format!("{ROOT}tables/{}/", table.name()))?;
    let options = ListingOptions::new(Arc::new(ParquetFormat::default()))
        .with_file_extension(".parquet")
        .with_table_partition_cols(vec![
            ("day".to_owned(), DataType::Date32),
            ("cluster".to_owned(), DataType::Utf8),
        ]);
    let field = |column: &archive::ColumnSpec| {
        let kind = match column.kind {
            ColumnKind::Text => DataType::Utf8,
            ColumnKind::Int => DataType::Int64,
            ColumnKind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            ColumnKind::Texts => DataType::new_list(DataType::Utf8, true),
        };
        Field::new(column.name, kind, column.nullable)
    };
    let schema = Schema::new(columns(table).iter().map(field).collect::<Vec<_>>());
    let config =
        ListingTableConfig::new(url).with_listing_options(options).with_schema(Arc::new(schema));
    Ok(ListingTable::try_new(config)?)
}

const ROOT: &str = "decklog://all/";
const SESSIONS: &str = "CREATE VIEW sessions AS SELECT c.* FROM session_changes c JOIN \
    (SELECT session AS id, max(segment) AS latest FROM session_changes GROUP BY session) \
    ON c.session = id AND c.segment = latest";
