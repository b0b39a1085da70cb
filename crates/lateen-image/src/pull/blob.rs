//! Blobs: fetched into the store, and gone on with where a transfer broke off.

use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_RANGE, HeaderValue, RANGE},
};

use super::{PullError, PullOptions, blocking, client::Answer, pause, session::Session};
use crate::{ContentStore, Descriptor, store::BlobWriter};

/// Bytes that are collected before they are written: few enough to hold, enough to be worth a thread.
const BATCH: usize = 1 << 20;

/// Brings a blob into the store, unless it is there.
pub(super) async fn fetch(
    session: &Session<'_>,
    store: &ContentStore,
    descriptor: &Descriptor,
    options: &PullOptions,
) -> Result<(), PullError> {
    if store.has(&descriptor.digest) {
        options.report(descriptor.size.cast_signed());
        return Ok(());
    }
    let expected = Some((descriptor.digest, descriptor.size));
    let mut transfer = Transfer {
        writer: Some(store.writer(expected, 0)?),
        options,
    };
    let mut attempt = 0;
    while let Err(error) = transfer.attempt(session, descriptor).await {
        attempt += 1;
        if !error.is_transient() || attempt >= options.attempts {
            return Err(error);
        }
        pause(options, attempt, &error).await;
    }
    let writer = transfer.writer.take();
    blocking(move || writer.map(BlobWriter::commit).transpose()).await?;
    Ok(())
}

/// A blob on its way.
struct Transfer<'a> {
    /// Away only while a thread writes.
    writer: Option<BlobWriter>,
    options: &'a PullOptions,
}

impl Transfer<'_> {
    /// Fetches what is missing.
    async fn attempt(
        &mut self,
        session: &Session<'_>,
        descriptor: &Descriptor,
    ) -> Result<(), PullError> {
        let written = self.written();
        if written == descriptor.size && written > 0 {
            return Ok(());
        }
        let mut headers = HeaderMap::new();
        if written > 0 {
            let range = HeaderValue::try_from(format!("bytes={written}-"));
            headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let what = format!("blobs/{}", descriptor.digest);
        let mut answer = session.get(&what, &headers).await?;
        match answer.status {
            StatusCode::PARTIAL_CONTENT if continues(&answer, written) => {}
            StatusCode::OK => self.restart()?,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                // Nothing that can be gone on with, so from the start.
                self.restart()?;
                return Err(PullError::Exchange {
                    url: answer.url.to_string(),
                    why: "it answered with another range than the one asked for".to_owned(),
                });
            }
            _ => return Err(answer.into_error().await),
        }
        let mut batch = Vec::new();
        loop {
            let chunk = answer.chunk().await;
            let more = matches!(chunk, Ok(Some(_)));
            if let Ok(Some(chunk)) = &chunk {
                batch.extend_from_slice(chunk);
            }
            // What came before a break is kept too.
            if !batch.is_empty() && (!more || batch.len() >= BATCH) {
                self.write(std::mem::take(&mut batch)).await?;
            }
            if chunk?.is_none() {
                break;
            }
        }
        let written = self.written();
        if written < descriptor.size {
            return Err(PullError::Exchange {
                url: answer.url.to_string(),
                why: format!("it ended after {written} of {} bytes", descriptor.size),
            });
        }
        Ok(())
    }

    /// Writes on a thread that may wait for the disk.
    async fn write(&mut self, batch: Vec<u8>) -> Result<(), PullError> {
        let Some(mut writer) = self.writer.take() else {
            return Ok(());
        };
        let bytes = batch.len();
        let writer = blocking(move || writer.write(&batch).map(|()| writer)).await?;
        self.writer = Some(writer);
        self.options.report(bytes as i64);
        Ok(())
    }

    fn restart(&mut self) -> Result<(), PullError> {
        self.options.report(-self.written().cast_signed());
        match &mut self.writer {
            Some(writer) => Ok(writer.restart()?),
            None => Ok(()),
        }
    }

    fn written(&self) -> u64 {
        self.writer.as_ref().map_or(0, BlobWriter::written)
    }
}

/// Does a partial answer begin where the blob ends so far (RFC 9110, section 14.4)?
fn continues(answer: &Answer, written: u64) -> bool {
    let range = answer.headers.get(CONTENT_RANGE);
    let range = range.and_then(|range| range.to_str().ok()?.strip_prefix("bytes "));
    range
        .and_then(|range| range.split_once('-'))
        .is_some_and(|(first, _)| first.parse() == Ok(written))
}
