//! The floor: the same disk written without the engine, with direct I/O, by as many writers and in blocks of the same size.

use std::{cell::Cell, path::PathBuf, rc::Rc, time::Duration};

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
