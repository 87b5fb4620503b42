//! Requests that try to be somebody else, or something that cannot be attributed.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::{Request, StatusCode};
use rig::client::{Protocol, full};
use rig::gateway::{Gateway, Options};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::runner::{Scenario, scenario};
use crate::scene::{Scene, search_until};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("client-impersonation-is-refused", client_impersonation_is_refused),
        scenario!("hop-by-hop-tricks-change-nothing", hop_by_hop_tricks_change_nothing),
        scenario!("unattributable-requests-are-denied", unattributable_requests_are_denied),
        scenario!("malformed-http-is-refused", malformed_http_is_refused),
        scenario!(
            "nothing-goes-on-after-a-refused-upgrade",
            nothing_goes_on_after_a_refused_upgrade
        ),
        scenario!("upgrades-that-would-not-be-decoded", upgrades_that_would_not_be_decoded),
        scenario!("credentials-elsewhere-do-not-count", credentials_elsewhere_do_not_count),
    ]
}

/// Somebody without rights asks for a thing that only others may: any trick that worked would show as 200.
const WANTED: &str = "/api/v1/namespaces/default/secrets";

async fn client_impersonation_is_refused(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let before = scene.plane().audit_events()?.len();
    let nobody = scene.as_user(&gateway, "nobody").await?;
    for (name, value) in [
        ("Impersonate-User", "alice"),
        ("impersonate-user", "system:admin"),
        ("IMPERSONATE-USER", ""),
        ("Impersonate-Group", "system:masters"),
        ("Impersonate-Uid", "0"),
        ("Impersonate-Extra-scopes", "all"),
        ("Impersonate-Foo", "bar"),
        ("Impersonate_User", "alice"),
    ] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let request = Request::get(WANTED).header(name, value).body(full(""))?;
            let reply = nobody.connect(protocol).await?.call(request).await?;
            let refused = [StatusCode::FORBIDDEN, StatusCode::BAD_REQUEST].contains(&reply.status);
            ensure!(
                refused,
                "{name}: {value:?} over {protocol:?}: {} {}",
                reply.status,
                reply.text()
            );
        }
    }
    let kubeconfig = gateway.kubeconfig("alice", &scene.token("alice").await?, None)?;
    let output = scene.run(&kubeconfig, &["get", "secrets", "--as", "system:admin"]).await?;
    ensure!(!output.success() && output.stderr.contains("Forbidden"), "kubectl --as: {output:?}");
    nobody_elses_identity_arrived(&scene, before, "nobody")
}

async fn hop_by_hop_tricks_change_nothing(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let before = scene.plane().audit_events()?.len();
    let token = scene.token("dave").await?;
    let own = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    for headers in [
        "Connection: Impersonate-User\r\n",
        "Connection: Impersonate-User, Impersonate-Group, Authorization, Upgrade\r\n",
        "Connection: keep-alive, impersonate-group\r\n",
        "Keep-Alive: Impersonate-User\r\n",
        "TE: Impersonate-User\r\n",
        "Proxy-Connection: Impersonate-User\r\n",
        "Connection: Impersonate-Extra-decklog.dev%2Fsession\r\n",
        "X-Remote-User: system:admin\r\nX-Remote-Group: system:masters\r\n",
        "X-Remote-Extra-Scopes: all\r\nX-Remote-Uid: 0\r\n",
    ] {
        let request = format!(
            "POST {own} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n{review}",
            review.len()
        );
        let response = raw(&gateway, &request).await?;
        let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let status = response.split(' ').nth(1).unwrap_or_default();
        if status == "201" {
            let who: Value = serde_json::from_str(body).with_context(|| body.to_owned())?;
            let user = &who["status"]["userInfo"];
            ensure!(user["username"] == "dave", "{headers:?} made the API server see {user}");
            ensure!(
                !user["groups"].to_string().contains("masters"),
                "{headers:?} made it see {user}"
            );
            ensure!(
                user["extra"]["decklog.dev/session"].is_array(),
                "{headers:?} lost our extra: {user}"
            );
        } else {
            // Refusing such a request is as good (501: it asks for an upgrade); failing or silence is not.
            ensure!(["400", "403", "501"].contains(&status), "{headers:?}: {response}");
        }
    }
    // Trailers come after everything was decided: they must not reach the API server as headers.
    let trailers = format!(
        "POST {own} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nTrailer: Impersonate-User\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{review}\r\n0\r\nImpersonate-User: system:admin\r\n\r\n",
        review.len()
    );
    let response = raw(&gateway, &trailers).await?;
    ensure!(!response.contains("system:admin"), "a trailer became an identity: {response}");
    nobody_elses_identity_arrived(&scene, before, "dave")
}

