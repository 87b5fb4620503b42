//! Records as a gateway writes them.

use recorder_user::model::{
    Decision, ExchangeId, ExchangeOpened, Principal, Record, RequestHead, RequestInfo, SessionId,
    Timestamp, Verdict,
};

/// The intent of a request, about 1.3 KiB of JSON, never the same twice.
pub(crate) fn intent(session: SessionId) -> Record {
    let exchange = ExchangeId::new();
    let name = format!("web-{exchange}");
    let path = format!("/api/v1/namespaces/shop/configmaps/{name}");
    let headers = [
        ("accept", "application/json"),
        ("content-type", "application/json"),
        ("kubectl-command", "kubectl apply"),
        ("kubectl-session", "b8c59041-7258-44ae-84b0-b7868b67d151"),
        ("user-agent", "kubectl/v1.36.0 (linux/amd64) kubernetes/abcdef0"),
    ];
    Record::ExchangeOpened(Box::new(ExchangeOpened {
        exchange,
        session: Some(session),
        time: Timestamp::now(),
        cluster: "prod".into(),
        principal: Some(std::sync::Arc::new(Principal {
            issuer: "https://idp.example".into(),
            subject: "agent-7".into(),
            username: "agent-7".into(),
            groups: vec!["agents".into(), "readers".into()],
            ..Principal::default()
        })),
        peer: "10.0.0.7:51724".into(),
        head: Some(RequestHead {
            method: "PATCH".into(),
            target: path.clone(),
            version: "HTTP/2".into(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        }),
        request: Some(RequestInfo {
            is_resource_request: true,
            path,
            verb: "patch".into(),
            api_prefix: "api".into(),
            api_version: "v1".into(),
            namespace: "shop".into(),
            resource: "configmaps".into(),
            name,
            ..RequestInfo::default()
        }),
        verdict: Some(Verdict {
            decision: Decision::Allow,
            policies: vec!["all.cedar/allow-all".into()],
            ..Verdict::default()
        }),
        ..ExchangeOpened::default()
    }))
}
