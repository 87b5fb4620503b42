//! What a configuration may say, and what is said about one that may not.

use std::{fs, path::PathBuf, time::Duration};

use recorder_user::store::IndexBackend;
use tempfile::TempDir;

mod store;

use super::{Config, Credential, LoadConfigError, WitnessMode, clusters::Environment, validate};

/// A directory with the files that the configurations of these tests name.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        for name in ["tls.crt", "tls.key", "token", "client.crt", "client.key"] {
            fs::write(root.join(name), "text").expect("a file");
        }
        fs::write(root.join("ca.crt"), certificate()).expect("a file");
        for name in ["policy/access", "policy/recording"] {
            fs::create_dir_all(root.join(name)).expect("a directory");
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn load(&self, text: &str) -> Result<Config, LoadConfigError> {
        fs::write(self.path("gateway.yaml"), text).expect("a file");
        Config::load(&self.path("gateway.yaml"))
    }
}

fn certificate() -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let parameters = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("parameters");
    parameters.self_signed(&key).expect("a certificate").pem()
}

const GOOD: &str = r#"
listen: 0.0.0.0:8443
tls: {certificate: tls.crt, key: tls.key}
store: {directory: data}
clusters:
- name: prod
  server: https://10.0.0.1:6443
  certificateAuthority: ca.crt
  credential: {tokenFile: token}
