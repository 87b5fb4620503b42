//! Ids are newtypes over UUIDv7: sortable by time, unique without coordination.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The text is not an id: 32 hexadecimal digits are.
#[derive(Debug, thiserror::Error)]
#[error("not an id: {text:?} (expected 32 hexadecimal digits)")]
pub struct ParseIdError {
    text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, greater than those made before on this machine.
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id whose 16 bytes these are.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes, big-endian: they sort as the id does.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_simple().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                if text.len() != 32 {
                    return Err(ParseIdError { text: text.chars().take(64).collect() });
                }
                Uuid::try_parse(text).map(Self).map_err(|_| ParseIdError { text: text.into() })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// All that one principal does on one cluster for one task, until it ends.
    SessionId
}
id! {
    /// One HTTP request and its response.
    ExchangeId
}
id! {
    /// One gateway's store: made once, kept in the store directory.
    GatewayId
}
id! {
    /// One boot of the machine (`/proc/sys/kernel/random/boot_id`): socket cookies are unique within it.
    BootId
}
id! {
    /// One legal hold.
    HoldId
}
id! {
    /// One reading of recordings that was announced to the gateway.
    AccessId
}
id! {
    /// One segment file.
    SegmentId
}

#[cfg(test)]
mod tests {
    use super::SessionId;

    #[test]
    fn text_round_trips_and_bad_text_is_refused() {
        let id = SessionId::new();
        assert_eq!(id.to_string().parse::<SessionId>().expect("own text"), id);
        let json = serde_json::to_string(&id).expect("plain string");
        assert_eq!(serde_json::from_str::<SessionId>(&json).expect("own text"), id);
        for bad in ["", "abc", "zz00000000000000000000000000000z", "0190-1234"] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad}");
        }
    }
}
