//! Recorded streams: replayed, shown, exported, followed.

mod captures;
mod carried;
#[path = "../cli_support/mod.rs"]
mod cli_support;
mod export;
mod follow;
mod hostile;
mod replay;
mod script;
mod search;
