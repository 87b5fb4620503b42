//! Media types, as far as a codec is chosen by them.

/// The encodings of Kubernetes objects that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// `application/json` and every `+json` (patches).
    Json,
    /// YAML; only YAML that is also JSON is decoded.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
    /// CBOR, text, and whatever else.
    Other,
}

impl Media {
    /// By a `Content-Type`. Without one the API server reads JSON, and so does this.
    #[must_use]
    pub fn of(content_type: Option<&str>) -> Self {
        let essence = content_type.unwrap_or("").split(';').next().unwrap_or("").trim();
        let essence = essence.to_ascii_lowercase();
        match essence.as_str() {
            "" | "application/json" => Self::Json,
            "application/vnd.kubernetes.protobuf" => Self::Protobuf,
            "application/yaml" | "application/x-yaml" | "text/yaml" => Self::Yaml,
            other if other.ends_with("+json") => Self::Json,
            other if other.ends_with("+yaml") => Self::Yaml,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Media;

    #[test]
    fn media_types() {
        for (content_type, media) in [
            (None, Media::Json),
            (Some(""), Media::Json),
            (Some("Application/JSON ; charset=utf-8"), Media::Json),
            (Some("application/json;stream=watch"), Media::Json),
            (Some("application/strategic-merge-patch+json"), Media::Json),
            (Some("application/apply-patch+yaml"), Media::Yaml),
            (Some("application/yaml"), Media::Yaml),
            (Some("application/vnd.kubernetes.protobuf;stream=watch"), Media::Protobuf),
            (Some("application/vnd.kubernetes.protobuf2"), Media::Other),
            (Some("application/cbor"), Media::Other),
            (Some("application/apply-patch+cbor"), Media::Other),
            (Some("text/plain"), Media::Other),
            (Some(";application/json"), Media::Json),
        ] {
            assert_eq!(Media::of(content_type), media, "{content_type:?}");
        }
    }
}
