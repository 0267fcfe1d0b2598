//! The only caller of `rename` and `sync_dir` for files that are replaced as a whole.
//!
//! Crash analysis. Before the rename the old file is untouched and a stray `.tmp` may lie beside it, which the next
//! replacement removes. The content is synced before the rename, so whichever name survives leads to all of it. After
//! the rename and before the directory's sync either file may be found; both are whole.

use std::path::{Path, PathBuf};

use super::{OpenMode, Rt, buf};
use crate::error::Fault;

/// Replaces `path` so that after a crash it holds either the old content or all of the new: write a temporary file,
/// sync it, rename it, sync the directory.
pub async fn replace_file(rt: &Rt, path: &Path, content: &[u8]) -> Result<(), Fault> {
    let fault = |what, error| Fault::io(what, path, error);
    let temporary = temporary_name(path);
    match rt.remove_file(&temporary).await {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(fault("remove the temporary file of", error)),
    }
    let file = rt
        .open(&temporary, OpenMode::Create)
        .await
        .map_err(|error| fault("create the temporary file of", error))?;
    if !content.is_empty() {
        let mut block = rt.alloc(content.len());
        block.bytes_mut()[..content.len()].copy_from_slice(content);
        file.write_at(block, 0)
            .await
            .map_err(|error| fault("write the temporary file of", error))?;
    }
    if !content.len().is_multiple_of(buf::ALIGNMENT) {
        file.truncate(content.len() as u64)
            .await
            .map_err(|error| fault("cut the temporary file of", error))?;
    }
    file.sync()
        .await
        .map_err(|error| fault("sync the temporary file of", error))?;
    file.close()
        .await
        .map_err(|error| fault("close the temporary file of", error))?;
    rt.rename(&temporary, path)
        .await
        .map_err(|error| fault("rename into place", error))?;
    sync_dir(rt, parent(path)).await
}

/// Makes the entries of `dir` durable.
pub async fn sync_dir(rt: &Rt, dir: &Path) -> Result<(), Fault> {
    rt.sync_dir(dir)
        .await
        .map_err(|error| Fault::io("sync the directory", dir, error))
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

/// A bare file name lies in the current directory, which `Path::parent` calls "".
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
