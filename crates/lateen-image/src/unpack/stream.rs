//! The uncompressed archive of a layer: decompressed, digested and limited while it is read.

use std::{
    cell::{Cell, RefCell},
    fs::File,
    io::{self, BufRead, BufReader, Read},
    rc::Rc,
};

use flate2::bufread::MultiGzDecoder;

use super::{Limits, frames::Frames};
use crate::digest::{Digest, Hasher, HashingReader};

/// Unpacked bytes from which the ratio counts: small archives may be nothing but zeros.
const RATIO_FROM: u64 = 64 << 20;
/// Bytes that may describe one entry: its header, long names, extended attributes, maps of sparse files. The archive
/// library reads them into memory.
const DESCRIPTION: u64 = 1 << 20;

type Source<R> = BufReader<HashingReader<R>>;

/// An archive decompressed. How it is compressed shows in its first bytes, since media types are often wrong.
pub(crate) enum Decoder<R> {
    Plain(Source<R>),
    Gzip(Box<MultiGzDecoder<Source<R>>>),
    Zstandard(Box<Frames<Source<R>>>),
}

impl<R: Read> Decoder<R> {
    pub(crate) fn new(reader: R) -> io::Result<Self> {
        let mut source = BufReader::with_capacity(64 << 10, HashingReader::new(reader));
        let start = source.fill_buf()?;
        Ok(match compression(start) {
            Some("gzip") => Self::Gzip(Box::new(MultiGzDecoder::new(source))),
            Some(_) => Self::Zstandard(Box::new(Frames::new(source))),
            None => Self::Plain(source),
        })
    }

    /// Compressed bytes read so far.
    fn packed(&self) -> u64 {
        match self {
            Self::Plain(source) => source.get_ref().bytes(),
            Self::Gzip(decoder) => decoder.get_ref().get_ref().bytes(),
            Self::Zstandard(frames) => frames.get_ref().get_ref().bytes(),
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstandard(frames) => frames.read(buffer),
        }
    }
}

/// The compression that the first bytes tell of.
pub(crate) fn compression(start: &[u8]) -> Option<&'static str> {
    // The second is a frame to skip, with which zstd:chunked and seekable archives may begin (RFC 8878, 3.1.2).
    let skippable = |start: &[u8]| {
        start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18]
    };
    if start.starts_with(&[0x1f, 0x8b]) {
        Some("gzip")
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || skippable(start) {
        Some("zstd")
    } else {
        None
    }
}

/// What the reader of an archive and the archive library between them share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauge {
    /// Bytes that may be read before somebody says what for.
    allowance: Rc<Cell<u64>>,
    /// Why reading was stopped: errors lose their type in the archive library.
    stopped: Rc<RefCell<Option<String>>>,
}

impl Gauge {
    /// The description of an entry comes next.
    pub(crate) fn expect_description(&self) {
        self.allowance.set(DESCRIPTION);
    }

    /// Content comes next, which has limits of its own.
    pub(crate) fn expect_content(&self) {
        self.allowance.set(u64::MAX);
    }

    /// The limit that stopped reading.
    pub(crate) fn stopped(&self) -> Option<String> {
        self.stopped.borrow_mut().take()
    }

    /// Takes bytes off the allowance.
    pub(crate) fn spend(&self, bytes: usize) -> io::Result<()> {
        let Some(left) = self.allowance.get().checked_sub(bytes as u64) else {
            let why = format!("the description of an entry has more than {DESCRIPTION} bytes");
            return Err(self.stop(why));
        };
        self.allowance.set(left);
        Ok(())
    }

    fn stop(&self, why: String) -> io::Error {
        *self.stopped.borrow_mut() = Some(why.clone());
        io::Error::other(why)
    }
}

/// The bytes of an uncompressed archive.
pub(crate) struct Stream<R = File> {
    decoder: Decoder<R>,
    digest: Hasher,
    unpacked: u64,
    limit: u64,
    ratio: u64,
    gauge: Gauge,
}

impl<R: Read> Stream<R> {
    pub(crate) fn new(reader: R, limits: &Limits, gauge: Gauge) -> io::Result<Self> {
        gauge.expect_content();
        Ok(Self {
            decoder: Decoder::new(reader)?,
            digest: Hasher::default(),
            unpacked: 0,
            limit: limits.layer_bytes,
            ratio: limits.ratio,
            gauge,
        })
    }

    /// Reads what follows the archive's end, and returns the digest and size of everything.
    pub(super) fn finish(mut self) -> io::Result<(Digest, u64)> {
        self.gauge.expect_content();
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.digest.finish(), self.unpacked))
    }
}

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.digest.update(&buffer[..read]);
        self.unpacked += read as u64;
        self.gauge.spend(read)?;
        if self.unpacked > self.limit {
            let why = format!("it unpacks to more than {} bytes", self.limit);
            return Err(self.gauge.stop(why));
        }
        let packed = self.decoder.packed().max(1);
        if self.unpacked > RATIO_FROM && self.unpacked / packed > self.ratio {
            let why = format!(
                "it unpacks to more than {} times its size, as bombs do",
                self.ratio
            );
            return Err(self.gauge.stop(why));
        }
        Ok(read)
    }
}
