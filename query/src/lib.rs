//! SQL over the tables of a store and of an archive, by DataFusion.
//!
//! A crate of its own and outside the default members, since DataFusion costs more to build than all the rest.
//! Rows that are in the archive come from there, the rest is derived from the local store when it is asked for.
//! Statements that would write anything are refused.

mod bridge;
mod tables;

use std::path::Path;

use anyhow::{Context as _, Result};
use archive::Bucket;
use datafusion::{
    arrow::{json::LineDelimitedWriter, util::pretty::pretty_format_batches},
    execution::context::SQLOptions,
};
use recorder_user::cli::escape;

/// How rows are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A table for people. What was recorded is escaped.
    Table,
    /// One JSON object a line.
    Json,
}

/// Runs one statement and gives its rows as text.
///
/// # Errors
/// When the store or the archive cannot be read, or the statement is wrong or would write.
pub async fn query(
    sql: &str,
    store: Option<&Path>,
    archive: Option<&Bucket>,
    form: Form,
) -> Result<String> {
    let context = tables::session(store, archive).await?;
    let reading =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let rows = context.sql_with_options(sql, reading).await.context("understand the statement")?;
    let batches = rows.collect().await.context("run the statement")?;
    Ok(match form {
        Form::Json => {
            let mut text = Vec::new();
            let mut writer = LineDelimitedWriter::new(&mut text);
            writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
            writer.finish()?;
            String::from_utf8(text)?
        }
        Form::Table => {
            let table = pretty_format_batches(&batches)?.to_string();
            table.lines().map(|line| format!("{}\n", escape::line(line))).collect()
        }
    })
}