/// In the API server's own audit log, whatever a gateway sent since was for `user`, or for the kubectl of alice.
fn nobody_elses_identity_arrived(scene: &Scene, before: usize, user: &str) -> Result<()> {
    for event in scene.plane().audit_events()?.into_iter().skip(before) {
        let by_gateway = event["user"]["username"] == "system:serviceaccount:decklog:gateway";
        if by_gateway {
            let as_whom = &event["impersonatedUser"]["username"];
            ensure!(as_whom == user || as_whom == "alice", "the API server saw {event}");
        }
    }
    Ok(())
}

async fn unattributable_requests_are_denied(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let token = scene.token("alice").await?;
    let before = scene.plane().audit_events()?.len();
    for target in [
        "/api/v1/namespaces/default//secrets",
        "//api/v1/namespaces/default/secrets",
        "/api/v1/./namespaces/default/secrets",
        "/api/v1/namespaces/default/../kube-system/secrets",
        "/api/v1/namespaces/default%2fsecrets",
        "/api/v1/namespaces/%2e%2e/secrets",
        "/api/v1/namespaces/default/secrets%00",
        "/clusters/absent/api/v1/namespaces",
        "/tasks/bad%20task/api/v1/namespaces",
        "/tasks//api/v1/namespaces",
    ] {
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
        let response = raw(&gateway, &request).await?;
        let status = response.split(' ').nth(1).unwrap_or_default().to_owned();
        ensure!(["400", "403", "404"].contains(&&*status), "{target}: {response}");
    }
    let after = scene.plane().audit_events()?;
    let new = &after[before..];
    let ours =
        |event: &&Value| event["user"]["username"] == "system:serviceaccount:decklog:gateway";
    let passed: Vec<_> =
        new.iter().filter(ours).map(|event| event["requestURI"].to_string()).collect();
    ensure!(passed.is_empty(), "reached the API server: {passed:?}");
    search_until(&gateway, &["--verdict", "deny"], |rows| rows.len() >= 5).await?;
    Ok(())
}

