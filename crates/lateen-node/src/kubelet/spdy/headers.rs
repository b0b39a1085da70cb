//! Header blocks: name/value lists, packed by one zlib stream for each direction of a connection, which begins with a
//! dictionary that both sides know (draft 3.1, section 2.6.10).

use std::sync::LazyLock;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::SpdyError;

/// Longest block that is unpacked, in bytes. Kubernetes' streams need some 100.
const LONGEST: usize = 16 << 10;

/// The dictionary's first part: words, each after its length in four bytes.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";

/// The dictionary's second part, as it is.
const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
    Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
    charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = Vec::with_capacity(1423);
    for word in WORDS.split_whitespace() {
        let word = word.replace('_', " ");
        // The longest has 19 letters.
        bytes.extend_from_slice(&[0, 0, 0, word.len() as u8]);
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes.extend_from_slice(TEXT.as_bytes());
    bytes
});

/// Unpacks the blocks of one direction, in their order.
pub(super) struct Unpacker(Decompress);

impl Unpacker {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The names and values of the next block; several values of a name are several pairs.
    pub(super) fn unpack(&mut self, block: &[u8]) -> Result<Vec<(String, String)>, SpdyError> {
        read(&self.inflate(block)?)
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let broken = SpdyError::Headers("it is not packed by the rules");
        let mut output = Vec::with_capacity(1024);
        let start = self.0.total_in();
        loop {
            let done = (self.0.total_in() - start) as usize;
            let before = output.len();
            let result = self
                .0
                .decompress_vec(&block[done..], &mut output, FlushDecompress::Sync);
            match result {
                Ok(Status::StreamEnd) => return Err(broken),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    if self.0.set_dictionary(&DICTIONARY).is_err() {
                        return Err(SpdyError::Headers(
                            "it needs a dictionary that is not known",
                        ));
                    }
                    continue;
                }
                Err(_) => return Err(broken),
            }
            if output.len() > LONGEST {
                return Err(SpdyError::Headers("it is too long"));
            }
            let all = (self.0.total_in() - start) as usize == block.len();
            if all && output.len() < output.capacity() {
                return Ok(output);
            }
            if !all && output.len() == before && output.len() < output.capacity() {
                return Err(broken);
            }
            output.reserve(1024);
        }
    }
}

/// Packs the blocks of one direction.
pub(super) struct Packer(Compress);

impl Packer {
    pub(super) fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        // Fails for raw streams only.
        let _ = compress.set_dictionary(&DICTIONARY);
        Self(compress)
    }

    pub(super) fn pack(&mut self, pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut text = Vec::new();
        let mut put = |bytes: &[u8]| {
            text.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            text.extend_from_slice(bytes);
        };
        for (name, value) in pairs {
            put(name.as_bytes());
            put(value.as_bytes());
        }
        text.splice(..0, (pairs.len() as u32).to_be_bytes());
        let mut output = Vec::with_capacity(text.len() + 64);
        let start = self.0.total_in();
        loop {
            let done = (self.0.total_in() - start) as usize;
            // A packer in memory that gets room cannot fail.
            let _ = self
                .0
                .compress_vec(&text[done..], &mut output, FlushCompress::Sync);
            if output.len() < output.capacity() {
                return output;
            }
            output.reserve(256);
        }
    }
}

/// Reads the unpacked form: a count, then lengths with their texts.
fn read(mut block: &[u8]) -> Result<Vec<(String, String)>, SpdyError> {
    let short = || SpdyError::Headers("it ends too early");
    let number = |block: &mut &[u8]| -> Result<usize, SpdyError> {
        let (bytes, rest) = block.split_first_chunk::<4>().ok_or_else(short)?;
        *block = rest;
        Ok(u32::from_be_bytes(*bytes) as usize)
    };
    let text = |block: &mut &[u8]| -> Result<String, SpdyError> {
        let length = number(block)?;
        let bytes = block.get(..length).ok_or_else(short)?;
        *block = &block[length..];
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned)
            .map_err(|_| SpdyError::Headers("it is no text"))
    };
    let count = number(&mut block)?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        let name = text(&mut block)?.to_ascii_lowercase();
        let values = text(&mut block)?;
        for value in values.split('\0') {
            pairs.push((name.clone(), value.to_owned()));
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_one_that_all_know() {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in DICTIONARY.iter() {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!(DICTIONARY.len(), 1423);
        assert_eq!((b << 16) | a, 0xe3c6_a7c2, "its Adler-32 checksum");
    }

    #[test]
    fn blocks_are_read_as_they_were_written_one_after_the_other() {
        let (mut packer, mut unpacker) = (Packer::new(), Unpacker::new());
        let long = "x".repeat(5000);
        for pairs in [
            vec![("streamtype", "stdin")],
            vec![],
            vec![("streamtype", "data"), ("port", "80"), ("requestid", "0")],
            vec![("a", long.as_str())],
        ] {
            let read = unpacker.unpack(&packer.pack(&pairs)).unwrap();
            let read: Vec<_> = read.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(read, pairs);
        }
    }

    #[test]
    fn broken_blocks_are_refused() {
        let too_long = "x".repeat(LONGEST + 1);
        let mut cut = Packer::new().pack(&[("streamtype", "stdin")]);
        cut.truncate(6);
        for block in [
            b"no zlib".to_vec(),
            cut,
            Packer::new().pack(&[("a", too_long.as_str())]),
        ] {
            assert!(Unpacker::new().unpack(&block).is_err(), "{block:?}");
        }
        for text in [&b""[..], &[0, 0, 0, 1], &[0, 0, 0, 1, 0, 0, 0, 9, b'a']] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
