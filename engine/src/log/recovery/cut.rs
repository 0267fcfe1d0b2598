//! Gives the last segment's file the length of its batches, so that nothing behind them comes back.

use std::rc::Rc;

use super::{Recovery, Report};
use crate::{error::Fault, log::together::Wanted, rt::File};

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
        if report.cut_bytes > 0 || self.cut_again {
            // Whole batches may be among what is cut: they must not come back, least of all behind new ones.
            let (files, dirs) = (vec![file], Vec::new());
            self.shared.sync(Wanted { files, dirs }).await?;
        }
        Ok(())
    }
}

/// Bytes from `position` to `end` that are not just padding: how much a cut takes.
async fn cut_bytes(file: &File, position: u64, end: u64) -> std::io::Result<u64> {
    const PIECE_BYTES: usize = 1024 * 1024;
    let (mut at, mut last_set) = (position, position);
    while at < end {
        let piece = file
            .read_at(at, PIECE_BYTES.min((end - at) as usize))
            .await?;
        if piece.is_empty() {
            break;
        }
        if let Some(last) = piece.iter().rposition(|&byte| byte != 0) {
            last_set = at + last as u64 + 1;
        }
        at += piece.len() as u64;
    }
    Ok(last_set - position)
}
