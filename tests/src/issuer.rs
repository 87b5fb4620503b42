//! The OIDC issuer: `oidc-provider` over TLS in a Node.js process of its own.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::client::Endpoint;
use crate::pki::{Authority, Files, write_private};
use crate::port::Port;
use crate::process::Process;
use crate::tools;
use crate::wait::{Level, until};

/// A running (or stopped) issuer.
#[derive(Debug)]
pub struct Issuer {
    directory: PathBuf,
    script: PathBuf,
    /// That of the endpoint, reserved.
    port: Port,
    tls: Files,
    authority: String,
    token_ttl: Duration,
    users: BTreeMap<String, Vec<String>>,
    endpoint: Endpoint,
    process: Option<Process>,
}

impl Issuer {
    /// Starts one on loopback. `users` are names with their groups; tokens last `token_ttl`.
    ///
    /// # Errors
    /// When Node.js or its packages are missing, or the issuer does not come up.
    pub async fn start(
        directory: &Path,
        users: &[(&str, &[&str])],
        token_ttl: Duration,
    ) -> Result<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST, directory, users, token_ttl).await
    }

    /// Starts one on this address of the host.
    ///
    /// # Errors
    /// As [`Issuer::start`].
    pub async fn start_on(
        host: Ipv4Addr,
        directory: &Path,
        users: &[(&str, &[&str])],
        token_ttl: Duration,
    ) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let script = tokio::task::spawn_blocking(tools::issuer).await??;
        let authority = Authority::new("rig issuer")?;
        let tls = authority.server("issuer", &[&host.to_string()])?.write(directory, "issuer")?;
        write_private(&directory.join("issuer-ca.crt"), authority.certificate())?;
        let port = Port::reserve()?;
        let address = (host, port.number()).into();
        let endpoint = Endpoint::new(address, authority.certificate(), None)?;
        let users = users
            .iter()
            .map(|(name, groups)| {
                ((*name).to_owned(), groups.iter().map(|&group| group.to_owned()).collect())
            })
            .collect();
        let mut issuer = Self {
            directory: directory.to_owned(),
            script,
            port,
            tls,
            authority: authority.certificate().to_owned(),
            token_ttl,
            users,
            endpoint,
            process: None,
        };
        issuer.resume().await?;
        Ok(issuer)
    }

    /// Its URL: the `iss` of its tokens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.endpoint.address())
    }

    /// The authority that signed its certificate, PEM.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A token as the user gets one: by the password grant of the token endpoint.
    ///
    /// # Errors
    /// When the issuer refuses or does not answer.
    pub async fn login(&self, user: &str) -> Result<String> {
        let form = format!(
            "grant_type=password&client_id=decklog&scope=openid&username={user}&password={user}-pw"
        );
        let request = http::Request::post("/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(crate::client::full(form))?;
        let reply = self.endpoint.call(request).await?.success()?.json()?;
        token(&reply["id_token"])
    }

    /// A token for `user` with its groups.
    ///
    /// # Errors
    /// As [`Issuer::mint`].
    pub async fn token(&self, user: &str) -> Result<String> {
        self.mint(&json!({"claims": {"sub": user}})).await
    }

    /// Any token: `{"claims": {…}, "header": {…}, "alg", "kid", "foreign"}`; a null claim is left out.
    ///
    /// # Errors
    /// When the issuer does not answer.
    pub async fn mint(&self, what: &Value) -> Result<String> {
        let reply = self.endpoint.json("POST", "/test/mint", what).await?.success()?.json()?;
        token(&reply["token"])
    }

    /// New signing keys; the old ones stay published unless dropped.
    ///
    /// # Errors
    /// When the issuer does not answer.
    pub async fn rotate(&self, old: OldKeys) -> Result<()> {
        let path = match old {
            OldKeys::Keep => "/test/rotate",
            OldKeys::Drop => "/test/rotate?drop=1",
        };
        self.endpoint.json("POST", path, &json!({})).await?.success()?;
        Ok(())
    }

    /// `{"jwks": N, "discovery": N}`: so many next answers fail; `delay_ms` makes them late.
    ///
    /// # Errors
    /// When the issuer does not answer.
    pub async fn fail(&self, what: &Value) -> Result<()> {
        self.endpoint.json("POST", "/test/fail", what).await?.success()?;
        Ok(())
    }

    /// How often key set and discovery document were fetched: `{"jwks", "discovery"}`.
    ///
    /// # Errors
    /// When the issuer does not answer.
    pub async fn stats(&self) -> Result<Value> {
        self.endpoint.get("/test/stats").await?.success()?.json()
    }

    /// Takes the issuer down; its port stays reserved and its keys are kept.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), Process::kill)
    }

    /// Brings it up (again), with the same keys.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn resume(&mut self) -> Result<()> {
        let mut command = Command::new("node");
        command
            .arg(&self.script)
            .env("HOST", self.endpoint.address().ip().to_string())
            .env("PORT", self.port.number().to_string())
            .env("TTL", self.token_ttl.as_secs().to_string())
            .env("TLS_CERT", &self.tls.certificate)
            .env("TLS_KEY", &self.tls.key)
            .env("USERS", serde_json::to_string(&self.users)?)
            .env("KEYS", self.directory.join("issuer-keys.json"));
        let mut process = Process::start("issuer", command, &self.directory.join("issuer.log"))?;
        until("the issuer answers", START_LIMIT, async || {
            process.check()?;
            Ok(match self.endpoint.get("/.well-known/openid-configuration").await {
                Ok(reply) => Level::when(reply.status.is_success(), || reply.status.to_string()),
                Err(error) => Level::NotYet(format!("{error:#}")),
            })
        })
        .await?;
        self.process = Some(process);
        Ok(())
    }
}

/// What a rotation does with the keys so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldKeys {
    /// They stay published.
    Keep,
    /// They are gone at once.
    Drop,
}

fn token(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).context("the issuer's answer has no token")
}

const START_LIMIT: Duration = Duration::from_secs(30);
