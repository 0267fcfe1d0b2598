//! The floor: the same disk written and read without the engine, with direct I/O, by as many tasks and in blocks of the same size.

use std::{
    cell::Cell,
    fs, io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::BytesMut;
use forebay_engine::{
    LeaderEpoch, Offset,
    rt::{
        File, Instant, OpenMode, Rt,
        buf::{ALIGNMENT, AlignedBuf},
    },
};

use super::{
    measured::Measured,
    probe::{Broken, Meter, Probe},
    subject,
    tasks::{join_all, spawn_all},
};
use crate::{noise::Noise, run::Direction};

/// What a file consists of that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// Written once before the clock starts, and then overwritten round and round: the fastest durable write a file system offers,
    /// and what a raw device would do.
    Old,
    /// None: the file grows with every write.
    New,
}

/// What the blocks hold, and what is done for each of them before it is written.
#[derive(Clone)]
pub enum Content {
    /// As incompressible as records are, since there are disks that are faster with zeros. Copied into aligned memory.
    Noise(Rc<[u8]>),
    /// One batch each, with the work that no broker can leave out: copied from where the client has it, checked, and copied into aligned memory.
    Batch(BytesMut),
}

impl Content {
    /// So many bytes, rounded up to whole blocks.
    pub fn noise(size: usize) -> Content {
        let noise = Noise::new().bytes(size.next_multiple_of(ALIGNMENT));
        Content::Noise(noise.into())
    }

    fn len(&self) -> usize {
        match self {
            Content::Noise(noise) => noise.len(),
            Content::Batch(batch) => batch.len(),
        }
    }

    fn block(&self, rt: &Rt) -> Result<AlignedBuf, String> {
        let checked = match self {
            Content::Noise(_) => None,
            Content::Batch(batch) => Some(subject::receive(rt, batch)?),
        };
        let checked = checked.map(|batch| batch.assign(Offset::new(0), LeaderEpoch(0)).1);
        let bytes = match (self, &checked) {
            (Content::Noise(noise), _) => &noise[..],
            (Content::Batch(_), checked) => checked.as_deref().expect("it was checked"),
        };
        let mut buffer = rt.alloc_to_fill(bytes.len());
        buffer.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        Ok(buffer)
    }
}

/// Writes the content into block after block, `depth` in flight, each durable when it completes. Latencies are those of the writes alone.
/// The file is removed again.
pub async fn write(
    probe: Probe,
    rt: &Rt,
    dir: PathBuf,
    blocks: Blocks,
    content: Content,
    depth: usize,
    duration: Duration,
) -> Result<Measured, Broken> {
    let path = dir.join("device");
    let said = |error: io::Error| format!("{}: {error}", path.display());
    let block = content.len().next_multiple_of(ALIGNMENT);
    let (blocks, filled) = match blocks {
        Blocks::Old => {
            let blocks = (256 << 20_u64).max(block as u64 * depth as u64 * 2) / block as u64;
            (blocks, blocks * block as u64)
        }
        Blocks::New => (u64::MAX / block as u64, 0),
    };
    fill(&probe, rt, &path, filled).await?;
    let file = rt.open(&path, OpenMode::ReadWriteDurable).await;
    let file = Rc::new(file.map_err(said)?);
    let next = Rc::new(Cell::new(0));
    let meter = probe.meter(Direction::Produce);
    let ends = rt.now().plus(duration);
    let writer = |_| Writer {
        rt: rt.clone(),
        probe: probe.clone(),
        meter: meter.clone(),
        file: file.clone(),
        content: content.clone(),
        blocks,
        next: next.clone(),
        ends,
    };
    join_all(spawn_all(rt, (0..depth).map(writer).map(Writer::run))).await?;
    let measured = meter.finish();
    let file = Rc::into_inner(file).expect("no writer is left");
    file.close().await.map_err(said)?;
    rt.remove_file(&path).await.map_err(said)?;
    Ok(measured)
}

/// One of the writers that share the `next` block to be written.
struct Writer {
    rt: Rt,
    probe: Probe,
    meter: Meter,
    file: Rc<File>,
    content: Content,
    blocks: u64,
    next: Rc<Cell<u64>>,
    ends: Instant,
}

impl Writer {
    async fn run(self) -> Result<(), Broken> {
        let bytes = self.content.len() as u64;
        while self.rt.now() < self.ends {
            self.probe.check()?;
            let index = self.next.replace(self.next.get() + 1);
            let buffer = self.content.block(&self.rt)?;
            let began = self.rt.now();
            let position = index % self.blocks * buffer.len() as u64;
            self.file.write_at(buffer, position).await?;
            self.meter.record(self.rt.now().since(began), bytes);
        }
        Ok(())
    }
}

/// A new file of `bytes`, all of them written and durable.
async fn fill(probe: &Probe, rt: &Rt, path: &Path, bytes: u64) -> Result<(), Broken> {
    let said = |error: io::Error| format!("{}: {error}", path.display());
    const PIECE_BYTES: usize = 4 << 20;
    let file = rt.open(path, OpenMode::Create).await.map_err(said)?;
    for position in (0..bytes).step_by(PIECE_BYTES) {
        let left = usize::try_from(bytes - position).unwrap_or(usize::MAX);
        let piece = rt.alloc(left.min(PIECE_BYTES));
        probe.check()?;
        file.write_at(piece, position).await.map_err(said)?;
    }
    file.sync().await.map_err(said)?;
    Ok(file.close().await.map_err(said)?)
}

