//! Copying bytes both ways between two connections.

use std::cell::Cell;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// Bytes that are copied at a time.
const BUFFER: usize = 16 << 10;

/// What was copied so far.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// Bytes from downstream.
    pub(crate) received: Cell<u64>,
    /// Bytes to downstream.
    pub(crate) sent: Cell<u64>,
}

/// Copies both ways until both ends are done, one breaks, or nothing moves for `idle`. The end of one direction is
/// passed on while the other goes on. Says whether it ended because nothing moved for too long.
pub(crate) async fn relay<D, U>(
    downstream: &mut D,
    upstream: &mut U,
    prefix: &[u8],
    idle: Option<Duration>,
    counts: &Moved,
) -> bool
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let moved = Cell::new(Instant::now());
    let (received, sent) = (&counts.received, &counts.sent);
    let (mut down_read, mut down_write) = tokio::io::split(downstream);
    let (mut up_read, mut up_write) = tokio::io::split(upstream);
    let to_upstream = async {
        up_write
            .write_all(prefix)
            .await
            .map_err(|_| Broken::Writer)?;
        received.set(prefix.len() as u64);
        pump(&mut down_read, &mut up_write, received, &moved).await
    };
    let to_downstream = pump(&mut up_read, &mut down_write, sent, &moved);
    let both = async { tokio::try_join!(to_upstream, to_downstream) };
    tokio::select! {
        _ = both => false,
        () = idle_for(idle, &moved) => true,
    }
}

/// Which end of a direction broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    Reader,
    Writer,
}

/// Copies one direction to its end and passes the end on.
pub(crate) async fn pump(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    count: &Cell<u64>,
    moved: &Cell<Instant>,
) -> Result<(), Broken> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = reader.read(&mut buffer).await;
        let read = read.map_err(|_| Broken::Reader)?;
        if read == 0 {
            return writer.shutdown().await.map_err(|_| Broken::Writer);
        }
        moved.set(Instant::now());
        let written = writer.write_all(&buffer[..read]).await;
        written.map_err(|_| Broken::Writer)?;
        count.set(count.get() + read as u64);
        moved.set(Instant::now());
    }
}

/// Returns when nothing moved for the limit.
pub(crate) async fn idle_for(limit: Option<Duration>, moved: &Cell<Instant>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    loop {
        let deadline = moved.get() + limit;
        if deadline <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(deadline).await;
    }
}
