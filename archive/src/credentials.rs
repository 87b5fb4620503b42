//! The archive's credentials: files, read anew for every request, so that a rotation needs no restart.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use object_store::{CredentialProvider, aws::AwsCredential};

/// Where the credentials are. What is in the files is never kept, logged or shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFiles {
    /// The access key's id.
    pub access_key_id: PathBuf,
    /// The secret access key.
    pub secret_access_key: PathBuf,
    /// The session token of temporary credentials.
    pub session_token: Option<PathBuf>,
}

/// A file of the credentials cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("read the credential in {}", path.display())]
pub(crate) struct UnreadableCredential {
    path: PathBuf,
    #[source]
    source: io::Error,
}

#[async_trait::async_trait]
impl CredentialProvider for CredentialFiles {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let token = match &self.session_token {
            Some(path) => Some(read(path).await?),
            None => None,
        };
        Ok(Arc::new(AwsCredential {
            key_id: read(&self.access_key_id).await?,
            secret_key: read(&self.secret_access_key).await?,
            token,
        }))
    }
}

async fn read(path: &Path) -> object_store::Result<String> {
    let unusable = |source| object_store::Error::Generic {
        store: "S3",
        source: Box::new(UnreadableCredential { path: path.to_owned(), source }),
    };
    let text = tokio::fs::read_to_string(path).await.map_err(unusable)?;
    let text = text.trim();
    if text.is_empty() || text.len() > BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
        let why = "the file must hold one line of printable ASCII";
        return Err(unusable(io::Error::new(io::ErrorKind::InvalidData, why)));
    }
    Ok(text.to_owned())
}

const BYTES_MAX: usize = 8 << 10;