authentication:
  jwt:
  - issuer: {url: https://idp.example, audiences: [decklog]}
    claimMappings: {username: {claim: sub, prefix: ""}, groups: {claim: groups, prefix: ""}}
policy: {access: policy/access}
"#;

/// The good configuration with one text replaced, and the problems that must be found then.
fn check(from: &str, to: &str, expected: &[&str]) {
    let text = GOOD.replacen(from, to, 1);
    assert_ne!(text, GOOD, "`{from}` is not in the good configuration");
    let error = Place::new().load(&text).expect_err(to);
    let found: Vec<String> = error.problems().iter().map(ToString::to_string).collect();
    let all_there = expected.iter().all(|part| found.iter().any(|line| line.contains(part)));
    assert!(
        all_there && found.len() == expected.len(),
        "{to}\nexpected {expected:?}\nfound {found:#?}"
    );
}

#[test]
fn defaults_and_relative_paths() {
    let place = Place::new();
    let config = place.load(GOOD).expect("good");
    assert_eq!(config.store.directory, place.path("data"));
    assert_eq!(config.tls.certificate, place.path("tls.crt"));
    assert_eq!(config.policy.access, place.path("policy/access"));
    assert_eq!(config.policy.recording, None);
    assert_eq!(config.health, None);
    assert_eq!(config.sessions.idle, Duration::from_secs(900));
    assert_eq!(config.store.segment_bytes_max, 256 << 20);
    assert_eq!(config.store.queue_bytes_max, 64 << 20);
    assert_eq!(config.store.sync_interval, Duration::from_millis(100));
    assert_eq!(config.store.free_floor_bytes, None);
    assert_eq!(config.store.index, IndexBackend::default());
    assert_eq!(config.store.segment_age_max, Duration::from_secs(24 * 60 * 60));
    assert_eq!(config.store.checkpoint_interval, Duration::from_secs(10));
    assert_eq!(config.store.encryption, None);
    assert!(config.store.record_access);
    assert_eq!(config.witness.mode, WitnessMode::Auto);
    let cluster = config.cluster(None).expect("the only one is the default");
    assert_eq!(cluster.server.authority(), "10.0.0.1:6443");
    assert_eq!(cluster.credential, Credential::TokenFile(place.path("token")));
    assert!(cluster.certificate_authority.is_some());
    assert!(config.cluster(Some("prod")).is_some() && config.cluster(Some("other")).is_none());
    let issuer = &config.authentication.issuers[0];
    assert_eq!(
        issuer.discovery_url.as_str(),
        "https://idp.example/.well-known/openid-configuration"
    );
    assert_eq!(config.authentication.keys.cool_down, Duration::from_secs(60));
}

#[test]
fn all_problems_are_reported_at_once() {
    let place = Place::new();
    let text = r#"
listen: localhost
tls: {certificate: missing.crt, key: tls.key}
health: {listen: 0.0.0.0:9080, path: /}
admin: {listen: 127.0.0.1:9443}
store: {directory: data, segmentSize: 64MB}
clusters:
- {name: Prod, server: "http://10.0.0.1", credential: {tokenFile: token}}
- {name: b, server: https://b.example, credential: {forwarder: f}}
authentication:
  keys: {refresh: 5m, maxStale: soon}
  jwt:
  - issuer: {url: https://idp.example, audiences: []}
    claimMappings: {username: {expression: claims.sub}}
policy: {access: nowhere}
witness: {mode: magic}
sessions: {idle: 1s}
sesions:
"#;
    let error = place.load(text).expect_err("wrong in many ways");
    let paths: Vec<&str> = error.problems().iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "listen",
            "tls.certificate",
            "health",
            "admin",
            "store.segmentSize",
            "clusters[0].name",
            "clusters[0].server",
            "clusters[1].credential.forwarder",
            "authentication.keys.maxStale",
            "authentication.jwt[0].claimMappings.username.expression",
            "authentication.jwt[0].claimMappings.username.prefix",
            "authentication.jwt[0].issuer.audiences",
            "policy.access",
            "witness.mode",
            "sessions.idle",
            "sesions",
        ],
        "{error}"
    );
    assert!(error.to_string().contains("16 problems"), "{error}");
}

#[test]
fn files_that_are_no_configuration() {
    let place = Place::new();
    let empty = place.load("").expect_err("nothing");
    assert_eq!(empty.problems().len(), 6, "one for each required section: {empty}");
    for text in ["- a", "listen: [", "listen: 0.0.0.0:1\nlisten: 0.0.0.0:2", "just text"] {
        assert_eq!(place.load(text).expect_err(text).problems().len(), 1, "{text}");
    }
    let missing = Config::load(&place.path("missing.yaml")).expect_err("no file");
    assert!(missing.to_string().contains("missing.yaml"));
    let huge = "#".repeat(2 << 20);
    assert!(place.load(&huge).expect_err("huge").to_string().contains("more than"));
}

#[test]
fn clusters() {
    check("name: prod", "name: -prod", &["clusters[0].name"]);
    check("- name: prod", "- name: prod\n  nmae: x", &["clusters[0]: unknown field `nmae`"]);
    check("https://10.0.0.1:6443", "https://u:p@10.0.0.1", &["clusters[0].server: must not hold"]);
    check("https://10.0.0.1:6443", "nonsense", &["clusters[0].server"]);
    check("ca.crt", "token", &["clusters[0].certificateAuthority: holds no certificate"]);
    check("ca.crt", "none.crt", &["clusters[0].certificateAuthority: cannot read"]);
    check("{tokenFile: token}", "{tokenFile: none}", &["clusters[0].credential.tokenFile"]);
    check("{tokenFile: token}", "{}", &["clusters[0].credential: must be exactly one"]);
    check("{tokenFile: token}", "{inCluster: false}", &["must be exactly one"]);
    check("{tokenFile: token}", "{tokenFile: token, inCluster: true}", &["must be exactly one"]);
    check("{tokenFile: token}", "{clientCertificate: client.crt}", &["must be exactly one"]);
    check("{tokenFile: token}", "{tokenFile: token, context: x}", &["context: needs"]);
    check("{tokenFile: token}", "{token: secret}", &["unknown field `token`"]);
    check("credential: {tokenFile: token}", "", &["clusters[0].credential: is required"]);
    check("server: https://10.0.0.1:6443", "", &["clusters[0].server: is required"]);
    let second = |rest: &str| {
        format!(
            "clusters:\n- {{name: b, server: https://b, credential: {{tokenFile: token}}{rest}}}"
        )
    };
    check("clusters:", &second(""), &["one must have `default: true`"]);
    check(
        "clusters:",
        &second("").replace("name: b", "name: prod"),
        &["clusters[1].name", "one must have"],
    );
    let both = GOOD.replacen("clusters:", &second(", default: true"), 1);
    let config = Place::new().load(&both).expect("one default");
    assert_eq!(config.cluster(None).map(|cluster| cluster.name.as_str()), Some("b"));
    let too_many = second(", default: true");
    let text = GOOD.replacen("name: prod", "name: prod\n  default: true", 1);
    let error = Place::new().load(&text.replacen("clusters:", &too_many, 1)).expect_err("two");
    assert!(error.to_string().contains("2 clusters have"), "{error}");
}

#[test]
fn in_cluster_takes_the_server_from_the_environment() {
    let place = Place::new();
    let text = GOOD.replacen("{tokenFile: token}", "{inCluster: true}", 1).replacen(
        "server: https://10.0.0.1:6443",
        "",
        1,
    );
    let environment: Environment<'_> = &|name| match name {
        "KUBERNETES_SERVICE_HOST" => Some("fd00::1".into()),
        "KUBERNETES_SERVICE_PORT" => Some("6443".into()),
        _ => None,
    };
    let config = validate::config(&text, &place.path("gateway.yaml"), environment).expect("good");
    assert_eq!(config.clusters[0].server.authority(), "[fd00::1]:6443");
    assert_eq!(config.clusters[0].server.certificate_name(), "fd00::1");
}

