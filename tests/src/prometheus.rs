//! A real Prometheus that scrapes the gateway.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::pki::write_private;
use crate::port::Port;
use crate::process::Process;
use crate::tools;
use crate::wait::{Level, until};

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    port: Port,
    _process: Process,
}

impl Prometheus {
    /// Starts one that scrapes `target` (host:port, `/metrics`) every half second.
    ///
    /// # Errors
    /// When it cannot be built or does not come up.
    pub async fn start(directory: &Path, target: &str) -> Result<Self> {
        let binary = tokio::task::spawn_blocking(tools::prometheus).await??;
        let directory = directory.join("prometheus");
        std::fs::create_dir_all(&directory)?;
        let config = json!({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
            "scrape_configs": [{"job_name": "gateway", "static_configs": [{"targets": [target]}]}],
        });
        let file = directory.join("prometheus.yml");
        write_private(&file, &config.to_string())?;
        let port = Port::reserve()?;
        let mut command = Command::new(binary);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={}", port.address()));
        let log = directory.join("prometheus.log");
        let mut process = Process::start("prometheus", command, &log)?;
        until("Prometheus is ready", START_LIMIT, async || {
            process.check()?;
            Ok(match plain_get(&port.address().to_string(), "/-/ready").await {
                Ok((200, _)) => Level::Reached(()),
                Ok((status, body)) => Level::NotYet(format!("{status} {body}")),
                Err(error) => Level::NotYet(format!("{error:#}")),
            })
        })
        .await?;
        Ok(Self { port, _process: process })
    }

    /// The first value that a query answers with; none when it has no result.
    ///
    /// # Errors
    /// When Prometheus refuses the query.
    pub async fn query(&self, promql: &str) -> Result<Option<f64>> {
        let path = format!("/api/v1/query?query={}", utf8_percent_encode(promql, NON_ALPHANUMERIC));
        let (status, body) = plain_get(&self.port.address().to_string(), &path).await?;
        let answer: Value =
            serde_json::from_str(&body).with_context(|| format!("{status}: {body}"))?;
        let value = &answer["data"]["result"][0]["value"][1];
        Ok(value.as_str().and_then(|text| text.parse().ok()))
    }
}

/// A plain HTTP `GET`: status and body. For the health listener and Prometheus.
///
/// # Errors
/// When nobody answers.
pub async fn plain_get(address: &str, path: &str) -> Result<(u16, String)> {
    let whole = async {
        let mut stream =
            TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        // HTTP/1.0: no chunked coding, and the connection's end is the body's.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await?;
        let response = String::from_utf8_lossy(&response);
        let (head, body) = response.split_once("\r\n\r\n").context("no HTTP response")?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok((status.with_context(|| format!("no status in {head}"))?, body.to_owned()))
    };
    tokio::time::timeout(GET_LIMIT, whole).await.context("no response in time")?
}

const START_LIMIT: Duration = Duration::from_secs(60);
const GET_LIMIT: Duration = Duration::from_secs(20);
