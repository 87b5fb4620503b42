//! AWS Signature Version 4, so that the rig's look at MinIO shares no code with what it looks at.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};

pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
    pub(super) key_id: &'a str,
    pub(super) secret: &'a str,
}

/// All headers of the request, those that were given too.
pub(super) fn headers(request: &Request<'_>) -> Vec<(String, String)> {
    let time = Timestamp::now().to_zoned(TimeZone::UTC);
    let (stamp, day) =
        (time.strftime("%Y%m%dT%H%M%SZ").to_string(), time.strftime("%Y%m%d").to_string());
    let digest = hex(&Sha256::digest(request.body));
    let mut headers: Vec<_> =
        [("host", request.host), ("x-amz-date", &*stamp), ("x-amz-content-sha256", &*digest)]
            .iter()
            .chain(request.headers)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
    headers.sort_unstable();
    let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let Request { method, path, query, .. } = request;
    // Of the characters in our paths only this one is written differently in the signed form.
    let path = path.replace('=', "%3D");
    let canonical = format!("{method}\n/{path}\n{query}\n{lines}\n{names}\n{digest}");
    let scope = format!("{day}/{REGION}/s3/aws4_request");
    let canonical = hex(&Sha256::digest(canonical.as_bytes()));
    let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{canonical}");
    let mut key = hmac(format!("AWS4{}", request.secret).as_bytes(), day.as_bytes());
    for part in [REGION, "s3", "aws4_request", &text] {
        key = hmac(&key, part.as_bytes());
    }
    let (id, signature) = (request.key_id, hex(&key));
    let value = format!(
        "AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"
    );
    headers.push(("authorization".to_owned(), value));
    headers
}

/// HMAC-SHA-256 (RFC 2104); the key is at most a block long.
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const REGION: &str = "us-east-1";

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn hmac_is_hmac() {
        assert_eq!(
            hex(&hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