#[test]
fn issuers() {
    check("https://idp.example", "http://idp.example", &["issuer.url: must begin with https://"]);
    check("https://idp.example", "http://127.0.0.1:1", &["issuer.url: must begin with https://"]);
    check("https://idp.example", "https://idp.example?x=1", &["issuer.url: must not have"]);
    check("[decklog]", "[a, b]", &["audienceMatchPolicy: must be MatchAny"]);
    check("[decklog]", "[a, a], audienceMatchPolicy: MatchAny", &["names `a` twice"]);
    check("[decklog]", "[a], audienceMatchPolicy: MatchAll", &["audienceMatchPolicy"]);
    check("[decklog]", "[a], discoveryURL: https://idp.example", &["discoveryURL: is the same"]);
    check("[decklog]", "[a], egressSelectorType: cluster", &["egressSelectorType"]);
    check("[decklog]", "[5]", &["authentication.jwt[0].issuer: invalid type"]);
    check("[decklog]", "[a], certificateAuthority: nothing.crt", &["certificateAuthority"]);
    check("{claim: sub, prefix: \"\"}", "{claim: sub}", &["username.prefix: is required"]);
    check("{claim: sub, prefix: \"\"}", "{prefix: \"\"}", &["username.claim: is required"]);
    check("username: {claim: sub, prefix: \"\"},", "", &["username: is required"]);
    let after = |text: &str| format!("- {text}\n    issuer:");
    for (given, expected) in [
        ("claimValidationRules: [{expression: \"true\"}]", "claimValidationRules[0].expression"),
        ("claimValidationRules: [{claim: hd}]", "claimValidationRules[0].requiredValue"),
        ("userValidationRules: [{expression: \"true\"}]", "userValidationRules"),
        ("allowedSystemPrefixes: [\"system:\"]", "allowedSystemPrefixes[0]"),
        ("allowedSystemPrefixes: [\"system:masters\"]", "allowedSystemPrefixes[0]"),
        ("algorithms: [HS256]", "algorithms: `HS256`"),
        ("algorithms: [none]", "algorithms: `none`"),
        ("algorithms: [ES512]", "algorithms: `ES512`"),
        ("algorithms: []", "algorithms: must name"),
    ] {
        check("- issuer:", &after(given), &[expected]);
    }
    for (key, ok) in [
        ("example.com/team", true),
        ("team", false),
        ("a.k8s.io/x", false),
        ("decklog.dev/task", false),
        ("Example.com/x", false),
    ] {
        let extra =
            format!("claimMappings: {{extra: [{{key: {key}, valueExpression: claims.t}}], ");
        let text = GOOD.replacen("claimMappings: {", &extra, 1);
        assert_eq!(Place::new().load(&text).is_ok(), ok, "{key}");
    }
    let cel = "claimMappings: {extra: [{key: e.com/x, valueExpression: \"claims.a + claims.b\"}], ";
    check("claimMappings: {", cel, &["extra[0].valueExpression"]);
    check("authentication:", "authentication:\n  anonymous: {enabled: true}", &["anonymous"]);
    check("authentication:", "authentication:\n  kind: Pod", &["authentication.kind"]);
}

