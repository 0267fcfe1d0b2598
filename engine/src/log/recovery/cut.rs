//! Gives the last segment's file the length of its batches, so that nothing behind them comes back.

use std::rc::Rc;

use super::{Recovery, Report};
use crate::{
    error::Fault,
    log::together::Wanted,
    rt::{File, buf::ALIGNMENT},
};

impl Recovery<'_> {
    /// `file_len` is what the file was found with, and `len` what is kept of it.
    pub(super) async fn cut(
        &self,
        file: Rc<File>,
        len: u64,
        file_len: u64,
        report: &mut Report,
    ) -> Result<(), Fault> {
        let path = file.path().to_path_buf();
        let fault = |error| Fault::io("recover", &path, error);
        let is_longer = file.len().await.map_err(fault)? > len;
        if is_longer {
            report.cut_bytes = cut_bytes(&file, len, file_len).await.map_err(fault)?;
            report.shortened = true;
        }
        if is_longer || self.cut_again {
            file.truncate(len).await.map_err(fault)?;
        }
        let is_padding = report.cut_bytes == 0 && file_len.saturating_sub(len) < ALIGNMENT as u64;
        if !is_padding || self.cut_again {
            // Whole batches may be among what is cut: they must not come back, least of all behind new ones.
            let (files, dirs) = (vec![file], Vec::new());
            self.shared.sync(Wanted { files, dirs }).await?;
        }
        Ok(())
    }
}

/// Up to the last byte that is not zero, how much there is from `position` to `end`. The file of an older segment may go on for long: no more
/// than the beginning is looked at.
async fn cut_bytes(file: &File, position: u64, end: u64) -> std::io::Result<u64> {
    const LOOKED_AT_BYTES_MAX: u64 = 1024 * 1024;
    let looked_at = LOOKED_AT_BYTES_MAX.min(end.saturating_sub(position));
    if looked_at == 0 {
        return Ok(0);
    }
    let found = file.read_at(position, looked_at as usize).await?;
    let last_set = found.iter().rposition(|&byte| byte != 0);
    Ok(last_set.map_or(0, |last| last as u64 + 1))
}
