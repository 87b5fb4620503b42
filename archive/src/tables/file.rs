//! Rows into Parquet files in memory: one for each table, day and cluster of a segment.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{Int64Builder, ListBuilder, StringBuilder, TimestampMicrosecondBuilder},
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties},
};
use recorder_user::model::{GatewayId, SegmentId};

use super::{
    Partition, SCHEMA_VERSION, TableFile,
    columns::{Cell, ColumnKind, ColumnSpec, Table, arrow_schema, columns},
    derive::TableRow,
};

/// The files that are written, by partition.
pub(super) struct Writers {
    gateway: GatewayId,
    segment: SegmentId,
    files: BTreeMap<Partition, Writer>,
    failed: Option<ParquetError>,
}

impl Writers {
    pub(super) fn new(gateway: GatewayId, segment: SegmentId) -> Self {
        Self { gateway, segment, files: BTreeMap::new(), failed: None }
    }

    pub(super) fn finish(self) -> Result<Vec<TableFile>, ParquetError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let finished = self.files.into_iter().map(|(partition, writer)| {
            let bytes = writer.finish()?.into();
            Ok(TableFile { partition, bytes })
        });
        finished.collect()
    }

    fn properties(&self) -> Result<WriterProperties, ParquetError> {
        let note = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
        Ok(WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_key_value_metadata(Some(vec![
                note("decklog.schema", SCHEMA_VERSION.to_string()),
                note("decklog.gateway", self.gateway.to_string()),
                note("decklog.segment", self.segment.to_string()),
            ]))
            .build())
    }

    fn try_row(&mut self, partition: Partition, cells: &[Cell<'_>]) -> Result<(), ParquetError> {
        if let Some(writer) = self.files.get_mut(&partition) {
            return writer.row(cells);
        }
        let mut writer = Writer::new(partition.table, self.properties()?)?;
        writer.row(cells)?;
        self.files.insert(partition, writer);
        Ok(())
    }
}

impl TableRow for Writers {
    fn row(&mut self, partition: Partition, cells: &[Cell<'_>]) {
        if self.failed.is_none()
            && let Err(error) = self.try_row(partition, cells)
        {
            self.failed = Some(error);
        }
    }
}

struct Writer {
    batch: Batch,
    file: ArrowWriter<Vec<u8>>,
}

impl Writer {
    fn new(table: Table, properties: WriterProperties) -> Result<Self, ParquetError> {
        let file = ArrowWriter::try_new(Vec::new(), arrow_schema(table), Some(properties))?;
        Ok(Self { batch: Batch::new(table), file })
    }

    fn row(&mut self, cells: &[Cell<'_>]) -> Result<(), ParquetError> {
        self.batch.row(cells);
        if self.batch.rows >= BATCH_ROWS {
            self.file.write(&self.batch.take()?)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>, ParquetError> {
        if self.batch.rows > 0 {
            self.file.write(&self.batch.take()?)?;
        }
        self.file.into_inner()
    }
}

/// Rows as columns.
pub(super) struct Batch {
    table: Table,
    columns: Vec<Column>,
    rows: usize,
}

enum Column {
    Text(StringBuilder),
    Int(Int64Builder),
    Time(TimestampMicrosecondBuilder),
    Texts(ListBuilder<StringBuilder>),
}

impl Batch {
    fn new(table: Table) -> Self {
        let column = |spec: &ColumnSpec| match spec.kind {
            ColumnKind::Text => Column::Text(StringBuilder::new()),
            ColumnKind::Int => Column::Int(Int64Builder::new()),
            ColumnKind::Time => {
                Column::Time(TimestampMicrosecondBuilder::new().with_timezone("UTC"))
            }
            ColumnKind::Texts => Column::Texts(ListBuilder::new(StringBuilder::new())),
        };
        Self { table, columns: columns(table).iter().map(column).collect(), rows: 0 }
    }

    fn row(&mut self, cells: &[Cell<'_>]) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a row of {}", self.table.name());
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.push(*cell);
        }
        self.rows += 1;
    }

    fn take(&mut self) -> Result<RecordBatch, ParquetError> {
        self.rows = 0;
        let arrays = self.columns.iter_mut().map(Column::take).collect();
        Ok(RecordBatch::try_new(arrow_schema(self.table), arrays)?)
    }
}

impl Column {
    /// A cell of another kind than the column is nothing; a column that must hold something then makes the
    /// batch fail.
    fn push(&mut self, cell: Cell<'_>) {
        match self {
            Self::Text(column) => match cell {
                Cell::Text(text) => column.append_value(text),
                _ => column.append_null(),
            },
            Self::Int(column) => match cell {
                Cell::Int(number) => column.append_value(number),
                _ => column.append_null(),
            },
            Self::Time(column) => match cell {
                Cell::Time(time) => column.append_value(time.as_micros()),
                _ => column.append_null(),
            },
            Self::Texts(column) => match cell {
                Cell::Texts(texts) => column.append_value(texts.iter().map(Some)),
                _ => column.append_null(),
            },
        }
    }

    fn take(&mut self) -> ArrayRef {
        match self {
            Self::Text(column) => Arc::new(column.finish()),
            Self::Int(column) => Arc::new(column.finish()),
            Self::Time(column) => Arc::new(column.finish()),
            Self::Texts(column) => Arc::new(column.finish()),
        }
    }
}

/// What is held as rows before it is encoded.
const BATCH_ROWS: usize = 4096;
/// What is encoded before it is compressed and let go of.
const ROW_GROUP_ROWS: usize = 65_536;