#[test]
fn what_kubernetes_has_can_be_pasted() {
    let pasted = format!(
        "authentication:\n  apiVersion: apiserver.config.k8s.io/v1\n  kind: AuthenticationConfiguration\n  \
         anonymous: {{enabled: false}}\n  jwt:\n  - issuer:\n      url: https://second.example/\n      \
         discoveryURL: https://in.example/.well-known/openid-configuration\n      audiences: [a, b]\n      \
         audienceMatchPolicy: MatchAny\n      certificateAuthority: |\n        {}\n    \
         claimValidationRules: [{{claim: hd, requiredValue: example.com}}]\n    \
         claimMappings: {{username: {{claim: email, prefix: \"two:\"}}, uid: {{claim: oid}}}}",
        certificate().trim().replace('\n', "\n        ")
    );
    let text = GOOD.replacen("authentication:\n  jwt:", &pasted, 1);
    let config = Place::new().load(&text).expect("good");
    let issuer = &config.authentication.issuers[0];
    assert_eq!(issuer.url, "https://second.example/");
    assert_eq!(issuer.discovery_url.host_str(), Some("in.example"));
    assert_eq!(issuer.rules[0].value, "example.com");
    assert!(issuer.certificate_authority.is_some() && issuer.groups.is_none());
}

#[test]
fn several_issuers_are_kept_apart() {
    let second = |url: &str, prefix: &str| {
        format!(
            "jwt:\n  - issuer: {{url: {url}, audiences: [x]}}\n    \
             claimMappings: {{username: {{claim: sub, prefix: \"{prefix}\"}}}}"
        )
    };
    check("jwt:", &second("https://other.example", ""), &["username.prefix: is the same"]);
    check("jwt:", &second("https://idp.example", "x:"), &["issuer.url: is the same"]);
    let text = GOOD.replacen("jwt:", &second("https://other.example", "x:"), 1);
    Place::new().load(&text).expect("distinct prefixes");
}

#[test]
fn kubeconfigs() {
    let kubeconfig = |user: &str, cluster: &str| {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\npreferences: {{}}\n\
             clusters:\n- name: c\n  cluster: {{server: 'https://k.example:6443/base/', certificate-authority: ca.crt{cluster}}}\n\
             users:\n- name: u\n  user: {{{user}}}\n\
             contexts:\n- name: a\n  context: {{cluster: c, user: u, namespace: x}}\n"
        )
    };
    let with = |place: &Place, text: &str, context: &str| {
        fs::write(place.path("kubeconfig"), text).expect("a file");
        let credential = format!("{{kubeconfig: kubeconfig{context}}}");
        let text = GOOD
            .replacen("{tokenFile: token}", &credential, 1)
            .replacen("server: https://10.0.0.1:6443", "", 1)
            .replacen("certificateAuthority: ca.crt", "", 1);
        place.load(&text)
    };
    let place = Place::new();
    for user in ["token: abc", "tokenFile: token"] {
        let config = with(&place, &kubeconfig(user, ""), "").expect(user);
        let cluster = &config.clusters[0];
        assert_eq!(cluster.server.authority(), "k.example:6443");
        assert_eq!(cluster.server.base_path, "/base");
        assert!(cluster.certificate_authority.is_some());
        let access = super::ClusterAccess::load(cluster).expect("readable");
        assert!(access.token.is_some());
        assert_eq!(access.tls(&["h2"]).alpn_protocols, [b"h2"]);
    }
    for (user, cluster, context, expected) in [
        ("exec: {command: x, apiVersion: y}", "", "", "exec plugins"),
        ("auth-provider: {name: gcp}", "", "", "auth providers"),
        ("username: a, password: hunter2", "", "", "user names and passwords"),
        ("token: abc, as: admin", "", "", "impersonation"),
        ("client-certificate: client.crt", "", "", "no token"),
        ("client-key-data: '***', client-certificate: client.crt", "", "", "is not base64"),
        ("token: abc", ", insecure-skip-tls-verify: true", "", "insecure-skip-tls-verify"),
        ("token: abc", ", proxy-url: 'http://p'", "", "proxy-url"),
        ("token: abc", "", ", context: b", "has no context `b`"),
        ("token: abc", ", server: 5", "", "is not a kubeconfig"),
    ] {
        let error = with(&place, &kubeconfig(user, cluster), context).expect_err(user).to_string();
        assert!(error.contains(expected) && !error.contains("hunter2"), "{user}: {error}");
    }
}

