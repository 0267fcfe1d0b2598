//! The journal of a shard: one durable write commits every small append of any number of partitions.
//!
//! `format` holds the bytes, `ring` the files they go to, `writer` the group commit, `replay` what a restart finds.
//! The journal knows nothing of segments: the engine tells it, by [`Journal::release_before`], what is no longer needed.
//!
//! # Crash analysis
//!
//! Assumed of the disk: a completed `O_DSYNC` write is there after a crash; a write in flight may leave any of its sectors;
//! sectors that are not written keep their content.
//!
//! - *During a commit.* Its sectors are new, old or mixed. The CRC-32 covers header and body, so it is found whole or not at all;
//!   nobody was told of it. The next commit is only written after this one completed, so nothing valid follows it.
//! - *Between commits.* After the last one lies what an earlier use of the file left. It carries another ring generation or another file
//!   sequence than the file's header, so the scan ends there.
//! - *While a file is taken into use again.* The file was released: a durable checkpoint covers all its entries. Its header is
//!   written alone and durable before the first commit, and fits one sector: either the old file is still whole, or its old commits
//!   no longer match the header, or (torn) it has no header at all.
//! - *At a start.* All shards have made durable what recovery kept before any of them starts its journal, so from the first header
//!   of the new generation on, everything of older generations in any shard's ring is void, and the scan ignores it.
//! - *While files are created.* A file without a header holds nothing; one that is not of full size is made anew at the next start.

pub mod format;
pub mod replay;
pub mod ring;
#[cfg(test)]
mod tests;
pub mod writer;

pub use replay::{EntryAt, Replay};
pub use ring::{JournalConfig, JournalPosition};
pub use writer::{Committed, Entry, Journal};
