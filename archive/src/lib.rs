//! The archive: copies of finished segments in an S3-compatible store, and Parquet tables beside them.
//!
//! An [`Archiver`] takes the segments of a store in order. It uploads each under a name that is never
//! overwritten, reads the copy back and compares it, and only then notes the segment as archived; then it
//! derives the rows that the segment adds and stores them as tables. It tries again without end, waits longer
//! each time, and raises an alarm when somebody has to act. It never deletes, here or there. A
//! [`Fetched`] archive is read as the stores of its gateways.
//!
//! This crate alone names `object_store` and `parquet`. The gateway has it behind its feature `archive`;
//! `recorder archive` is its binary `recorder-archive`. The layout is in `docs/store.md`.

mod archiver;
mod arguments;
mod backoff;
mod bucket;
mod copy;
mod credentials;
mod failure;
mod fetch;
mod health;
mod refusal;
mod tables;
mod time;
mod url;

pub use archiver::{Archiver, ArchiverOptions, Pass};
pub use arguments::ArchiveArguments;
pub use bucket::{
    Bucket, BucketOptions, OpenBucketError, PART_BYTES, PART_BYTES_MAX, PART_BYTES_MIN, TIMEOUT,
};
pub use credentials::CredentialFiles;
pub use failure::{Class, Failure};
pub use fetch::{Checked, FetchError, Fetched, check_copies};
pub use health::{Health, HealthView};
pub use tables::{
    ColumnKind, ColumnSpec, Partition, SCHEMA_VERSION, Table, TableFile, arrow_schema, columns,
    table_files,
};
pub use time::{SystemTime, Time};
pub use url::{ArchiveUrl, ParseArchiveUrlError};
