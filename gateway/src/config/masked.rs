//! The effective configuration as text.

use serde_json::{Map, Value, json};

use super::{Cluster, Config, Credential, Issuer, units};

pub(super) fn text(config: &Config) -> String {
    let keys = &config.authentication.keys;
    let queue = u64::try_from(config.store.queue_bytes_max).unwrap_or(u64::MAX);
    let mut sections = json!({
        "listen": config.listen.to_string(),
        "tls": {
            "certificate": config.tls.certificate.display().to_string(),
            "key": config.tls.key.display().to_string(),
        },
        "store": {
            "directory": config.store.directory.display().to_string(),
            "segmentSize": units::size_text(config.store.segment_bytes_max),
            "queueSize": units::size_text(queue),
            "syncInterval": units::duration_text(config.store.sync_interval),
            "index": config.store.index.as_str(),
            "recordAccess": config.store.record_access,
            "segmentAge": units::duration_text(config.store.segment_age_max),
            "checkpointInterval": units::duration_text(config.store.checkpoint_interval),
        },
        "admin": {"socket": config.admin.socket.display().to_string()},
        "clusters": config.clusters.iter().map(cluster).collect::<Vec<_>>(),
        "authentication": {
            "jwt": config.authentication.issuers.iter().map(issuer).collect::<Vec<_>>(),
            "keys": {
                "refresh": units::duration_text(keys.refresh),
                "maxStale": units::duration_text(keys.max_stale),
                "coolDown": units::duration_text(keys.cool_down),
            },
        },
        "policy": {"access": config.policy.access.display().to_string()},
        "witness": {"mode": config.witness.as_str()},
        "sessions": {
            "idle": units::duration_text(config.sessions.idle),
            "streamIdle": units::duration_text(config.sessions.streams.idle),
        },
    });
    if let Some(encryption) = &config.store.encryption {
        sections["store"]["encryption"] = json!(encryption);
    }
    if let Some(longest) = config.sessions.streams.longest {
        sections["sessions"]["streamLongest"] = json!(units::duration_text(longest));
    }
    if let Some(health) = &config.health {
        sections["health"] = json!({"listen": health.listen.to_string()});
    }
    if let Some(recording) = &config.policy.recording {
        sections["policy"]["recording"] = json!(recording.display().to_string());
    }
    serde_saphyr::to_string(&sections).unwrap_or_else(|error| format!("# {error}\n"))
}

fn cluster(cluster: &Cluster) -> Value {
    let server = &cluster.server;
    let credential = match &cluster.credential {
        Credential::TokenFile(file) => json!({"tokenFile": file.display().to_string()}),
        Credential::ClientCertificate { certificate, key } => json!({
            "clientCertificate": certificate.display().to_string(),
            "clientKey": key.display().to_string(),
        }),
        Credential::Kubeconfig { file, context } => json!({
            "kubeconfig": file.display().to_string(),
            "context": context.as_deref().unwrap_or("(the current one)"),
        }),
        Credential::InCluster => json!({"inCluster": true}),
    };
    let mut value = json!({
        "name": cluster.name,
        "server": format!("https://{}{}", server.authority(), server.base_path),
        "certificateAuthority": authority(cluster.certificate_authority.as_ref()),
        "credential": credential,
        "default": cluster.default,
    });
    if let Some(name) = &server.tls_server_name {
        value["tlsServerName"] = json!(name);
    }
    value
}

fn issuer(issuer: &Issuer) -> Value {
    let mut mappings = Map::new();
    let prefixed = |p: &super::PrefixedClaim| json!({"claim": p.claim, "prefix": p.prefix});
    mappings.insert("username".into(), prefixed(&issuer.username));
    if let Some(groups) = &issuer.groups {
        mappings.insert("groups".into(), prefixed(groups));
    }
    if let Some(uid) = &issuer.uid {
        mappings.insert("uid".into(), json!({"claim": uid}));
    }
    if !issuer.extra.is_empty() {
        let extra = issuer.extra.iter();
        let extra =
            extra.map(|e| json!({"key": e.key, "valueExpression": format!("claims.{}", e.claim)}));
        mappings.insert("extra".into(), extra.collect());
    }
    let rules = issuer.rules.iter().map(|r| json!({"claim": r.claim, "requiredValue": r.value}));
    json!({
        "issuer": {
            "url": issuer.url,
            "discoveryURL": issuer.discovery_url.as_str(),
            "audiences": issuer.audiences,
            "audienceMatchPolicy": "MatchAny",
            "certificateAuthority": authority(issuer.certificate_authority.as_ref()),
        },
        "claimMappings": mappings,
        "claimValidationRules": rules.collect::<Vec<_>>(),
        "allowedSystemPrefixes": issuer.allowed_system_prefixes,
        "algorithms": issuer.algorithms.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>(),
    })
}

fn authority(certificates: Option<&super::Certificates>) -> String {
    certificates.map_or("(the platform's roots)".into(), ToString::to_string)
}
