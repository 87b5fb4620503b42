//! Erases a session of an encrypted store, with a record of who did it.

use std::path::Path;

use super::{
    Need, ReindexError, Store, StoreOptions,
    encryption::{self, EncryptionError, Erased},
    index, reindex, retention, signing, system_clock,
};
use crate::{
    model::{
        AccessId, AccessScope, HoldId, LocalUser, Record, RecordingRead, SessionId, Through,
        Timestamp,
    },
    store::{AppendError, CloseStoreError, OpenStoreError, ScanError},
};

/// A session could not be erased. Unless this says that it was, its key is still there.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// Files that we make would be in the gateway's way.
    #[error("the store belongs to another user: erase as the user that the gateway runs as")]
    NotOurs,
    /// It must be kept.
    #[error("legal hold {0} is on the session: release it first (recorder hold)")]
    Held(HoldId),
    /// The holds could not be read.
    #[error("read the legal holds")]
    Holds(#[from] ScanError),
    /// The store could not be opened, or a gateway runs.
    #[error("open the store")]
    Open(#[from] OpenStoreError),
    /// Who erases could not be put on record, so nothing was erased.
    #[error("record the erasure")]
    Record(#[from] AppendError),
    /// The key could not be destroyed.
    #[error("destroy the session's key")]
    Key(#[from] EncryptionError),
    /// The session is erased; the store could not be closed in order, and the next start recovers it.
    #[error("the session is erased, but the store could not be closed")]
    Close(#[from] CloseStoreError),
    /// The session is erased; the index still has rows of it.
    #[error("the session is erased, but the index still has rows of it")]
    Index(#[from] ReindexError),
}

/// Destroys a session's key: nothing of it can be read again, and the chain still verifies. Who did it is on
/// record before. No gateway may run.
///
/// # Errors
/// When it could not be done, or not wholly.
pub async fn erase_session(
    store: &Path,
    session: SessionId,
    by: LocalUser,
) -> Result<Erased, EraseError> {
    if !index::is_ours(store) {
        return Err(EraseError::NotOurs);
    }
    if let Some(hold) = retention::hold_on(store, session)? {
        return Err(EraseError::Held(hold));
    }
    let (opened, _) = Store::open(StoreOptions::new(store.to_owned()), system_clock())?;
    let record = RecordingRead {
        access: AccessId::new(),
        time: Timestamp::now(),
        by,
        through: Through::Files,
        verb: "erase".into(),
        what: AccessScope { sessions: vec![session], ..AccessScope::default() },
    };
    let record = Record::RecordingRead(Box::new(record));
    let recorded = opened.recorder().append(record, Need::Durable).await;
    let erased = match recorded {
        Ok(()) => {
            encryption::erase(&signing::keys_directory(store), session).map_err(EraseError::from)
        }
        Err(error) => Err(error.into()),
    };
    let closed = opened.close().await;
    let erased = erased?;
    closed?;
    // Its rows were made while the records could be read.
    reindex(store)?;
    Ok(erased)
}
