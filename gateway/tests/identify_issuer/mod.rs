//! An issuer of tokens over real TLS on port 0, and a gateway configuration that trusts it.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use gateway::{
    config::{Authentication, Config},
    identify::Identifier,
};
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, jwk::Jwk};
use rcgen::{CertificateParams, KeyPair};
use recorder_user::model::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{PrivateKeyDer, pem::PemObject as _},
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A key that signs tokens.
pub(crate) struct SigningKey {
    pub(crate) id: Option<String>,
    pub(crate) algorithm: Algorithm,
    pub(crate) public_pem: String,
    encoding: EncodingKey,
}

impl SigningKey {
    pub(crate) fn rsa(id: &str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("an RSA key");
        let pem = pair.serialize_pem();
        let encoding = EncodingKey::from_rsa_pem(pem.as_bytes()).expect("PKCS#8");
        let public_pem = pair.public_key_pem();
        Self { id: Some(id.into()), algorithm: Algorithm::RS256, public_pem, encoding }
    }

    pub(crate) fn p256(id: &str) -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a P-256 key");
        let pem = pair.serialize_pem();
        let encoding = EncodingKey::from_ec_pem(pem.as_bytes()).expect("PKCS#8");
        let public_pem = pair.public_key_pem();
        Self { id: Some(id.into()), algorithm: Algorithm::ES256, public_pem, encoding }
    }

    /// One RSA key for all tests of a binary: making one takes long.
    pub(crate) fn shared() -> &'static Self {
        static KEY: OnceLock<SigningKey> = OnceLock::new();
        KEY.get_or_init(|| Self::rsa("shared"))
    }

    pub(crate) fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.encoding, self.algorithm).expect("a JWK");
        let mut value = serde_json::to_value(jwk).expect("JSON");
        value["use"] = json!("sig");
        value["kid"] = json!(self.id);
        value
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let mut header = json!({"alg": format!("{:?}", self.algorithm), "typ": "JWT"});
        if let Some(id) = &self.id {
            header["kid"] = json!(id);
        }
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// Signs any text, for headers and claims that a serializer would not make.
    pub(crate) fn sign_text(&self, header: &str, claims: &str) -> String {
        sign_with(header, claims, &self.encoding, self.algorithm)
    }
}

pub(crate) fn sign_with(
    header: &str,
    claims: &str,
    key: &EncodingKey,
    algorithm: Algorithm,
) -> String {
    let signed = unsigned(header, claims);
    let signature =
        jsonwebtoken::crypto::sign(signed.as_bytes(), key, algorithm).expect("a signature");
    format!("{signed}.{signature}")
}

pub(crate) fn unsigned(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

#[derive(Default)]
struct State {
    keys: Vec<Value>,
    /// Connections are closed at once.
    down: bool,
    /// Answered instead of the right metadata.
    discovery: Option<Response<Full<Bytes>>>,
}

/// The issuer. It ends with the test's runtime.
pub(crate) struct TestIssuer {
    pub(crate) url: String,
    pub(crate) certificate: String,
    state: Arc<Mutex<State>>,
    key_requests: Arc<AtomicU64>,
    /// While true, requests for keys wait.
    held: watch::Sender<bool>,
}

impl TestIssuer {
    pub(crate) async fn start(keys: &[&SigningKey]) -> Self {
        let pair = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".into()]).expect("parameters");
        let certificate = params.self_signed(&pair).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(pair.serialize_pem().as_bytes()).expect("PEM");
        let tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a server configuration");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let issuer = Self {
            url: format!("https://localhost:{port}"),
            certificate: certificate.pem(),
            state: Arc::default(),
            key_requests: Arc::default(),
            held: watch::Sender::new(false),
        };
        issuer.publish(keys);
        let (state, key_requests) = (Arc::clone(&issuer.state), Arc::clone(&issuer.key_requests));
        let (url, held) = (issuer.url.clone(), issuer.held.clone());
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(tls));
            while let Ok((socket, _)) = listener.accept().await {
                if state.lock().expect("no panic").down {
                    continue;
                }
                let (acceptor, url, held) = (acceptor.clone(), url.clone(), held.clone());
                let (state, key_requests) = (Arc::clone(&state), Arc::clone(&key_requests));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let service = hyper::service::service_fn(|request| {
                        let answer = answer(&request, &url, &state, &key_requests);
                        let (mut held, keys) = (held.subscribe(), request.uri().path() == "/keys");
                        async move {
                            if keys {
                                drop(held.wait_for(|held| !held).await);
                            }
                            Ok::<_, std::convert::Infallible>(answer)
                        }
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    drop(connection.await);
                });
            }
        });
        issuer
    }

    pub(crate) fn publish(&self, keys: &[&SigningKey]) {
        self.publish_json(keys.iter().map(|key| key.jwk()).collect());
    }

    pub(crate) fn publish_json(&self, keys: Vec<Value>) {
        self.state.lock().expect("no panic").keys = keys;
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.state.lock().expect("no panic").down = down;
    }

    /// Lets requests for keys wait, or go on.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    pub(crate) fn answer_discovery(&self, answer: Response<Full<Bytes>>) {
        self.state.lock().expect("no panic").discovery = Some(answer);
    }

    pub(crate) fn key_requests(&self) -> u64 {
        self.key_requests.load(Ordering::SeqCst)
    }

    /// Claims that are good, for an hour.
    pub(crate) fn claims(&self, now: Timestamp) -> Value {
        let seconds = now.as_micros() / 1_000_000;
        json!({
            "iss": self.url, "aud": "decklog", "sub": "alice", "exp": seconds + 3600,
            "iat": seconds, "jti": "token-1", "groups": ["developers", "oncall"],
        })
    }

    /// Its entry in the configuration.
    pub(crate) fn entry(&self, prefix: &str) -> Value {
        json!({
            "issuer": {
                "url": self.url, "audiences": ["decklog"], "certificateAuthority": self.certificate,
            },
            "claimMappings": {
                "username": {"claim": "sub", "prefix": prefix},
                "groups": {"claim": "groups", "prefix": ""},
            },
        })
    }
}

