//! Certificates of the rig's own authorities. Keys are P-256; nothing here outlives the run.

use std::fmt;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the key.
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A certificate and its private key, both PEM.
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key (PKCS #8).
    pub key: String,
}

/// A [`Pair`] in files.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

/// A key pair without a certificate, in files.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// The private key's file.
    pub private: PathBuf,
    /// The public key's file.
    pub public: PathBuf,
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// When the key or the certificate cannot be made.
    pub fn new(common_name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// The authority's own certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate for a server on loopback with these further names and addresses.
    ///
    /// # Errors
    /// When a name is not one or signing fails.
    pub fn server(&self, common_name: &str, names: &[&str]) -> Result<Pair> {
        let mut params = CertificateParams::new(
            names
                .iter()
                .map(|&name| name.to_owned())
                .chain(["localhost".to_owned()])
                .collect::<Vec<_>>(),
        )?;
        params.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// A certificate for a client; to an API server the organization is its group.
    ///
    /// # Errors
    /// When signing fails.
    pub fn client(&self, common_name: &str, organization: &str) -> Result<Pair> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    /// The authority's private key, PEM: the controller manager signs with it.
    #[must_use]
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    fn sign(&self, params: &CertificateParams) -> Result<Pair> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Pair { certificate, key: key.serialize_pem() })
    }
}

impl Pair {
    /// Writes both beside each other as `name.crt` and `name.key`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, directory: &Path, name: &str) -> Result<Files> {
        let files = Files {
            certificate: directory.join(format!("{name}.crt")),
            key: directory.join(format!("{name}.key")),
        };
        write_private(&files.certificate, &self.certificate)?;
        write_private(&files.key, &self.key)?;
        Ok(files)
    }
}

/// A key pair that signs service account tokens: `name.key` and, public, `name.pub`.
///
/// # Errors
/// When the key cannot be made or a file cannot be written.
pub fn signing_key(directory: &Path, name: &str) -> Result<SigningKey> {
    let key = KeyPair::generate()?;
    let files = SigningKey {
        private: directory.join(format!("{name}.key")),
        public: directory.join(format!("{name}.pub")),
    };
    write_private(&files.private, &key.serialize_pem())?;
    write_private(&files.public, &key.public_key_pem())?;
    Ok(files)
}

/// Writes a file that only its owner reads.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).with_context(|| format!("make {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("write {}", path.display()))
}
