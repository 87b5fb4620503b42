//! The bodies that go to clients.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::tap::ResponseTap;

/// A response body: the gateway's own, or the API server's through the tap.
pub enum Body {
    /// The gateway's own bytes, or none.
    Own(Option<Bytes>),
    /// From the API server.
    Tapped(Box<ResponseTap>),
}

/// Why a body was cut; hyper resets the stream.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

impl Body {
    /// No bytes.
    #[must_use]
    pub const fn empty() -> Self {
        Self::Own(None)
    }

    /// These bytes.
    #[must_use]
    pub fn full(bytes: Bytes) -> Self {
        Self::Own((!bytes.is_empty()).then_some(bytes))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Tapped(tap) => Pin::new(&mut **tap).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Tapped(tap) => tap.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Tapped(tap) => tap.size_hint(),
        }
    }
}