fn answer(
    request: &Request<hyper::body::Incoming>,
    url: &str,
    state: &Mutex<State>,
    key_requests: &AtomicU64,
) -> Response<Full<Bytes>> {
    let state = state.lock().expect("no panic");
    let json = |value: &Value| {
        Response::builder()
            .header("content-type", "application/json")
            .body(Full::new(value.to_string().into()))
            .expect("a response")
    };
    match request.uri().path() {
        "/.well-known/openid-configuration" => match &state.discovery {
            Some(answer) => answer.clone(),
            // As a Kubernetes API server has it: without an authorization endpoint.
            None => json(&json!({"issuer": url, "jwks_uri": format!("{url}/keys")})),
        },
        "/keys" => {
            key_requests.fetch_add(1, Ordering::SeqCst);
            json(&json!({"keys": state.keys}))
        }
        _ => Response::builder().status(404).body(Full::default()).expect("a response"),
    }
}

/// A configuration file with these issuers, and what it refers to.
pub(crate) fn configuration(jwt: &[Value]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("gateway.yaml");
    for name in ["tls.crt", "tls.key", "token"] {
        std::fs::write(directory.path().join(name), "text").expect("a file");
    }
    std::fs::create_dir(directory.path().join("access")).expect("a directory");
    // JSON is YAML.
    let text = json!({
        "listen": "127.0.0.1:0",
        "tls": {"certificate": "tls.crt", "key": "tls.key"},
        "store": {"directory": "store"},
        "clusters": [{
            "name": "rig", "server": "https://10.0.0.1:6443", "credential": {"tokenFile": "token"},
        }],
        "authentication": {"jwt": jwt},
        "policy": {"access": "access"},
    });
    std::fs::write(&file, text.to_string()).expect("a file");
    (directory, file)
}

/// A running identifier, and what ends it.
pub(crate) struct Running {
    pub(crate) identifier: Arc<Identifier>,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn start(jwt: &[Value], change: impl FnOnce(&mut Authentication)) -> Running {
    let (_directory, file) = configuration(jwt);
    let mut config = Config::load(&file).expect("a good configuration");
    change(&mut config.authentication);
    let stop = CancellationToken::new();
    let identifier = Identifier::start(&config.authentication, &TaskTracker::new(), &stop);
    Running { identifier, stop }
}

/// As [`start`], with its keys.
pub(crate) async fn started(jwt: &[Value], change: impl FnOnce(&mut Authentication)) -> Running {
    let running = start(jwt, change);
    within(running.identifier.wait_ready()).await;
    running
}

/// Fails the test when something that must happen does not.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("within the deadline")
}

/// Waits for a level.
pub(crate) async fn until(mut level: impl FnMut() -> bool) {
    within(async {
        while !level() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
