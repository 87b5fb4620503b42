//! The archive: where finished segments are copied to.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::{clusters::readable, problem::Problems, raw, units};

/// Where finished segments are copied to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// `s3://BUCKET/PREFIX`.
    pub url: String,
    /// The server, if it is not AWS.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The authorities of the server's certificate; none for the platform's roots.
    pub certificate_authority: Option<PathBuf>,
    /// The credentials' files.
    pub credentials: ArchiveCredentials,
    /// How often the store is looked at.
    pub interval: Duration,
    /// A segment that waits for longer raises the alarm.
    pub alarm_after: Duration,
    /// How long the server may take for one answer.
    pub timeout: Duration,
    /// Larger segments are uploaded in parts of this size.
    pub part_bytes: usize,
}

/// Where the archive's credentials are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveCredentials {
    /// The access key's id.
    pub access_key_id: PathBuf,
    /// The secret access key.
    pub secret_access_key: PathBuf,
    /// The session token of temporary credentials.
    pub session_token: Option<PathBuf>,
}

pub(super) fn validate(
    given: Option<Value>,
    directory: &Path,
    problems: &mut Problems,
) -> Option<Archive> {
    let raw: raw::Archive = problems.shape("archive", given?)?;
    archive_url(&raw.url, problems);
    if let Some(endpoint) = &raw.endpoint {
        endpoint_url(endpoint, problems);
    }
    let mut file = |key: &str, value: &str| {
        readable(&format!("archive.{key}"), &directory.join(value), problems)
    };
    let given = raw.credentials;
    let access_key_id = file("credentials.accessKeyIdFile", &given.access_key_id_file);
    let secret = file("credentials.secretAccessKeyFile", &given.secret_access_key_file);
    let token = given.session_token_file;
    let session_token = token.and_then(|value| file("credentials.sessionTokenFile", &value));
    let authority = raw.certificate_authority;
    let certificate_authority = authority.and_then(|value| file("certificateAuthority", &value));
    let (second, minute, hour) =
        (Duration::from_secs(1), Duration::from_secs(60), Duration::from_secs(3600));
    let mut duration = |key: &str, given, default, bounds| {
        units::duration_key(format!("archive.{key}"), given, default, bounds, problems)
    };
    // A segment lasts for minutes at least: nobody waits for its copy.
    let interval = duration("interval", raw.interval, 10 * second, second..=hour);
    // Longer than an object store takes for its own upgrade.
    let alarm_after = duration("alarmAfter", raw.alarm_after, hour, minute..=7 * 24 * hour);
    // A part of 16 MiB at 1.2 Mbit/s.
    let timeout = duration("timeout", raw.timeout, 2 * minute, second..=hour);
    let bounds = 5 << 20..=256 << 20;
    let part_bytes = units::size_key("archive.partSize", raw.part_size, 16 << 20, bounds, problems);
    Some(Archive {
        url: raw.url,
        endpoint: raw.endpoint,
        region: raw.region.unwrap_or_else(|| "us-east-1".to_owned()),
        certificate_authority,
        credentials: ArchiveCredentials {
            access_key_id: access_key_id?,
            secret_access_key: secret?,
            session_token,
        },
        interval,
        alarm_after,
        timeout,
        part_bytes: usize::try_from(part_bytes).unwrap_or(usize::MAX),
    })
}

#[cfg(feature = "archive")]
fn archive_url(given: &str, problems: &mut Problems) {
    if let Err(error) = given.parse::<archive::ArchiveUrl>() {
        problems.add("archive.url", error.to_string());
    }
}

#[cfg(not(feature = "archive"))]
fn archive_url(_: &str, problems: &mut Problems) {
    problems.add("archive", "this gateway was built without it; build with `--features archive`");
}

fn endpoint_url(given: &str, problems: &mut Problems) {
    let good = url::Url::parse(given).is_ok_and(|url| {
        matches!(url.scheme(), "https" | "http")
            && url.host().is_some()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    });
    if !good {
        problems.add(
            "archive.endpoint",
            "is not the URL of a server; write https://HOST:PORT without a path",
        );
    }
}
