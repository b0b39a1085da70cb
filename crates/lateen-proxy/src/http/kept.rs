//! Bytes of a body that are kept, to be looked at or to be sent again.

use bytes::{Bytes, BytesMut};

/// Chunks from this length on are kept as they came. Shorter ones are copied together: each would cost memory of its
/// own, and hold on to the whole buffer that it was read into.
const LONG: usize = 8 << 10;

/// Length from which a block of short chunks is full.
const FULL: usize = 32 << 10;

/// A body as far as it is kept, in the order in which it came.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    blocks: Vec<Bytes>,
    /// Short chunks that are no block yet.
    tail: Vec<u8>,
    length: usize,
}

/// A place in what is kept; it stays right when more comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    block: usize,
    offset: usize,
}

impl Kept {
    /// Bytes that are kept.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Adds a chunk.
    pub(super) fn push(&mut self, chunk: &Bytes) {
        if chunk.is_empty() {
            return;
        }
        self.length += chunk.len();
        // Most bodies are a single chunk, which is not worth a copy.
        if chunk.len() >= LONG || self.length == chunk.len() {
            self.seal();
            self.blocks.push(chunk.clone());
            return;
        }
        self.tail.extend_from_slice(chunk);
        if self.tail.len() >= FULL {
            self.seal();
        }
    }

    /// Makes a block of the short chunks. Positions in them stay right: the block takes the number that the tail had.
    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let block = std::mem::take(&mut self.tail).into_boxed_slice();
            self.blocks.push(Bytes::from(block));
        }
    }

    /// Where the next chunk will be.
    pub(super) fn end(&self) -> Position {
        Position {
            block: self.blocks.len(),
            offset: self.tail.len(),
        }
    }

    /// The bytes from a position on, as many as stand together. The position moves behind them.
    pub(super) fn read(&self, position: &mut Position) -> Option<Bytes> {
        while let Some(block) = self.blocks.get(position.block) {
            let rest = block.slice(position.offset.min(block.len())..);
            *position = Position {
                block: position.block + 1,
                offset: 0,
            };
            if !rest.is_empty() {
                return Some(rest);
            }
        }
        let rest = self.tail.get(position.offset..)?;
        if position.block != self.blocks.len() || rest.is_empty() {
            return None;
        }
        position.offset = self.tail.len();
        Some(Bytes::copy_from_slice(rest))
    }

    /// Reads like [`Kept::read`], and keeps what was read no longer.
    pub(super) fn take(&mut self, position: &mut Position) -> Option<Bytes> {
        let read = self.read(position);
        for block in self.blocks.iter_mut().take(position.block).rev() {
            if block.is_empty() {
                break;
            }
            block.clear();
        }
        read
    }

    /// Everything in one piece. To be called before anything is read by position.
    pub(super) fn whole(&mut self) -> Bytes {
        self.seal();
        if self.blocks.len() > 1 {
            let mut whole = BytesMut::with_capacity(self.length);
            // Each block is given back once it is copied.
            for block in self.blocks.drain(..) {
                whole.extend_from_slice(&block);
            }
            self.blocks = vec![whole.freeze()];
        }
        self.blocks.first().cloned().unwrap_or_default()
    }

    /// Keeps nothing any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(kept: &Kept, position: &mut Position) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(part) = kept.read(position) {
            assert!(!part.is_empty());
            all.extend_from_slice(&part);
        }
        all
    }

    /// Lengths of chunks, in the order in which they come.
    fn check(lengths: &[usize]) {
        let chunk = |(index, length): (usize, &usize)| Bytes::from(vec![index as u8; *length]);
        let chunks: Vec<Bytes> = lengths.iter().enumerate().map(chunk).collect();
        let all = chunks.concat();
        let mut kept = Kept::default();
        let (mut early, mut followed) = (Position::default(), Position::default());
        let mut seen = Vec::new();
        for chunk in &chunks {
            kept.push(chunk);
            seen.extend_from_slice(&read_all(&kept, &mut followed));
            assert_eq!(followed, kept.end(), "{lengths:?}");
        }
        assert_eq!(kept.len(), all.len());
        assert!(seen == all, "{lengths:?}: read while it came");
        assert!(
            read_all(&kept, &mut early) == all,
            "{lengths:?}: read later"
        );
        let mut taken = Vec::new();
        let (mut emptied, mut position) = (kept.clone(), Position::default());
        while let Some(part) = emptied.take(&mut position) {
            taken.extend_from_slice(&part);
        }
        assert!(taken == all, "{lengths:?}: taken");
        assert!(emptied.blocks.iter().all(Bytes::is_empty), "{lengths:?}");
        assert!(kept.whole() == all, "{lengths:?}: whole");
        assert!(read_all(&kept, &mut Position::default()) == all);
        kept.clear();
        assert!(read_all(&kept, &mut Position::default()).is_empty());
    }

    #[test]
    fn what_came_is_what_is_read() {
        check(&[]);
        check(&[0]);
        check(&[5]);
        check(&[1, 1, 1]);
        check(&[0, 1, 0, 1, 0]);
        check(&[LONG, 1, LONG, 1]);
        check(&[1, LONG, 2, 3, LONG]);
        check(&[LONG - 1; 12]);
        check(&[1; 100]);
        check(&[FULL * 2, FULL * 2]);
    }

    #[test]
    fn short_chunks_are_kept_together() {
        let mut kept = Kept::default();
        let buffer = Bytes::from(vec![0; 100_000]);
        for index in 0..buffer.len() {
            kept.push(&buffer.slice(index..=index));
        }
        assert!(kept.blocks.len() <= 5, "{}", kept.blocks.len());
    }
}