/// A file whose blocks were written before, to be overwritten as it is asked for, and beside it one to be read.
pub struct Pair {
    rt: Rt,
    blocks: File,
    backlog: File,
    paths: [PathBuf; 2],
}

impl Pair {
    /// Length of each file.
    const FILE_BYTES: u64 = 512 << 20;

    pub async fn prepare(probe: &Probe, rt: &Rt, dir: &Path) -> Result<Pair, Broken> {
        let paths = ["device-blocks", "device-backlog"].map(|name| dir.join(name));
        for path in &paths {
            fill(probe, rt, path, Pair::FILE_BYTES).await?;
        }
        let open = async |path: &Path, mode| {
            let file = rt.open(path, mode).await;
            file.map_err(|error| format!("{}: {error}", path.display()))
        };
        Ok(Pair {
            blocks: open(&paths[0], OpenMode::ReadWriteDurable).await?,
            backlog: open(&paths[1], OpenMode::Read).await?,
            rt: rt.clone(),
            paths,
        })
    }

    /// The write with this number, in as many blocks as `len` bytes take.
    pub async fn write(&self, number: u64, len: usize) -> Result<(), String> {
        let len = len.next_multiple_of(ALIGNMENT);
        let position = number % (Pair::FILE_BYTES / len as u64) * len as u64;
        let written = self.blocks.write_at(self.rt.alloc(len), position).await;
        written.map_err(|error| error.to_string())
    }

    /// Reads pieces of `size` bytes round and round until it is cancelled.
    pub async fn drain(self: Rc<Self>, from: u32, size: usize, meter: Meter) {
        let pieces = Pair::FILE_BYTES / size as u64;
        for piece in u64::from(from).. {
            let position = piece % pieces * size as u64;
            let began = std::time::Instant::now();
            let read = self.backlog.read_at(position, size).await;
            let read = read.expect("what was written can be read");
            meter.record(began.elapsed(), read.len() as u64);
        }
    }

    pub fn remove(&self) -> Result<(), String> {
        let removed = self.paths.iter().try_for_each(fs::remove_file);
        removed.map_err(|error| error.to_string())
    }
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

/// Reads the last `bytes`, rounded up to whole pieces of up to 1 MiB, in their order, one at a time.
pub fn read_once(probe: &Probe, files: &Files, bytes: u64) -> Result<Measured, Broken> {
    const PIECE_BYTES: usize = 1 << 20;
    let wanted = usize::try_from(bytes).unwrap_or(usize::MAX).max(1);
    let size = wanted.min(PIECE_BYTES).next_multiple_of(ALIGNMENT);
    let pieces = files.pieces(size as u64);
    let last = pieces.len().saturating_sub(wanted.div_ceil(size));
    let mut memory = Aligned::new(size);
    let meter = probe.meter(Direction::Consume);
    for (file, position) in &pieces[last..] {
        probe.check()?;
        let began = std::time::Instant::now();
        file.read_exact_at(memory.bytes(), *position)?;
        meter.record(began.elapsed(), size as u64);
    }
    Ok(meter.finish())
}

/// Memory that a disk can write to without a copy.
struct Aligned {
    memory: Vec<u8>,
    size: usize,
}

impl Aligned {
    fn new(size: usize) -> Aligned {
        Aligned {
            memory: vec![0; size + ALIGNMENT],
            size,
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        let skip = self.memory.as_ptr().align_offset(ALIGNMENT);
        &mut self.memory[skip..skip + self.size]
    }
}

/// Reads pieces of `size` bytes in their order and round and round, each of `depth` threads one at a time, by the plainest system call there is.
/// Blocks.
pub fn read(
    probe: &Probe,
    files: &Files,
    size: usize,
    depth: usize,
    duration: Duration,
) -> Result<Measured, Broken> {
    let pieces = files.pieces(size as u64);
    let next = AtomicUsize::new(0);
    let ends = std::time::Instant::now() + duration;
    let read_some = || {
        let mut memory = Aligned::new(size);
        let meter = probe.meter(Direction::Consume);
        while std::time::Instant::now() < ends {
            probe.check()?;
            let (file, position) = pieces[next.fetch_add(1, Ordering::Relaxed) % pieces.len()];
            let began = std::time::Instant::now();
            file.read_exact_at(memory.bytes(), position)?;
            meter.record(began.elapsed(), size as u64);
        }
        Ok::<_, Broken>(meter.finish())
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..depth).map(|_| scope.spawn(read_some)).collect();
        let mut all: Option<Measured> = None;
        for reader in readers {
            let one = reader.join().expect("a reader does not panic")?;
            match &mut all {
                Some(all) => all.add(one),
                None => all = Some(one),
            }
        }
        all.ok_or_else(|| "no reader".to_string().into())
    })
}
