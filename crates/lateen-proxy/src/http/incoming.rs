//! Bodies as they are received, of either version and from either side.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::http1;

/// The body.
pub(crate) enum Incoming {
    /// Of a request.
    Http1Request(http1::ServerBody),
    /// Of a response.
    Http1Response(http1::ClientBody),
    Http2(hyper::body::Incoming),
    /// There is none.
    Nothing,
}

/// Why it breaks off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IncomingError {
    #[error(transparent)]
    Http1(#[from] http1::Error),
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}

impl IncomingError {
    /// The peer did not keep to the rules, rather than leaving.
    pub(crate) fn is_malformed(&self) -> bool {
        matches!(self, Self::Http1(http1::Error::Malformed(_)))
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = IncomingError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, IncomingError>>> {
        match &mut *self {
            Self::Http1Request(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Http1Response(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Http2(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Nothing => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1Request(body) => body.is_end_stream(),
            Self::Http1Response(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1Request(body) => body.size_hint(),
            Self::Http1Response(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Nothing => SizeHint::with_exact(0),
        }
    }
}
