//! The bucket: a store of objects, with what is ours to decide set.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, Once},
    time::Duration,
};

use object_store::{
    Certificate, ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, Checksum, S3ConditionalPut},
    memory::InMemory,
    multipart::MultipartStore,
};

use crate::{credentials::CredentialFiles, refusal::Connector, url::ArchiveUrl};

/// How to reach the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketOptions {
    /// Bucket and prefix.
    pub url: ArchiveUrl,
    /// The server's URL, if it is not AWS.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// PEM file of the authorities of the server's certificate; none for the platform's roots.
    pub certificate_authority: Option<PathBuf>,
    /// The credentials.
    pub credentials: CredentialFiles,
    /// How long the server may take to answer a request, or to go on with an answer.
    pub timeout: Duration,
    /// Larger segments are uploaded in parts of this size.
    pub part_bytes: usize,
}

/// The bucket cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenBucketError {
    /// The file of the authorities cannot be read.
    #[error("read the certificate authority {}", path.display())]
    Authority {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something does not fit.
    #[error("set up the archive's client")]
    Client(#[from] object_store::Error),
}

/// A store of objects, and where in it an archive is.
#[derive(Clone)]
pub struct Bucket {
    pub(crate) url: ArchiveUrl,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) parts: Arc<dyn MultipartStore>,
    pub(crate) part_bytes: usize,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Bucket {
    /// Sets up a client; nothing is sent yet.
    ///
    /// # Errors
    /// When the authorities cannot be read, or the endpoint is not a URL.
    pub fn open(options: &BucketOptions) -> Result<Self, OpenBucketError> {
        install_cryptography();
        let plain = options.endpoint.as_ref().is_some_and(|url| url.starts_with("http://"));
        let mut client = ClientOptions::new()
            .with_allow_http(plain)
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_read_timeout(options.timeout)
            // A whole segment may take as long as it takes; that it goes on is what counts.
            .with_timeout_disabled();
        if let Some(path) = &options.certificate_authority {
            let pem = std::fs::read(path)
                .map_err(|source| OpenBucketError::Authority { path: path.clone(), source })?;
            client = client.with_no_system_certificates(true);
            for certificate in Certificate::from_pem_bundle(&pem)? {
                client = client.with_root_certificate(certificate);
            }
        }
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(options.url.bucket())
            .with_region(&options.region)
            .with_credentials(Arc::new(options.credentials.clone()))
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            // Buckets with object lock take nothing without a checksum.
            .with_checksum_algorithm(Checksum::SHA256)
            .with_client_options(client)
            .with_http_connector(Connector)
            // Trying again is the archiver's, which knows how long it has waited already.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let store = Arc::new(builder.build()?);
        Ok(Self {
            url: options.url.clone(),
            objects: Arc::clone(&store) as Arc<dyn ObjectStore>,
            parts: store,
            part_bytes: options.part_bytes.max(PART_BYTES_MIN),
        })
    }

    /// One in memory, or any other pair of stores over the same objects: for tests.
    #[must_use]
    pub fn over(
        url: ArchiveUrl,
        objects: Arc<dyn ObjectStore>,
        parts: Arc<dyn MultipartStore>,
        part_bytes: usize,
    ) -> Self {
        Self { url, objects, parts, part_bytes }
    }

    /// An empty one in memory.
    #[must_use]
    pub fn in_memory(url: ArchiveUrl) -> Self {
        let store = Arc::new(InMemory::new());
        Self::over(url, Arc::clone(&store) as Arc<dyn ObjectStore>, store, PART_BYTES)
    }

    /// Where the archive is.
    #[must_use]
    pub const fn url(&self) -> &ArchiveUrl {
        &self.url
    }

    /// The store of objects.
    #[must_use]
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }
}

/// reqwest takes the process's provider of cryptography; whoever came first has installed the same.
fn install_cryptography() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.install_default().unwrap_or_default();
    });
}

/// What a server gets for one answer, unless told otherwise. A part must be through by then, too: 16 MiB at
/// 1.2 Mbit/s.
pub const TIMEOUT: Duration = Duration::from_secs(120);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// S3 takes no smaller parts, but the last.
pub const PART_BYTES_MIN: usize = 5 << 20;
/// What is held in memory at once. A segment of 4 GiB has 256 of them; S3 takes 10,000.
pub const PART_BYTES: usize = 16 << 20;
/// As large as fits in memory without being noticed.
pub const PART_BYTES_MAX: usize = 256 << 20;
