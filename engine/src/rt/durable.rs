//! The only caller of `rename` and `sync_dir` for files that are replaced as a whole.

use std::path::Path;

use super::Rt;
use crate::error::Fault;

/// Replaces `path` so that after a crash it holds either the old content or all of the new: write a temporary file,
/// sync it, rename it, sync the directory.
pub async fn replace_file(_rt: &Rt, _path: &Path, _content: &[u8]) -> Result<(), Fault> {
    unimplemented!()
}

/// Makes the entries of `dir` durable.
pub async fn sync_dir(_rt: &Rt, _dir: &Path) -> Result<(), Fault> {
    unimplemented!()
}
