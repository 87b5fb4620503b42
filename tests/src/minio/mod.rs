//! A real MinIO, a client of our own to look behind the gateway's back, and a proxy before it that fails.

mod proxy;
mod sign;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::pki::write_private;
use crate::port::Port;
use crate::process::Process;
use crate::tools;
use crate::wait::{Level, until};

pub use proxy::{Proxy, Weather};

/// A running MinIO with an empty directory of its own; plain HTTP.
#[derive(Debug)]
pub struct Minio {
    directory: PathBuf,
    port: Port,
    secret: String,
    process: Option<Process>,
}

/// What the server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Fails unless the status is a 2xx.
    ///
    /// # Errors
    /// With status and body.
    pub fn success(self) -> Result<Self> {
        let text = String::from_utf8_lossy(&self.body);
        ensure!(self.status.is_success(), "MinIO answers {}: {text}", self.status);
        Ok(self)
    }
}

impl Minio {
    /// Starts one; `secret` is its secret access key.
    ///
    /// # Errors
    /// When it cannot be built or does not come up.
    pub async fn start(directory: &Path, secret: &str) -> Result<Self> {
        let directory = directory.join("minio");
        std::fs::create_dir_all(&directory)?;
        let (port, secret) = (Port::reserve()?, secret.to_owned());
        let mut minio = Self { directory, port, secret, process: None };
        minio.resume().await?;
        Ok(minio)
    }

    /// Starts it (again) with what it had.
    ///
    /// # Errors
    /// As [`Minio::start`].
    pub async fn resume(&mut self) -> Result<()> {
        let binary = tokio::task::spawn_blocking(tools::minio).await??;
        let mut command = Command::new(binary);
        command
            .args(["server", "--quiet", "--address"])
            .arg(self.address())
            .arg("--certs-dir")
            .arg(self.directory.join("certs"))
            .arg(self.directory.join("data"))
            .envs([("MINIO_ROOT_USER", KEY_ID), ("MINIO_ROOT_PASSWORD", &*self.secret)])
            .envs([("MINIO_BROWSER", "off"), ("MINIO_UPDATE", "off")])
            .env("HOME", &self.directory);
        let mut process = Process::start("minio", command, &self.directory.join("minio.log"))?;
        // Its own health says ready before it takes requests.
        until("MinIO is ready", START_LIMIT, async || {
            process.check()?;
            Ok(match self.call(Method::GET, "", "", &[], "").await {
                Ok(answer) if answer.status.is_success() => Level::Reached(()),
                Ok(answer) => Level::NotYet(answer.status.to_string()),
                Err(error) => Level::NotYet(format!("{error:#}")),
            })
        })
        .await?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it in order; its data is kept.
    ///
    /// # Errors
    /// When it does not run or does not end.
    pub async fn stop(&mut self) -> Result<()> {
        let process = self.process.take().context("MinIO is not running")?;
        tokio::task::spawn_blocking(move || process.stop(STOP_LIMIT)).await?.map(drop)
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> String {
        self.port.address().to_string()
    }

    /// Its credentials in files.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn credential_files(&self) -> Result<(PathBuf, PathBuf)> {
        let (id, secret) = (self.directory.join("key-id"), self.directory.join("secret-key"));
        write_private(&id, KEY_ID)?;
        write_private(&secret, &format!("{}\n", self.secret))?;
        Ok((id, secret))
    }

    /// One signed request; `path` begins with the bucket, `query` is as it is signed (sorted, encoded).
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let body = body.into();
        let host = self.address();
        let signed = sign::headers(&sign::Request {
            method: method.as_str(),
            host: &host,
            path,
            query,
            headers,
            body: &body,
            key_id: KEY_ID,
            secret: &self.secret,
        });
        let mark = if query.is_empty() { "" } else { "?" };
        let mut request = Request::builder().method(method).uri(format!("/{path}{mark}{query}"));
        for (name, value) in signed {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body))?;
        let call = async {
            let stream = TcpStream::connect(&host).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let mut driver = JoinSet::new();
            driver.spawn(connection);
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            anyhow::Ok(Answer { status, body })
        };
        tokio::time::timeout(CALL_LIMIT, call).await.context("no answer from MinIO in time")?
    }

    /// Makes a bucket, with object lock and a default retention of a day if wanted.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn bucket(&self, name: &str, lock: bool) -> Result<()> {
        let headers: &[_] =
            if lock { &[("x-amz-bucket-object-lock-enabled", "true")] } else { &[] };
        self.call(Method::PUT, name, "", headers, "").await?.success()?;
        if lock {
            let retention = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>\
                <DefaultRetention><Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule>\
                </ObjectLockConfiguration>";
            self.call(Method::PUT, name, "object-lock=", &[], retention).await?.success()?;
        }
        Ok(())
    }

    /// Every version of every object of a bucket: key and version id. Fails if it has more than a page.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn versions(&self, bucket: &str) -> Result<Vec<(String, String)>> {
        let answer = self.call(Method::GET, bucket, "versions=", &[], "").await?.success()?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(text.contains("<IsTruncated>false<"), "more than a page of versions");
        let inner = |text: &str, tag: &str| {
            let (_, rest) = text.split_once(&format!("<{tag}>"))?;
            Some(rest.split_once(&format!("</{tag}>"))?.0.to_owned())
        };
        let versions = text.split("<Version>").skip(1);
        Ok(versions.filter_map(|part| inner(part, "Key").zip(inner(part, "VersionId"))).collect())
    }
}

impl Minio {
    /// Writes every object whose key begins with `prefix` below `into`, without the prefix.
    ///
    /// # Errors
    /// When one cannot be read or written.
    pub async fn download(&self, bucket: &str, prefix: &str, into: &Path) -> Result<usize> {
        let mut count = 0;
        for (key, _) in self.versions(bucket).await? {
            let Some(below) = key.strip_prefix(prefix) else { continue };
            let path = format!("{bucket}/{key}");
            let object = self.call(Method::GET, &path, "", &[], "").await?.success()?;
            let file = into.join(below.trim_start_matches('/'));
            std::fs::create_dir_all(file.parent().context("a file's directory")?)?;
            std::fs::write(&file, &object.body)?;
            count += 1;
        }
        Ok(count)
    }
}

const KEY_ID: &str = "decklog-rig";
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const CALL_LIMIT: Duration = Duration::from_secs(30);
