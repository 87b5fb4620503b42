//! The gateway's own certificate: read at start, and again when its files change.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_util::sync::CancellationToken;

use crate::config;

/// How often the files are looked at. Kubernetes swaps a symlink to renew a mounted Secret, which no
/// watch of the file itself would see.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadCertificateError {
    /// The certificate chain cannot be read.
    #[error("read the certificate {path}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The key cannot be read. Why is not said: nothing near a key goes into a text.
    #[error("{path} holds no private key in PEM")]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// They do not fit together, or the key is of an unsupported kind.
    #[error("the certificate and the key cannot be used together")]
    Pair {
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// The certificate in use.
#[derive(Debug)]
pub struct Certificate {
    files: config::ServerTls,
    current: ArcSwap<CertifiedKey>,
}

impl Certificate {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// Says which file cannot be used.
    pub fn load(files: &config::ServerTls) -> Result<Arc<Self>, LoadCertificateError> {
        let current = ArcSwap::from_pointee(read(files)?);
        Ok(Arc::new(Self { files: files.clone(), current }))
    }

    /// A server that offers HTTP/2 and HTTP/1.1 and asks for no client certificate: identity is the
    /// token's alone.
    #[must_use]
    pub fn server_config(self: &Arc<Self>) -> Arc<ServerConfig> {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Self>::clone(self);
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("the provider supports the default versions")
                .with_no_client_auth()
                .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // One ticket: kubectl makes a new connection in every run and resumes none.
        config.send_tls13_tickets = 1;
        Arc::new(config)
    }

    /// Reads the files again when they change, until `stop`. A bad pair never replaces a good one.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut seen = contents(&self.files);
        let mut tick = tokio::time::interval(CHECK_INTERVAL);
        loop {
            tokio::select! {
                // cancel-safe: both only wait.
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let now = contents(&self.files);
            if now == seen {
                continue;
            }
            seen = now;
            match read(&self.files) {
                Ok(pair) => {
                    self.current.store(Arc::new(pair));
                    tracing::info!("certificate reloaded");
                }
                Err(error) => tracing::error!(%error, "new certificate not used; the last stays"),
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// Digest of both files, to see a change; none while one cannot be read.
fn contents(files: &config::ServerTls) -> Option<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    for path in [&files.certificate, &files.key] {
        hasher.update(&fs::read(path).ok()?);
    }
    Some(*hasher.finalize().as_bytes())
}

fn read(files: &config::ServerTls) -> Result<CertifiedKey, LoadCertificateError> {
    let bad = |path: &Path, source| LoadCertificateError::Certificate { path: path.into(), source };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| bad(&files.certificate, source))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|_| LoadCertificateError::Key { path: files.key.clone() })?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map_err(|source| LoadCertificateError::Pair { source })
}
