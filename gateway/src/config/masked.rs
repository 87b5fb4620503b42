//! The effective configuration as text.

use serde_json::{Map, Value, json};

use recorder_user::store::RetentionRules;

use super::{Archive, Cluster, Config, Credential, Issuer, Retention, units, witness};

pub(super) fn text(config: &Config) -> String {
    let keys = &config.authentication.keys;
    let queue = u64::try_from(config.store.queue_bytes_max).unwrap_or(u64::MAX);
    let mut sections = json!({
        "listen": config.listen.to_string(),
        "tls": {
            "certificate": config.tls.certificate.display().to_string(),
            "key": config.tls.key.display().to_string(),
        },
        "threads": config.threads,
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
        "witness": witness::masked(&config.witness),
        "sessions": {
            "idle": units::duration_text(config.sessions.idle),
            "streamIdle": units::duration_text(config.sessions.streams.idle),
        },
    });
    if let Some(encryption) = &config.store.encryption {
        sections["store"]["encryption"] = json!(encryption);
    }
    if let Some(kept) = &config.store.retention {
        sections["store"]["retention"] = retention(kept);
    }
    if let Some(floor) = config.store.free_floor_bytes {
        sections["store"]["freeSpaceFloor"] = json!(units::size_text(floor));
    }
    if let Some(longest) = config.sessions.streams.longest {
        sections["sessions"]["streamLongest"] = json!(units::duration_text(longest));
    }
    if let Some(given) = &config.archive {
        sections["archive"] = archive(given);
    }
    if let Some(health) = &config.health {
        sections["health"] = json!({"listen": health.listen.to_string()});
    }
    if let Some(recording) = &config.policy.recording {
        sections["policy"]["recording"] = json!(recording.display().to_string());
    }
    serde_saphyr::to_string(&sections).unwrap_or_else(|error| format!("# {error}\n"))
}

fn retention(retention: &Retention) -> Value {
    let RetentionRules { age, size, reads, bodies_of_reads } = retention.rules;
    let times = [("age", age), ("reads", reads), ("bodiesOfReads", bodies_of_reads)];
    let mut words: Map<_, _> = times
        .into_iter()
        .filter_map(|(key, time)| Some((key.to_owned(), json!(units::duration_text(time?)))))
        .collect();
    if let Some(size) = size {
        words.insert("size".into(), json!(units::size_text(size)));
    }
    words.insert("interval".into(), json!(units::duration_text(retention.interval)));
    Value::Object(words)
}

fn archive(archive: &Archive) -> Value {
    let shown = |path: &std::path::Path| path.display().to_string();
    let mut credentials = json!({
        "accessKeyIdFile": shown(&archive.credentials.access_key_id),
        "secretAccessKeyFile": shown(&archive.credentials.secret_access_key),
    });
    if let Some(token) = &archive.credentials.session_token {
        credentials["sessionTokenFile"] = json!(shown(token));
    }
    let mut value = json!({
        "url": archive.url,
        "region": archive.region,
        "credentials": credentials,
        "interval": units::duration_text(archive.interval),
        "alarmAfter": units::duration_text(archive.alarm_after),
        "timeout": units::duration_text(archive.timeout),
        "partSize": units::size_text(u64::try_from(archive.part_bytes).unwrap_or(u64::MAX)),
    });
    if let Some(endpoint) = &archive.endpoint {
        value["endpoint"] = json!(endpoint);
    }
    if let Some(authority) = &archive.certificate_authority {
        value["certificateAuthority"] = json!(shown(authority));
    }
    value
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
