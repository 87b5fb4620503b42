//! The file's sections as they are written: every key that exists, and no other.
//!
//! A section that has sections of its own keeps them as [`Value`], so that a mistake in one does
//! not hide those in the others.

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) certificate: String,
    pub(super) key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Health {
    pub(super) listen: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    pub(super) socket: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Store {
    pub(super) directory: String,
    pub(super) segment_size: Option<String>,
    pub(super) queue_size: Option<String>,
    pub(super) sync_interval: Option<String>,
    pub(super) free_space_floor: Option<String>,
    pub(super) index: Option<String>,
    pub(super) record_access: Option<bool>,
    pub(super) segment_age: Option<String>,
    pub(super) encryption: Option<Encryption>,
    pub(super) checkpoint_interval: Option<String>,
    pub(super) retention: Option<Retention>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Retention {
    pub(super) age: Option<String>,
    pub(super) size: Option<String>,
    pub(super) reads: Option<String>,
    pub(super) bodies_of_reads: Option<String>,
    pub(super) interval: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Encryption {
    pub(super) key_file: Option<String>,
    pub(super) command: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Archive {
    pub(super) url: String,
    pub(super) endpoint: Option<String>,
    pub(super) region: Option<String>,
    pub(super) certificate_authority: Option<String>,
    pub(super) credentials: ArchiveCredentials,
    pub(super) interval: Option<String>,
    pub(super) alarm_after: Option<String>,
    pub(super) timeout: Option<String>,
    pub(super) part_size: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ArchiveCredentials {
    pub(super) access_key_id_file: String,
    pub(super) secret_access_key_file: String,
    pub(super) session_token_file: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) access: String,
    pub(super) recording: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Witness {
    pub(super) mode: Option<String>,
    pub(super) probe: Option<String>,
    pub(super) ring_size: Option<String>,
    #[serde(default)]
    pub(super) endpoints: Vec<String>,
    #[serde(default)]
    pub(super) gateway_addresses: Vec<String>,
    pub(super) watch_clients: Option<bool>,
    #[serde(default)]
    pub(super) allow: Vec<Value>,
    pub(super) host: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WitnessAllow {
    pub(super) cgroup: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) pod: Option<String>,
    pub(super) executable: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct WitnessHost {
    pub(super) proc: Option<String>,
    pub(super) cgroups: Option<String>,
    pub(super) pod_logs: Option<String>,
    pub(super) container_logs: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Sessions {
    pub(super) idle: Option<String>,
    pub(super) stream_idle: Option<String>,
    pub(super) stream_longest: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Cluster {
    pub(super) name: String,
    pub(super) server: Option<String>,
    pub(super) certificate_authority: Option<String>,
    pub(super) tls_server_name: Option<String>,
    pub(super) credential: Option<Value>,
    #[serde(default)]
    pub(super) default: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Credential {
    pub(super) token_file: Option<String>,
    pub(super) client_certificate: Option<String>,
    pub(super) client_key: Option<String>,
    pub(super) kubeconfig: Option<String>,
    pub(super) context: Option<String>,
    pub(super) in_cluster: Option<bool>,
    pub(super) forwarder: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Authentication {
    pub(super) api_version: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) jwt: Option<Vec<Value>>,
    pub(super) anonymous: Option<Value>,
    pub(super) keys: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Keys {
    pub(super) refresh: Option<String>,
    pub(super) max_stale: Option<String>,
    pub(super) cool_down: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Jwt {
    pub(super) issuer: Option<Value>,
    pub(super) claim_mappings: Option<Value>,
    #[serde(default)]
    pub(super) claim_validation_rules: Vec<Value>,
    #[serde(default)]
    pub(super) user_validation_rules: Vec<Value>,
    #[serde(default)]
    pub(super) allowed_system_prefixes: Vec<String>,
    pub(super) algorithms: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Issuer {
    pub(super) url: String,
    #[serde(rename = "discoveryURL")]
    pub(super) discovery_url: Option<String>,
    #[serde(default)]
    pub(super) audiences: Vec<String>,
    #[serde(rename = "audienceMatchPolicy")]
    pub(super) audience_match_policy: Option<String>,
    #[serde(rename = "certificateAuthority")]
    pub(super) certificate_authority: Option<String>,
    #[serde(rename = "egressSelectorType")]
    pub(super) egress_selector_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClaimMappings {
    pub(super) username: Option<Value>,
    pub(super) groups: Option<Value>,
    pub(super) uid: Option<Value>,
    #[serde(default)]
    pub(super) extra: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClaimMapping {
    pub(super) claim: Option<String>,
    pub(super) prefix: Option<String>,
    pub(super) expression: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Extra {
    pub(super) key: String,
    pub(super) value_expression: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ClaimValidationRule {
    pub(super) claim: Option<String>,
    pub(super) required_value: Option<String>,
    pub(super) expression: Option<String>,
    #[serde(rename = "message")]
    pub(super) _message: Option<String>,
}
