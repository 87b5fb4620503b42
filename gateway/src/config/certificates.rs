//! Certificate authorities: a file, or PEM in the text, as Kubernetes has it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// One or more CA certificates.
#[derive(Clone)]
pub struct Certificates {
    /// The file they came from; none when they were in the configuration's text.
    pub file: Option<PathBuf>,
    roots: Vec<CertificateDer<'static>>,
}

impl Certificates {
    /// Reads a configured value: PEM text if it holds a certificate, else the path of a PEM file.
    pub(super) fn configured(value: &str, directory: &Path) -> Result<Self, String> {
        if value.contains(PEM_BEGIN) {
            return Self::parse(value.as_bytes(), None);
        }
        Self::read(&directory.join(value))
    }

    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| {
            format!("cannot read the certificate file {}: {error}", path.display())
        })?;
        Self::parse(&bytes, Some(path.to_path_buf()))
    }

    pub(super) fn parse(pem: &[u8], file: Option<PathBuf>) -> Result<Self, String> {
        let roots = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("is not valid PEM: {error}"))?;
        if roots.is_empty() {
            return Err("holds no certificate; give a PEM file or PEM text".into());
        }
        let certificates = Self { file, roots };
        certificates.store()?;
        Ok(certificates)
    }

    /// The certificates as trust anchors for TLS.
    ///
    /// # Errors
    /// When one of them cannot be a trust anchor; checked once already when they were read.
    pub fn store(&self) -> Result<RootCertStore, String> {
        let mut store = RootCertStore::empty();
        for certificate in &self.roots {
            store
                .add(certificate.clone())
                .map_err(|error| format!("holds a certificate that cannot be trusted: {error}"))?;
        }
        Ok(store)
    }
}

impl fmt::Display for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}", file.display()),
            None => write!(f, "PEM in the configuration, {} certificate(s)", self.roots.len()),
        }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificates({self})")
    }
}

const PEM_BEGIN: &str = "-----BEGIN";
