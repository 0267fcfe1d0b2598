//! The only caller of `rename` and `sync_dir` for files that are replaced as a whole.
//!
//! Crash analysis. Before the rename the old file is untouched and a stray `.tmp` may lie beside it, which the next
//! replacement removes. The content is synced before the rename, so whichever name survives leads to all of it. After
//! the rename and before the directory's sync either file may be found; both are whole.

use std::path::{Path, PathBuf};

use super::{AlignedBuf, File, OpenMode, Rt, buf};
use crate::error::Fault;

/// Replaces `path` so that after a crash it holds either the old content or all of the new: write a temporary file,
/// sync it, rename it, sync the directory.
pub async fn replace_file(rt: &Rt, path: &Path, content: &[u8]) -> Result<(), Fault> {
    let mut replacement = Replacement::begin(rt, path).await?;
    if !content.is_empty() {
        let mut block = rt.alloc(content.len());
        block.bytes_mut()[..content.len()].copy_from_slice(content);
        replacement.write(block).await?;
    }
    replacement.len = content.len() as u64;
    replacement.finish().await
}

/// The same for content that is written piece by piece. Dropped unfinished, it leaves the old file as it is.
pub struct Replacement {
    rt: Rt,
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    len: u64,
}

impl Replacement {
    pub async fn begin(rt: &Rt, path: &Path) -> Result<Replacement, Fault> {
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
        Ok(Replacement {
            rt: rt.clone(),
            path: path.to_path_buf(),
            temporary,
            file,
            len: 0,
        })
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.len
    }

    pub async fn write(&mut self, block: AlignedBuf) -> Result<(), Fault> {
        let len = block.len() as u64;
        self.file
            .write_at(block, self.len)
            .await
            .map_err(|error| Fault::io("write the temporary file of", &self.path, error))?;
        self.len += len;
        Ok(())
    }

    pub async fn finish(self) -> Result<(), Fault> {
        let fault = |what, error| Fault::io(what, &self.path, error);
        if !self.len.is_multiple_of(buf::ALIGNMENT as u64) {
            self.file
                .truncate(self.len)
                .await
                .map_err(|error| fault("cut the temporary file of", error))?;
        }
        self.file
            .sync()
            .await
            .map_err(|error| fault("sync the temporary file of", error))?;
        self.file
            .close()
            .await
            .map_err(|error| fault("close the temporary file of", error))?;
        self.rt
            .rename(&self.temporary, &self.path)
            .await
            .map_err(|error| fault("rename into place", error))?;
        sync_dir(&self.rt, parent(&self.path)).await
    }
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
