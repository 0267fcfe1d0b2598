//! What makes the file of one segment fit to hold a later one of the same log.
//!
//! Its blocks were written before, so a durable write over them does not wait for the file system to record that they are. What is left there
//! are batches of lower offsets than the log will ever ask for again, so each is refused by its base offset. One case needs care: base offset and CRC of a
//! header are covered by no checksum together, so where a sector ends between them a torn write could join the base offset of a new batch
//! with all the rest of an old one that began at the same position, and that would pass every check. Blocks in which a header lies
//! like this are few and are filled with zeros before the file is used again.

use std::io;

use crate::{
    batch::header::at,
    rt::{File, Rt, buf::ALIGNMENT},
};

/// The smallest unit that a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// A segment with more such blocks has small batches, which go through the journal and gain little.
const SEAMS_MAX: usize = 1024;

/// The blocks of one segment in which a sector ends between the first byte of a base offset and the last one of its CRC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seams {
    /// In order. `None`: too many, or not known.
    blocks: Option<Vec<u32>>,
}

impl Seams {
    /// Of a segment that holds nothing yet.
    pub fn none() -> Seams {
        Seams {
            blocks: Some(Vec::new()),
        }
    }

    /// Of a segment that was not written by this run.
    pub fn unknown() -> Seams {
        Seams { blocks: None }
    }

    /// A batch begins at `position`.
    pub fn note(&mut self, position: u64) {
        let sector_end = position.next_multiple_of(SECTOR_BYTES);
        let crc_end = position + at::ATTRIBUTES as u64;
        if sector_end == position || sector_end >= crc_end {
            return;
        }
        // Where the sector with the CRC begins.
        let block = (sector_end / ALIGNMENT as u64) as u32;
        match &mut self.blocks {
            Some(blocks) if blocks.last() == Some(&block) => {}
            Some(blocks) if blocks.len() < SEAMS_MAX => blocks.push(block),
            _ => self.blocks = None,
        }
    }

    /// The blocks, if the file can be used again.
    pub fn known(&self) -> Option<&[u32]> {
        self.blocks.as_deref()
    }
}

/// Fills the blocks with zeros, durably.
pub async fn wipe(rt: &Rt, file: &File, blocks: &[u32]) -> io::Result<()> {
    for &block in blocks {
        let position = u64::from(block) * ALIGNMENT as u64;
        file.write_at(rt.alloc(ALIGNMENT), position).await?;
    }
    file.sync().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seam_is_where_a_sector_ends_between_base_offset_and_crc() {
        let check = |position: u64, expected: &[u32]| {
            let mut seams = Seams::none();
            seams.note(position);
            assert_eq!(seams.known(), Some(expected), "at {position}");
        };
        check(0, &[]);
        check(512, &[]);
        check(512 - 61, &[]);
        check(512 - 21, &[]);
        check(512 - 20, &[0]);
        check(512 - 8, &[0]);
        check(512 - 1, &[0]);
        check(8192 - 20, &[2]);
        check(8192 + 511, &[2]);
    }

    #[test]
    fn too_many_are_not_remembered() {
        let mut seams = Seams::none();
        for block in 0..=SEAMS_MAX as u64 {
            assert!(seams.known().is_some());
            seams.note(block * 4096 + 511);
            seams.note(block * 4096 + 1023);
        }
        assert_eq!(seams, Seams::unknown());
        seams.note(511);
        assert_eq!(seams, Seams::unknown());
    }
}
