//! The tables: sessions, exchanges, effects. What a segment adds to them becomes one Parquet file for each
//! table, day and cluster.
//!
//! Columns are only ever added. Day (UTC, of the session's start or of the exchange) and cluster are in the
//! files' paths, as Hive writes partitions, and not in the files.

mod columns;
mod derive;
mod file;

use bytes::Bytes;
pub use columns::{ColumnKind, ColumnSpec, Table, arrow_schema, columns};
use derive::TableRows;
use file::Writers;
use recorder_user::{
    model::{GatewayId, SegmentId},
    store::{Reader, archive::Carried},
};

use crate::failure::{Class, Failure};

/// Written into every file, and noted of every segment whose tables are stored.
pub const SCHEMA_VERSION: u32 = 1;

/// Which files of a table a row belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partition {
    /// The table.
    pub table: Table,
    /// `YYYY-MM-DD`.
    pub day: String,
    /// The cluster's name; `_`, which no cluster can be called, where there is none.
    pub cluster: String,
}

impl Partition {
    /// The path of what a segment adds to it, from the archive's prefix on.
    #[must_use]
    pub fn path(&self, gateway: GatewayId, segment: SegmentId) -> String {
        let (table, day, cluster) = (self.table.name(), &self.day, &self.cluster);
        format!("tables/{table}/day={day}/cluster={cluster}/{gateway}-{segment}.parquet")
    }
}

/// The rows that a segment adds to one partition, as a Parquet file.
#[derive(Clone, Debug)]
pub struct TableFile {
    /// Where the rows belong.
    pub partition: Partition,
    /// The file.
    pub bytes: Bytes,
}

/// Derives what a segment adds to the tables. `carried` is what the segments before it carry on, and becomes
/// what this one does.
///
/// # Errors
/// When the segment is damaged.
pub fn table_files(
    reader: &Reader,
    gateway: GatewayId,
    segment: SegmentId,
    carried: &mut Carried,
) -> Result<Vec<TableFile>, Failure> {
    let mut writers = Writers::new(gateway, segment);
    let mut rows = TableRows::new(gateway, segment, &mut writers);
    let damaged = |error| Failure::caused(Class::Damaged, "read the segment's rows", error);
    let read = carried.segment(reader, segment, &mut rows).map_err(damaged)?;
    if read.not_understood > 0 {
        tracing::debug!(%segment, records = read.not_understood, "records that no rows come of");
    }
    writers.finish().map_err(|error| Failure::caused(Class::Local, "encode the tables", error))
}
