//! Who a token proves: refusals, rotation, an issuer that is down.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use rig::gateway::{Gateway, Options};
use rig::issuer::{Issuer, OldKeys};
use rig::wait::{Level, until};
use serde_json::{Value, json};

use crate::runner::{Scenario, scenario};
use crate::scene::{HOUR, Scene, search_until};

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("bad-tokens-are-refused", bad_tokens_are_refused),
        scenario!("login-token-is-accepted", login_token_is_accepted),
        scenario!("keys-rotate", keys_rotate),
        scenario!("issuer-down", issuer_down),
        scenario!("several-issuers", several_issuers),
    ]
}

async fn bad_tokens_are_refused(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let issuer = scene.issuer();
    let now = jiff::Timestamp::now().as_second();
    let cases: [(&str, Value); 12] = [
        ("expired", json!({"claims": {"exp": now - 3600}})),
        ("no expiry", json!({"claims": {"exp": null}})),
        ("not yet valid", json!({"claims": {"nbf": now + 3600}})),
        ("wrong audience", json!({"claims": {"aud": "another"}})),
        ("no audience", json!({"claims": {"aud": null}})),
        ("wrong issuer", json!({"claims": {"iss": "https://127.0.0.1:1"}})),
        ("issuer with a slash", json!({"claims": {"iss": format!("{}/", issuer.url())}})),
        ("foreign key under no known id", json!({"foreign": true})),
        ("system user", json!({"claims": {"sub": "system:admin"}})),
        ("empty user", json!({"claims": {"sub": ""}})),
        ("user with a line feed", json!({"claims": {"sub": "alice\nx"}})),
        ("system group", json!({"claims": {"groups": ["system:masters"]}})),
    ];
    for (what, mint) in cases {
        let token = scene.secret(issuer.mint(&mint).await?);
        refused(&gateway, &token).await.with_context(|| what.to_owned())?;
    }
    let good = scene.token("alice").await?;
    for (what, token) in forged(&good)? {
        refused(&gateway, &token).await.with_context(|| what.to_owned())?;
    }
    let bare = gateway.endpoint().get("/api/v1/namespaces").await?;
    ensure!(bare.status == StatusCode::UNAUTHORIZED, "without a token: {}", bare.status);
    let fine = gateway.endpoint().bearer(good).get("/api/v1/namespaces").await?;
    ensure!(fine.status == StatusCode::OK, "the good token: {} {}", fine.status, fine.text());
    search_until(&gateway, &["--status", "401"], |rows| !rows.is_empty()).await?;
    Ok(())
}

/// Tokens that no issuer makes, from a good one.
fn forged(good: &str) -> Result<Vec<(&'static str, String)>> {
    let mut parts = good.split('.');
    let (Some(header), Some(claims), Some(signature)) = (parts.next(), parts.next(), parts.next())
    else {
        anyhow::bail!("the issuer's token has no three parts");
    };
    let none = URL_SAFE_NO_PAD.encode(json!({"alg": "none", "typ": "JWT"}).to_string());
    let mut header_json: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
    header_json["alg"] = json!("HS256");
    let symmetric = URL_SAFE_NO_PAD.encode(header_json.to_string());
    let mut claims_json: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
    claims_json["groups"] = json!(["breakglass"]);
    let other_claims = URL_SAFE_NO_PAD.encode(claims_json.to_string());
    Ok(vec![
        ("alg none, no signature", format!("{none}.{claims}.")),
        ("alg none, with a signature", format!("{none}.{claims}.{signature}")),
        ("symmetric algorithm", format!("{symmetric}.{claims}.{signature}")),
        ("changed claims", format!("{header}.{other_claims}.{signature}")),
        ("cut signature", format!("{header}.{claims}.{}", &signature[..signature.len() - 4])),
        ("two parts", format!("{header}.{claims}")),
        ("no token at all", "x".to_owned()),
        ("over every bound", "a".repeat(60_000)),
    ])
}

async fn refused(gateway: &Gateway, token: &str) -> Result<()> {
    let reply = gateway.endpoint().bearer(token).get("/api/v1/namespaces").await?;
    // A token over the server's bound for headers never reaches identification.
    let too_large = reply.status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    ensure!(
        reply.status == StatusCode::UNAUTHORIZED || too_large,
        "{}: {}",
        reply.status,
        reply.text()
    );
    if !too_large {
        let status = reply.json()?;
        ensure!(
            status["kind"] == "Status"
                && status["reason"] == "Unauthorized"
                && status["code"] == 401,
            "not a Kubernetes Status: {status}"
        );
        ensure!(!reply.text().contains(token), "the answer repeats the token");
    }
    Ok(())
}

async fn login_token_is_accepted(scene: Rc<Scene>) -> Result<()> {
    let gateway = scene.gateway(&Options::default()).await?;
    let token = scene.secret(scene.issuer().login("bob").await?);
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let who =
        gateway.endpoint().bearer(token).json("POST", path, &review).await?.success()?.json()?;
    let user = &who["status"]["userInfo"];
    ensure!(user["username"] == "bob", "the API server sees {user}");
    let groups = user["groups"].as_array().cloned().unwrap_or_default();
    ensure!(groups.contains(&json!("agents")), "the API server sees {user}");
    let session = user["extra"]["decklog.dev/session"][0].as_str();
    ensure!(session.is_some_and(|session| !session.is_empty()), "no session in {user}");
    Ok(())
}

