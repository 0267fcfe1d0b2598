//! The floor: the same disk written and read without the engine, with direct I/O, by as many tasks and in blocks of the same size.

use std::{
    cell::Cell,
    fs, io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::PathBuf,
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use forebay_engine::rt::{Class, Rt, buf::ALIGNMENT, file::OpenMode};
use hdrhistogram::Histogram;

use super::append::{Round, micros};

/// Writes blocks of `size` bytes (rounded up to the alignment) one after another, `depth` in flight, each durable when it completes.
///
/// The file's blocks are written once before the clock starts and then overwritten round and round: the fastest durable write a
/// file system offers, and what a raw device would do.
pub async fn write(
    rt: &Rt,
    dir: PathBuf,
    size: usize,
    depth: usize,
    duration: Duration,
) -> Result<Round, String> {
    let block = size.next_multiple_of(ALIGNMENT);
    let path = dir.join("device");
    let file_bytes = (256 << 20_u64).max(block as u64 * depth as u64 * 2);
    let blocks = file_bytes / block as u64;
    let said = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = rt.open(&path, OpenMode::Create).await.map_err(said)?;
    for position in (0..blocks * block as u64).step_by(4 << 20) {
        let len = (4 << 20).min(blocks * block as u64 - position);
        let len = usize::try_from(len).expect("at most 4 MiB");
        file.write_at(rt.alloc(len), position).await.map_err(said)?;
    }
    file.sync().await.map_err(said)?;
    file.close().await.map_err(said)?;

    let file = Rc::new(
        rt.open(&path, OpenMode::ReadWriteDurable)
            .await
            .map_err(said)?,
    );
    let next = Rc::new(Cell::new(0_u64));
    let started = rt.now();
    let ends = started.plus(duration);
    let writers: Vec<_> = (0..depth)
        .map(|_| {
            let (rt_of_task, file, next) = (rt.clone(), file.clone(), next.clone());
            rt.spawn(Class::Foreground, async move {
                let mut latency = Histogram::<u64>::new(3).expect("three digits are allowed");
                while rt_of_task.now() < ends {
                    let index = next.replace(next.get() + 1);
                    let buffer = rt_of_task.alloc(block);
                    let began = rt_of_task.now();
                    file.write_at(buffer, index % blocks * block as u64).await?;
                    latency
                        .record(micros(rt_of_task.now().since(began)))
                        .expect("a resizing histogram takes any value");
                }
                Ok::<_, std::io::Error>(latency)
            })
        })
        .collect();
    let mut latency = Histogram::<u64>::new(3).expect("three digits are allowed");
    for writer in writers {
        latency += writer.await.map_err(said)?;
    }
    let elapsed = rt.now().since(started);
    Ok(Round::new(latency.len() * block as u64, elapsed, &latency))
}

/// Files that are read whole, one after the other.
pub struct Files {
    files: Vec<fs::File>,
    /// Each with its length.
    lens: Vec<u64>,
}

impl Files {
    pub fn open(paths: &[PathBuf]) -> Result<Files, String> {
        let (mut files, mut lens) = (Vec::new(), Vec::new());
        for path in paths {
            let said = |error: io::Error| format!("{}: {error}", path.display());
            let mut options = fs::File::options();
            let file = options.read(true).custom_flags(libc::O_DIRECT).open(path);
            let file = file.map_err(said)?;
            lens.push(file.metadata().map_err(said)?.len());
            files.push(file);
        }
        Ok(Files { files, lens })
    }

    pub fn total_bytes(&self) -> u64 {
        self.lens.iter().sum()
    }

    /// The file and the position of each piece of `size` bytes; what is left at the end of a file is read by nobody.
    fn pieces(&self, size: u64) -> Vec<(&fs::File, u64)> {
        let of_file = |(file, len): (_, &u64)| {
            let positions = 0..len / size;
            positions.map(move |piece| (file, piece * size))
        };
        self.files
            .iter()
            .zip(&self.lens)
            .flat_map(of_file)
            .collect()
    }
}

/// Reads pieces of `size` bytes in their order and round and round, each of `depth` threads one at a time, by the plainest system call there is.
/// Gives the bytes read and the latency of each read. Blocks.
pub fn read(
    files: &Files,
    size: usize,
    depth: usize,
    duration: Duration,
) -> io::Result<(u64, Histogram<u64>)> {
    let pieces = files.pieces(size as u64);
    let next = AtomicUsize::new(0);
    let ends = std::time::Instant::now() + duration;
    let read_some = || {
        let mut memory = vec![0_u8; size + ALIGNMENT];
        let skip = memory.as_ptr().align_offset(ALIGNMENT);
        let buffer = &mut memory[skip..skip + size];
        let mut latency = Histogram::<u64>::new(3).expect("three digits are allowed");
        while std::time::Instant::now() < ends {
            let (file, position) = pieces[next.fetch_add(1, Ordering::Relaxed) % pieces.len()];
            let began = std::time::Instant::now();
            file.read_exact_at(buffer, position)?;
            latency
                .record(micros(began.elapsed()))
                .expect("a resizing histogram takes any value");
        }
        Ok::<_, io::Error>(latency)
    };
    let mut latency = Histogram::<u64>::new(3).expect("three digits are allowed");
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..depth).map(|_| scope.spawn(read_some)).collect();
        for reader in readers {
            latency += reader.join().expect("a reader does not panic")?;
        }
        Ok::<_, io::Error>(())
    })?;
    Ok((latency.len() * size as u64, latency))
}