async fn malformed_http_is_refused(scene: Rc<Scene>) -> Result<()> {
    let mut gateway = scene.gateway(&Options::default()).await?;
    let token = scene.token("alice").await?;
    let post = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\n";
    let smuggled = "GET /api/v1/namespaces/default/secrets HTTP/1.1\r\nHost: x\r\n\r\n";
    for (what, request) in [
        (
            "length and chunks",
            format!(
                "{post}Authorization: Bearer {token}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
            ),
        ),
        (
            "two lengths",
            format!(
                "{post}Authorization: Bearer {token}\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n{{}}  {smuggled}"
            ),
        ),
        (
            "unknown transfer coding",
            format!(
                "{post}Authorization: Bearer {token}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "two tokens",
            format!(
                "GET /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nAuthorization: Bearer x\r\n\r\n"
            ),
        ),
        (
            "folded header",
            format!(
                "GET /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer\r\n {token}\r\n\r\n"
            ),
        ),
        ("no version", "GET /api\r\n\r\n".to_owned()),
        ("noise", "\x16\x03\x01\0\0\r\n\r\n".to_owned()),
    ] {
        let response = raw(&gateway, &request).await.with_context(|| what.to_owned())?;
        let first = response.split(' ').nth(1).unwrap_or_default();
        // An empty answer is a closed connection: fine. Success is not, nor a second answer after the first.
        ensure!(!first.starts_with('2'), "{what}: {response}");
        ensure!(response.matches("HTTP/1.1 200").count() == 0, "{what}: smuggled: {response}");
    }
    gateway.check()?;
    let fine = gateway.endpoint().bearer(token).get("/api/v1/namespaces").await?;
    ensure!(fine.status == StatusCode::OK, "afterwards: {}", fine.status);
    Ok(())
}

/// CVE-2018-1002105, CVE-2020-8559: the API server answers an upgrade with anything but 101, and what the
/// client sent behind its head must not be taken for a request, here or there.
async fn nothing_goes_on_after_a_refused_upgrade(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let token = scene.token("alice").await?;
    let before = scene.plane().audit_events()?.len();
    let absent = "/api/v1/namespaces/default/pods/absent-0";
    let behind = format!(
        "DELETE /api/v1/namespaces/default/configmaps/kube-root-ca.crt HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer {token}\r\nImpersonate-User: system:admin\r\n\r\n"
    );
    let asks = [
        ("GET", "exec?command=id&stdout=1", "websocket"),
        ("POST", "exec?command=id&stdout=1", "SPDY/3.1"),
        ("POST", "attach?stdout=1", "WebSocket"),
        ("GET", "portforward?ports=80", "spdy/3.1"),
    ];
    for (method, tail, upgrade) in asks {
        let request = format!(
            "{method} {absent}/{tail} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Connection: Upgrade\r\nUpgrade: {upgrade}\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\
             Content-Length: 0\r\n\r\n{behind}"
        );
        let response = raw(&gateway, &request).await?;
        ensure!(response.starts_with("HTTP/1.1 404"), "{method} with {upgrade}: {response}");
        ensure!(response.contains("\"kind\":\"Status\""), "not a Status: {response}");
        ensure!(response.contains("connection: close"), "kept open: {response}");
        ensure!(response.matches("HTTP/1.1").count() == 1, "a second answer: {response}");
    }
    let rows = search_until(&gateway, &["--status", "404"], |rows| rows.len() >= 4).await?;
    ensure!(rows.iter().all(|row| row["effect"] == "nothing"), "{rows:?}");
    let events = scene.plane().audit_events()?.split_off(before);
    let deleted = events.iter().any(|event| event["verb"] == "delete");
    ensure!(!deleted, "what came behind a refused upgrade was served");
    Ok(())
}

/// A watch over WebSocket would pass redaction by, and `h2c` everything: they do not reach the API server.
async fn upgrades_that_would_not_be_decoded(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let token = scene.token("alice").await?;
    let before = scene.plane().audit_events()?.len();
    let pod = "/api/v1/namespaces/default/pods/absent-0";
    for (target, headers, status) in [
        ("/api/v1/namespaces/default/secrets?watch=1", "Upgrade: websocket\r\n", 501),
        ("/api/v1/namespaces", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", 501),
        (&format!("{pod}/log?follow=1"), "Upgrade: websocket\r\n", 501),
        (&format!("{pod}/exec?command=id"), "Upgrade: websocket, SPDY/3.1\r\n", 400),
        (&format!("{pod}/exec?command=id"), "Upgrade: websocket\r\nUpgrade: SPDY/3.1\r\n", 400),
        (&format!("{pod}/exec?command=id"), "Upgrade: h2c\r\n", 400),
        (&format!("{pod}/exec?command=id"), "Upgrade: websocket\r\nContent-Length: 2\r\n", 400),
    ] {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Connection: Upgrade\r\n{headers}\r\n"
        );
        let response = raw(&gateway, &request).await?;
        let expected = format!("HTTP/1.1 {status}");
        ensure!(response.starts_with(&expected), "{target} with {headers}: {response}");
    }
    let after = scene.plane().audit_events()?;
    let ours = |event: &&Value| event["impersonatedUser"]["username"] == "alice";
    ensure!(after[before..].iter().filter(ours).count() == 0, "an upgrade reached the API server");
    Ok(())
}

/// A token anywhere but in `Authorization` is no credential, and is not recorded either.
async fn credentials_elsewhere_do_not_count(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let token = scene.token("alice").await?;
    let basic = "Authorization: Basic YWxpY2U6YWxpY2UtcHc=\r\n".to_owned();
    for (target, headers) in [
        (format!("/api/v1/namespaces?access_token={token}"), String::new()),
        (format!("/api/v1/namespaces?token={token}"), String::new()),
        ("/api/v1/namespaces".to_owned(), format!("Cookie: token={token}\r\n")),
        ("/api/v1/namespaces".to_owned(), format!("Proxy-Authorization: Bearer {token}\r\n")),
        ("/api/v1/namespaces".to_owned(), format!("X-Auth-Token: {token}\r\n")),
        ("/api/v1/namespaces".to_owned(), basic),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        let response = raw(&gateway, &request).await?;
        ensure!(response.starts_with("HTTP/1.1 401"), "{headers}: {response}");
    }
    Ok(())
}

/// Sends bytes over TLS and reads until the server closes, or has been silent for a while.
async fn raw(gateway: &Gateway, request: &str) -> Result<String> {
    let mut stream = gateway.endpoint().tls(&[b"http/1.1"]).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let quiet = if response.is_empty() { FIRST_ANSWER } else { QUIET };
        match tokio::time::timeout(quiet, stream.read(&mut buffer)).await {
            Ok(Ok(count)) if count > 0 => response.extend_from_slice(&buffer[..count]),
            _ => break,
        }
    }
    Ok(String::from_utf8_lossy(&response).into_owned())
}

const FIRST_ANSWER: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(300);