/// A key that is new is fetched when a token names it; a key that is gone is refused once that is known.
async fn keys_rotate(scene: Rc<Scene>) -> Result<()> {
    let issuer = scene.own_issuer("issuer", HOUR).await?;
    // The shortest that is allowed; the default is a minute.
    let config = json!({"authentication": {"keys": {"coolDown": "5s"}}});
    let options = Options { config, ..Options::default() };
    let gateway = own_gateway(&scene, &[&issuer], &options).await?;
    let old = scene.secret(issuer.token("alice").await?);
    works(&gateway, &old).await.context("before the rotation")?;
    issuer.rotate(OldKeys::Keep).await?;
    let new = scene.secret(issuer.token("alice").await?);
    works_soon(&gateway, &new).await.context("the new key")?;
    works(&gateway, &old).await.context("the old key, still published")?;
    issuer.rotate(OldKeys::Drop).await?;
    let newest = scene.secret(issuer.token("alice").await?);
    works_soon(&gateway, &newest).await.context("the newest key")?;
    refused(&gateway, &new).await.context("a key that is gone")?;
    refused(&gateway, &old).await.context("a key that is gone")
}

/// Known keys go on; what needs the issuer is refused, and works again when it is back.
async fn issuer_down(scene: Rc<Scene>) -> Result<()> {
    let mut issuer = scene.own_issuer("issuer", HOUR).await?;
    let mut gateway = own_gateway(&scene, &[&issuer], &Options::default()).await?;
    let known = scene.secret(issuer.token("alice").await?);
    let fresh = scene.secret(issuer.token("bob").await?);
    works(&gateway, &known).await?;
    issuer.stop()?;
    works(&gateway, &known).await.context("a known token while the issuer is down")?;
    works(&gateway, &fresh)
        .await
        .context("a new token with a known key while the issuer is down")?;
    gateway.kill()?;
    gateway.launch()?;
    // Without any key there is nobody to let in; and it says so.
    let not_ready = until("the health listener answers", Duration::from_secs(30), async || {
        gateway.check()?;
        Ok(match gateway.health("/readyz").await {
            Ok(answer) => Level::Reached(answer),
            Err(error) => Level::NotYet(format!("{error:#}")),
        })
    })
    .await?;
    ensure!(not_ready.0 == 503, "ready without any key: {not_ready:?}");
    let reply = gateway.endpoint().bearer(known.clone()).get("/api/v1/namespaces").await?;
    ensure!(reply.status == StatusCode::SERVICE_UNAVAILABLE, "{}: {}", reply.status, reply.text());
    issuer.resume().await?;
    gateway.ready().await.context("after the issuer came back")?;
    works(&gateway, &known).await
}

/// Two issuers with prefixes: the same name from both is two people, and one being down harms only its own.
async fn several_issuers(scene: Rc<Scene>) -> Result<()> {
    let one = scene.own_issuer("one", HOUR).await?;
    let mut two = scene.own_issuer("two", HOUR).await?;
    let jwt: Vec<_> = [(&one, "one:"), (&two, "two:")]
        .into_iter()
        .map(|(issuer, prefix)| {
            json!({
                "issuer": {
                    "url": issuer.url(), "audiences": ["decklog"],
                    "certificateAuthority": issuer.authority(),
                },
                "claimMappings": {
                    "username": {"claim": "sub", "prefix": prefix},
                    "groups": {"claim": "groups", "prefix": prefix},
                },
            })
        })
        .collect();
    let options = Options { config: json!({"authentication": {"jwt": jwt}}), ..Options::default() };
    let gateway = own_gateway(&scene, &[&one], &options).await?;
    let tokens =
        [one.token("alice").await?, two.token("alice").await?].map(|token| scene.secret(token));
    for token in &tokens {
        // Neither is known to the cluster under its prefix, so the API server refuses by name.
        let reply = gateway.endpoint().bearer(token.clone()).get("/api/v1/namespaces").await?;
        ensure!(reply.status == StatusCode::FORBIDDEN, "{}: {}", reply.status, reply.text());
    }
    let rows = search_until(&gateway, &["--status", "403"], |rows| rows.len() == 2).await?;
    ensure!(
        rows[0]["username"] == "one:alice" && rows[1]["username"] == "two:alice",
        "two people expected: {rows:?}"
    );
    ensure!(rows[0]["session"] != rows[1]["session"], "two people in one session");
    two.stop()?;
    let reply = gateway.endpoint().bearer(tokens[0].clone()).get("/api/v1/namespaces").await?;
    ensure!(reply.status == StatusCode::FORBIDDEN, "with the other issuer down: {}", reply.status);
    Ok(())
}

async fn own_gateway(scene: &Scene, issuers: &[&Issuer], options: &Options) -> Result<Gateway> {
    Gateway::start(scene.directory(), scene.plane(), issuers, options).await
}

/// Unknown key ids make the gateway fetch the keys, but not more often than its own limit allows.
async fn works_soon(gateway: &Gateway, token: &str) -> Result<()> {
    until("the token works", Duration::from_secs(30), async || {
        Ok(match works(gateway, token).await {
            Ok(()) => Level::Reached(()),
            Err(error) => Level::NotYet(format!("{error:#}")),
        })
    })
    .await
}

async fn works(gateway: &Gateway, token: &str) -> Result<()> {
    let reply = gateway.endpoint().bearer(token).get("/api/v1/namespaces").await?;
    ensure!(reply.status == StatusCode::OK, "{}: {}", reply.status, reply.text());
    Ok(())
}
