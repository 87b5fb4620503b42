//! The gateway's own credential for a cluster, read when an upstream is set up.

use std::{
    fmt,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::time::Instant;

use super::{Cluster, Credential, Server, clusters::IN_CLUSTER_TOKEN, kubeconfig};

/// A credential cannot be used. Its text never holds any part of the credential.
#[derive(Debug, thiserror::Error)]
#[error("cluster {cluster}: {message}")]
pub struct LoadCredentialError {
    cluster: String,
    message: String,
}

/// What is needed to speak to a cluster's API server.
pub struct ClusterAccess {
    /// Where it is.
    pub server: Server,
    /// The bearer token, where the credential is one.
    pub token: Option<TokenSource>,
    tls: ClientConfig,
}

impl ClusterAccess {
    /// Reads certificates, keys and tokens from their files.
    ///
    /// # Errors
    /// Says which file cannot be used, and why.
    pub fn load(cluster: &Cluster) -> Result<Self, LoadCredentialError> {
        Self::read(cluster)
            .map_err(|message| LoadCredentialError { cluster: cluster.name.clone(), message })
    }

    fn read(cluster: &Cluster) -> Result<Self, String> {
        let token_file = |path: &Path| TokenSource::file(path, TOKEN_READ_INTERVAL);
        let (token, client) = match &cluster.credential {
            Credential::TokenFile(file) => (Some(token_file(file)?), None),
            Credential::InCluster => (Some(token_file(Path::new(IN_CLUSTER_TOKEN))?), None),
            Credential::ClientCertificate { certificate, key } => {
                let read = |path: &Path| {
                    std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
                };
                (None, Some((read(certificate)?, read(key)?)))
            }
            Credential::Kubeconfig { file, context } => {
                match kubeconfig::user_of(file, context.as_deref())? {
                    kubeconfig::User::Token(token) => (Some(TokenSource::fixed(&token)?), None),
                    kubeconfig::User::TokenFile(path) => (Some(token_file(&path)?), None),
                    kubeconfig::User::ClientCertificate { certificate, key } => {
                        (None, Some((certificate, key)))
                    }
                }
            }
        };
        Ok(Self { server: cluster.server.clone(), token, tls: client_config(cluster, client)? })
    }

    /// A TLS client configuration that offers these protocols, in order (`h2`, `http/1.1`).
    #[must_use]
    pub fn tls(&self, protocols: &[&str]) -> ClientConfig {
        let mut tls = self.tls.clone();
        tls.alpn_protocols =
            protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        tls
    }
}

impl fmt::Debug for ClusterAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterAccess").field("server", &self.server).finish_non_exhaustive()
    }
}

fn client_config(
    cluster: &Cluster,
    client: Option<(Vec<u8>, Vec<u8>)>,
) -> Result<ClientConfig, String> {
    let builder = tls_builder()?;
    let builder = match &cluster.certificate_authority {
        Some(authority) => builder.with_root_certificates(authority.store()?),
        None => {
            builder.with_platform_verifier().map_err(|e| format!("the platform's roots: {e}"))?
        }
    };
    let Some((certificate, key)) = client else { return Ok(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the client certificate is not PEM: {error}"))?;
    // The error is not repeated: nothing that was near a private key goes into a text.
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| String::from("the client key is not a private key in PEM"))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| format!("the client certificate and key cannot be used: {error}"))
}

/// A TLS client with the one provider of this program, whether or not a default one is installed.
pub(crate) fn tls_builder()
-> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))
}

/// The gateway's bearer token for a cluster. A file is read again when it may have changed.
pub struct TokenSource {
    current: ArcSwap<HeaderValue>,
    file: Option<PathBuf>,
    interval: Duration,
    next: Mutex<Instant>,
}

impl TokenSource {
    fn fixed(token: &str) -> Result<Self, String> {
        Ok(Self {
            current: ArcSwap::from_pointee(header(token)?),
            file: None,
            interval: TOKEN_READ_INTERVAL,
            next: Mutex::new(Instant::now()),
        })
    }

    fn file(path: &Path, interval: Duration) -> Result<Self, String> {
        Ok(Self {
            current: ArcSwap::from_pointee(read_token(path)?),
            file: Some(path.into()),
            interval,
            next: Mutex::new(Instant::now() + interval),
        })
    }

    /// The value of the `Authorization` header, marked sensitive. Once an interval it reads the
    /// file again; a token that cannot be read leaves the last one in use, and the API server
    /// decides.
    #[must_use]
    pub fn authorization(&self) -> HeaderValue {
        if let Some(file) = &self.file
            && self.due()
        {
            match read_token(file) {
                Ok(value) => self.current.store(Arc::new(value)),
                Err(error) => tracing::warn!(%error, "the cluster token cannot be read again"),
            }
        }
        HeaderValue::clone(&self.current.load())
    }

    /// Whether this caller is the one to read the file now.
    fn due(&self) -> bool {
        let now = Instant::now();
        // A poisoned lock holds a plain instant, which cannot be half-written.
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = now >= *next;
        if due {
            *next = now + self.interval;
        }
        due
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource").field("file", &self.file).finish_non_exhaustive()
    }
}

fn read_token(path: &Path) -> Result<HeaderValue, String> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    header(&text).map_err(|message| format!("{}: {message}", path.display()))
}

fn header(token: &str) -> Result<HeaderValue, String> {
    let token = token.trim();
    if token.is_empty() {
        return Err("the token is empty".into());
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| String::from("the token holds characters that a header cannot"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The kubelet replaces a projected token at 80 % of its life, at least 2 minutes before its end.
const TOKEN_READ_INTERVAL: Duration = Duration::from_secs(10);
/// What is longer is cut, and then refused by the API server.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_is_read_again_when_it_is_due() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("token");
        let write = |text: &str| std::fs::write(&file, text).expect("a file");
        write("first\n");
        let eager = TokenSource::file(&file, Duration::ZERO).expect("a token");
        let patient = TokenSource::file(&file, TOKEN_READ_INTERVAL).expect("a token");
        assert_eq!(eager.authorization(), "Bearer first");
        write("second");
        assert_eq!(eager.authorization(), "Bearer second");
        assert_eq!(patient.authorization(), "Bearer first");
        // As while a file is replaced: the last good token stays.
        for unusable in ["", "two\nlines"] {
            write(unusable);
            assert_eq!(eager.authorization(), "Bearer second");
        }
        std::fs::remove_file(&file).expect("a file");
        assert_eq!(eager.authorization(), "Bearer second");
        assert!(eager.authorization().is_sensitive());
    }
}