#[test]
fn client_certificates_are_read_and_their_faults_told_without_them() {
    let place = Place::new();
    let credential = "{clientCertificate: client.crt, clientKey: client.key}";
    let text = GOOD.replacen("{tokenFile: token}", credential, 1);
    let config = place.load(&text).expect("good");
    let error = super::ClusterAccess::load(&config.clusters[0]).expect_err("no PEM").to_string();
    assert!(error.starts_with("cluster prod: "), "{error}");

    let key = rcgen::KeyPair::generate().expect("a key");
    let parameters = rcgen::CertificateParams::new(vec!["gateway".into()]).expect("parameters");
    let pem = parameters.self_signed(&key).expect("a certificate").pem();
    fs::write(place.path("client.crt"), pem).expect("a file");
    fs::write(place.path("client.key"), key.serialize_pem()).expect("a file");
    let access = super::ClusterAccess::load(&config.clusters[0]).expect("good");
    assert!(
        access.token.is_none()
            && access.tls(&["h2", "http/1.1"]).client_auth_cert_resolver.has_certs()
    );
}

#[test]
fn a_token_file_that_is_empty_is_an_error_at_the_start() {
    let place = Place::new();
    fs::write(place.path("token"), " \n").expect("a file");
    let config = place.load(GOOD).expect("good");
    let error = super::ClusterAccess::load(&config.clusters[0]).expect_err("empty").to_string();
    assert!(error.contains("the token is empty"), "{error}");
}

#[test]
fn the_effective_configuration_reads_back() {
    let place = Place::new();
    let config = place.load(GOOD).expect("good");
    let masked = config.masked();
    assert!(masked.contains("maxStale: 1d") && masked.contains("idle: 15m"), "{masked}");
    // But for the platform's roots, which have no key.
    let again = masked
        .lines()
        .filter(|line| !line.contains("the platform's roots"))
        .fold(String::new(), |text, line| text + line + "\n");
    let again = place.load(&again).expect("the effective configuration is one");
    assert_eq!(again.masked(), masked);
}

#[test]
fn threads_are_counted() {
    let with = |threads: &str| GOOD.replacen("listen:", &format!("threads: {threads}\nlisten:"), 1);
    let place = Place::new();
    assert!(place.load(GOOD).expect("good").threads >= 1);
    assert_eq!(place.load(&with("3")).expect("good").threads, 3);
    for bad in ["0", "257", "-1", "2.5", "many", "'2'"] {
        check("listen:", &format!("threads: {bad}\nlisten:"), &["threads: "]);
    }
}

#[test]
fn the_documented_example_works() {
    let document = include_str!("../../../docs/configuration.md");
    let example = document.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    let place = Place::new();
    let config = place.load(example.expect("an example")).expect("the example");
    assert!(config.health.is_some() && config.policy.recording.is_some());
}
