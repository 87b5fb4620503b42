//! The archive's options on a command line, for the binaries that open one.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{ArchiveUrl, Bucket, BucketOptions, CredentialFiles, PART_BYTES, bucket::TIMEOUT};

/// Where the archive is and how to reach it: the same as `archive` in the gateway's configuration.
#[derive(Args, Clone, Debug)]
pub struct ArchiveArguments {
    /// The archive: s3://BUCKET/PREFIX.
    #[arg(long, env = "DECKLOG_ARCHIVE", value_name = "URL")]
    archive: Option<ArchiveUrl>,
    /// The server, if it is not AWS: https://HOST:PORT.
    #[arg(long, env = "DECKLOG_ARCHIVE_ENDPOINT", value_name = "URL")]
    endpoint: Option<String>,
    /// The region that requests are signed for.
    #[arg(long, env = "DECKLOG_ARCHIVE_REGION", default_value = "us-east-1")]
    region: String,
    /// PEM file of the authorities of the server's certificate.
    #[arg(long, env = "DECKLOG_ARCHIVE_CERTIFICATE_AUTHORITY", value_name = "FILE")]
    certificate_authority: Option<PathBuf>,
    /// File that holds the access key's id.
    #[arg(long, env = "DECKLOG_ARCHIVE_ACCESS_KEY_ID_FILE", value_name = "FILE")]
    access_key_id_file: Option<PathBuf>,
    /// File that holds the secret access key.
    #[arg(long, env = "DECKLOG_ARCHIVE_SECRET_ACCESS_KEY_FILE", value_name = "FILE")]
    secret_access_key_file: Option<PathBuf>,
    /// File that holds the session token of temporary credentials.
    #[arg(long, env = "DECKLOG_ARCHIVE_SESSION_TOKEN_FILE", value_name = "FILE")]
    session_token_file: Option<PathBuf>,
}

impl ArchiveArguments {
    /// Whether an archive was named.
    #[must_use]
    pub const fn is_given(&self) -> bool {
        self.archive.is_some()
    }

    /// The bucket; nothing is sent yet.
    ///
    /// # Errors
    /// When something is missing, or cannot be used.
    pub fn open(&self) -> Result<Bucket> {
        let url =
            self.archive.clone().context("name the archive with --archive s3://BUCKET/PREFIX")?;
        let file = |file: &Option<PathBuf>, option: &str| {
            file.clone().with_context(|| format!("name the credentials with {option} FILE"))
        };
        let options = BucketOptions {
            url,
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            certificate_authority: self.certificate_authority.clone(),
            credentials: CredentialFiles {
                access_key_id: file(&self.access_key_id_file, "--access-key-id-file")?,
                secret_access_key: file(&self.secret_access_key_file, "--secret-access-key-file")?,
                session_token: self.session_token_file.clone(),
            },
            timeout: TIMEOUT,
            part_bytes: PART_BYTES,
        };
        Ok(Bucket::open(&options)?)
    }
}
