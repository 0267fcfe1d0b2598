//! One suite, both back ends: what code above the seam may rely on.
//!
//! Every check runs on glommio in a directory of its own, and in the simulator under several seeds.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    io,
    io::ErrorKind,
    path::{Path, PathBuf},
    rc::Rc,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use super::{
    Class, File, OpenMode, Rt,
    buf::ALIGNMENT,
    channel, durable,
    net::{ReadHalf, Stream, WriteHalf},
    sim, uring,
};

const SEEDS: std::ops::Range<u64> = 0..8;
const ALL_CLASSES: [Class; 4] = [
    Class::Foreground,
    Class::Replication,
    Class::ColdRead,
    Class::Housekeeping,
];

fn check<Running: Future<Output = ()> + 'static>(what: impl Fn(Rt, PathBuf) -> Running) {
    let dir = TestDir::new();
    uring::run_alone(|rt| what(rt, dir.0.clone())).expect("io_uring works here");
    for seed in SEEDS {
        sim::run(seed, sim::Disk::default(), |rt| {
            let what = &what;
            let dir = dir.0.clone();
            let ready = what(rt.clone(), dir.clone());
            async move {
                rt.create_dir_all(&dir).await.unwrap();
                ready.await;
            }
        });
    }
}

struct TestDir(PathBuf);

impl TestDir {
    fn new() -> TestDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "forebay-rt-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        TestDir(path)
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Bytes of which no two blocks are alike.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

async fn write(rt: &Rt, file: &File, position: u64, content: &[u8]) {
    let mut buf = rt.alloc(content.len());
    buf.bytes_mut()[..content.len()].copy_from_slice(content);
    file.write_at(buf, position).await.unwrap();
}

async fn create(rt: &Rt, path: &Path, content: &[u8]) -> File {
    let file = rt.open(path, OpenMode::Create).await.unwrap();
    write(rt, &file, 0, content).await;
    file.truncate(content.len() as u64).await.unwrap();
    file
}

async fn error_of<T>(result: impl Future<Output = io::Result<T>>) -> ErrorKind {
    match result.await {
        Ok(_) => panic!("it should have failed"),
        Err(error) => error.kind(),
    }
}

#[test]
fn buffers_are_zeroed_and_whole_blocks() {
    check(|rt, _| async move {
        for _ in 0..3 {
            let mut buf = rt.alloc(5000);
            assert_eq!(buf.len(), 2 * ALIGNMENT);
            assert!(buf.bytes().iter().all(|byte| *byte == 0));
            buf.bytes_mut().fill(7);
            buf.trim(ALIGNMENT);
            assert_eq!(buf.bytes(), [7; ALIGNMENT]);
        }
    });
}

#[test]
fn a_file_holds_what_was_written() {
    check(|rt, dir| async move {
        let content = pattern(20_000);
        for mode in [OpenMode::ReadWrite, OpenMode::ReadWriteDurable] {
            let path = dir.join(format!("{mode:?}"));
            create(&rt, &path, &[]).await.close().await.unwrap();
            let file = rt.open(&path, mode).await.unwrap();
            write(&rt, &file, ALIGNMENT as u64, &content).await;
            file.sync().await.unwrap();
            file.close().await.unwrap();

            let file = rt.open(&path, OpenMode::Read).await.unwrap();
            assert_eq!(file.path(), path);
            assert_eq!(file.len().await.unwrap(), (6 * ALIGNMENT) as u64);
            let gap = file.read_at(0, ALIGNMENT).await.unwrap();
            assert_eq!(gap, vec![0; ALIGNMENT]);
            let read = file.read_at(ALIGNMENT as u64, content.len()).await.unwrap();
            assert_eq!(read, content);
            file.close().await.unwrap();
        }
    });
}

#[test]
fn reads_need_no_alignment_and_end_with_the_file() {
    check(|rt, dir| async move {
        let content = pattern(3 * ALIGNMENT + 100);
        let file = create(&rt, &dir.join("file"), &content).await;
        let edges = [
            0, 1, 511, 4095, 4096, 4097, 8192, 12_287, 12_288, 12_300, 12_388, 12_389,
        ];
        for start in edges {
            for len in [0, 1, 100, 4095, 4096, 4097, 20_000] {
                let from = content.len().min(start);
                let to = content.len().min(start + len);
                let read = file.read_at(start as u64, len).await.unwrap();
                assert_eq!(read, content[from..to], "{len} bytes at {start}");
            }
        }
        let far = file.read_at(1 << 30, 10).await.unwrap();
        assert!(far.is_empty());
        file.close().await.unwrap();
    });
}

#[test]
fn truncate_cuts_and_extends_with_zeros() {
    check(|rt, dir| async move {
        let content = pattern(10_000);
        let file = create(&rt, &dir.join("file"), &content).await;
        file.truncate(4100).await.unwrap();
        assert_eq!(file.read_at(4000, 1000).await.unwrap(), content[4000..4100]);
        file.truncate(9000).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 9000);
        let read = file.read_at(4096, 10_000).await.unwrap();
        assert_eq!(read[..4], content[4096..4100]);
        assert_eq!(read[4..], vec![0; 9000 - 4100]);
        file.close().await.unwrap();
    });
}

#[test]
fn allocate_keeps_the_length() {
    check(|rt, dir| async move {
        let file = rt.open(&dir.join("file"), OpenMode::Create).await.unwrap();
        file.allocate(1 << 20).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 0);
        file.close().await.unwrap();
    });
}

#[test]
fn large_writes_and_reads_in_every_class() {
    check(|rt, dir| async move {
        // More than the bound of bytes in flight of the lesser classes.
        const LEN: usize = 9 << 20;
        let content = Bytes::from(pattern(LEN));
        for class in ALL_CLASSES {
            let (path, content, inner) = (dir.join("file"), content.clone(), rt.clone());
            let work = async move {
                let file = create(&inner, &path, &content).await;
                let read = file.read_at(1, LEN).await.unwrap();
                assert!(read == content.slice(1..));
                file.close().await.unwrap();
                inner.remove_file(&path).await.unwrap();
            };
            rt.spawn(class, work).await;
        }
    });
}

#[test]
fn results_can_go_to_other_shards() {
    fn send<T: Send>(item: T) -> T {
        item
    }
    check(|rt, dir| async move {
        let file = create(&rt, &dir.join("file"), b"content").await;
        let bytes = send(file.read_at(0, 7).await.unwrap());
        let elsewhere = std::thread::spawn(move || bytes.to_vec());
        assert_eq!(elsewhere.join().unwrap(), b"content");
        file.close().await.unwrap();
    });
}

#[test]
fn errors_have_their_kinds() {
    check(|rt, dir| async move {
        let missing = dir.join("missing");
        let there = dir.join("there");
        create(&rt, &there, b"x").await.close().await.unwrap();
        for mode in [
            OpenMode::Read,
            OpenMode::ReadWrite,
            OpenMode::ReadWriteDurable,
        ] {
            assert_eq!(error_of(rt.open(&missing, mode)).await, ErrorKind::NotFound);
        }
        let again = rt.open(&there, OpenMode::Create);
        assert_eq!(error_of(again).await, ErrorKind::AlreadyExists);
        let no_dir = missing.join("file");
        let nowhere = rt.open(&no_dir, OpenMode::Create);
        assert_eq!(error_of(nowhere).await, ErrorKind::NotFound);
        assert_eq!(
            error_of(rt.remove_file(&missing)).await,
            ErrorKind::NotFound
        );
        assert_eq!(
            error_of(rt.remove_dir_all(&missing)).await,
            ErrorKind::NotFound
        );
        assert_eq!(error_of(rt.list_dir(&missing)).await, ErrorKind::NotFound);
        assert_eq!(error_of(rt.sync_dir(&missing)).await, ErrorKind::NotFound);
        assert_eq!(
            error_of(rt.rename(&missing, &there)).await,
            ErrorKind::NotFound
        );
        assert_eq!(
            error_of(rt.read_small(&missing, 9)).await,
            ErrorKind::NotFound
        );
        assert_eq!(error_of(rt.disk_space(&missing)).await, ErrorKind::NotFound);

        let file = rt.open(&there, OpenMode::Read).await.unwrap();
        let refused = file.write_at(rt.alloc(1), 0).await.unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
        file.close().await.unwrap();
    });
}

#[test]
fn directories() {
    check(|rt, dir| async move {
        let deep = dir.join("a/b/c");
        rt.create_dir_all(&deep).await.unwrap();
        rt.create_dir_all(&deep).await.unwrap();
        create(&rt, &dir.join("a/file"), b"12345")
            .await
            .close()
            .await
            .unwrap();
        let entries = rt.list_dir(&dir.join("a")).await.unwrap();
        let short: Vec<_> = entries
            .iter()
            .map(|entry| (entry.name.as_str(), entry.is_dir, entry.len))
            .collect();
        assert_eq!(short, [("b", true, 0), ("file", false, 5)]);
        assert!(rt.exists(&deep).await);
        rt.remove_dir_all(&dir.join("a")).await.unwrap();
        assert!(!rt.exists(&dir.join("a")).await);
        assert_eq!(rt.list_dir(&dir).await.unwrap(), []);
    });
}

#[test]
fn rename_replaces_and_moves() {
    check(|rt, dir| async move {
        let (old, new) = (dir.join("old"), dir.join("new"));
        create(&rt, &old, b"old").await.close().await.unwrap();
        create(&rt, &new, b"new").await.close().await.unwrap();
        rt.rename(&old, &new).await.unwrap();
        rt.sync_dir(&dir).await.unwrap();
        assert!(!rt.exists(&old).await);
        assert_eq!(rt.read_small(&new, 10).await.unwrap(), b"old");

        let sub = dir.join("sub");
        rt.create_dir_all(&sub).await.unwrap();
        rt.rename(&new, &sub.join("moved")).await.unwrap();
        rt.rename(&sub, &dir.join("renamed")).await.unwrap();
        let moved = dir.join("renamed/moved");
        assert_eq!(rt.read_small(&moved, 10).await.unwrap(), b"old");
    });
}

#[test]
fn an_open_file_outlives_its_name() {
    check(|rt, dir| async move {
        let path = dir.join("file");
        let file = create(&rt, &path, b"content").await;
        rt.remove_file(&path).await.unwrap();
        assert_eq!(file.read_at(0, 100).await.unwrap(), b"content"[..]);
        file.close().await.unwrap();
    });
}

#[test]
fn read_small_refuses_what_is_larger() {
    check(|rt, dir| async move {
        let path = dir.join("file");
        create(&rt, &path, &pattern(100))
            .await
            .close()
            .await
            .unwrap();
        assert_eq!(rt.read_small(&path, 100).await.unwrap(), pattern(100));
        assert_eq!(
            error_of(rt.read_small(&path, 99)).await,
            ErrorKind::InvalidData
        );
    });
}

#[test]
fn disk_space_adds_up() {
    check(|rt, dir| async move {
        let space = rt.disk_space(&dir).await.unwrap();
        assert!(space.total_bytes > 0);
        assert!(space.available_bytes <= space.total_bytes);
    });
}

#[test]
fn replace_file_replaces_all_of_it() {
    check(|rt, dir| async move {
        let path = dir.join("file");
        for len in [0, 1, 4095, 4096, 4097, 10] {
            let content = pattern(len);
            durable::replace_file(&rt, &path, &content).await.unwrap();
            assert_eq!(rt.read_small(&path, 5000).await.unwrap(), content);
        }
        // What a crash left behind is no obstacle.
        let stray = dir.join("file.tmp");
        create(&rt, &stray, b"stray").await.close().await.unwrap();
        durable::replace_file(&rt, &path, b"new").await.unwrap();
        assert_eq!(rt.read_small(&path, 10).await.unwrap(), b"new");
        assert!(!rt.exists(&stray).await);
    });
}

#[test]
fn time_passes() {
    check(|rt, _| async move {
        let (start, wall) = (rt.now(), rt.wall_clock());
        rt.sleep(Duration::from_millis(20)).await;
        assert!(rt.now().since(start) >= Duration::from_millis(20));
        assert!(rt.wall_clock().0 >= wall.0 + 19);
        assert_ne!(rt.random_u64(), rt.random_u64());
    });
}

#[test]
fn timeout_drops_what_is_late() {
    struct Dropped(Rc<Cell<bool>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    check(|rt, _| async move {
        let in_time = rt.timeout(Duration::from_secs(60), async { 7 }).await;
        assert_eq!(in_time, Some(7));

        let dropped = Rc::new(Cell::new(false));
        let guard = Dropped(dropped.clone());
        let inner = rt.clone();
        let late = rt.timeout(Duration::from_millis(5), async move {
            let _guard = guard;
            inner.sleep(Duration::from_secs(3600)).await;
        });
        assert_eq!(late.await, None);
        assert!(dropped.get());
    });
}

#[test]
fn tasks_return_detach_and_cancel() {
    check(|rt, _| async move {
        for class in ALL_CLASSES {
            assert_eq!(rt.spawn(class, async { 7 }).await, 7);
        }
        let log = Rc::new(RefCell::new(Vec::new()));
        let slow = |name: &'static str| {
            let (rt, log) = (rt.clone(), log.clone());
            async move {
                rt.sleep(Duration::from_millis(5)).await;
                log.borrow_mut().push(name);
            }
        };
        let (tell, told) = super::local::oneshot();
        let detached = slow("detached");
        rt.spawn(Class::Foreground, async move {
            detached.await;
            let _ = tell.send(());
        })
        .detach();
        rt.spawn(Class::Foreground, slow("cancelled"))
            .cancel()
            .await;
        drop(rt.spawn(Class::Foreground, slow("dropped")));
        told.await;
        rt.sleep(Duration::from_millis(50)).await;
        assert_eq!(*log.borrow(), ["detached"]);
    });
}

#[test]
fn yielding_lets_others_run() {
    check(|rt, _| async move {
        let turns = Rc::new(Cell::new(0));
        let counter = turns.clone();
        let inner = rt.clone();
        let other = rt.spawn(Class::Housekeeping, async move {
            while counter.get() < 3 {
                counter.set(counter.get() + 1);
                inner.yield_now().await;
            }
        });
        while turns.get() < 3 {
            rt.yield_now().await;
        }
        other.await;
    });
}

#[test]
fn blocking_work_returns() {
    check(|rt, _| async move {
        assert_eq!(rt.run_blocking(|| 6 * 7).await, 42);
    });
}

/// A channel whose ends may both be connected from tasks of one executor.
fn channel_for<T: Send>(
    rt: &Rt,
    bound: usize,
) -> (channel::SenderSeed<T>, channel::ReceiverSeed<T>) {
    match rt {
        Rt::Uring(_) => channel::between_threads(bound),
        Rt::Sim(_) => channel::in_simulator(bound),
    }
}

#[test]
fn channels_keep_order_and_tell_of_the_end() {
    check(|rt, _| async move {
        let (sender, receiver) = channel_for::<u32>(&rt, 4);
        let sending = rt.spawn(Class::Foreground, async move {
            let sender = sender.connect().await;
            for item in 0..100 {
                sender.send(item).await.unwrap();
            }
        });
        let receiver = receiver.connect().await;
        for item in 0..100 {
            assert_eq!(receiver.recv().await, Some(item));
        }
        assert_eq!(receiver.recv().await, None);
        sending.await;
    });
}

#[test]
fn a_channel_gives_back_what_nobody_will_receive() {
    check(|rt, _| async move {
        let (sender, receiver) = channel_for::<u32>(&rt, 1);
        let receiving = rt.spawn(Class::Foreground, async move { receiver.connect().await });
        let sender = sender.connect().await;
        let receiver = receiving.await;
        sender.send(1).await.unwrap();
        let waits = rt.spawn(Class::Foreground, async move {
            let second = sender.send(2).await;
            (second, sender.send(3).await)
        });
        rt.sleep(Duration::from_millis(5)).await;
        drop(receiver);
        assert_eq!(waits.await, (Err(2), Err(3)));
    });
}

async fn connected_pair(rt: &Rt) -> (Stream, Stream) {
    let listener = rt.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    assert_ne!(listener.local_addr().port(), 0);
    let inner = rt.clone();
    let address = listener.local_addr();
    let connecting = rt.spawn(Class::Foreground, async move {
        inner.connect(address).await.unwrap()
    });
    let accepted = listener.accept().await.unwrap();
    let connected = connecting.await;
    assert_eq!(accepted.peer_addr(), connected.local_addr());
    assert_eq!(accepted.local_addr(), connected.peer_addr());
    (accepted, connected)
}

async fn read_to_end(mut read: ReadHalf) -> Vec<u8> {
    let mut content = Vec::new();
    let mut buf = BytesMut::with_capacity(64 << 10);
    loop {
        let capacity = buf.capacity();
        let count = read.read_into(&mut buf).await.unwrap();
        assert_eq!(buf.len(), count);
        assert_eq!(buf.capacity(), capacity, "the buffer is never grown");
        if count == 0 {
            return content;
        }
        content.extend_from_slice(&buf);
        buf.clear();
    }
}

async fn echo(mut read: ReadHalf, mut write: WriteHalf) {
    loop {
        let mut buf = BytesMut::with_capacity(10_000);
        if read.read_into(&mut buf).await.unwrap() == 0 {
            return write.shutdown().await.unwrap();
        }
        write.write_all(&[buf.freeze()]).await.unwrap();
    }
}

#[test]
fn a_mebibyte_in_many_slices_is_echoed() {
    check(|rt, _| async move {
        let (accepted, connected) = connected_pair(&rt).await;
        let (read, write) = accepted.split();
        let echoing = rt.spawn(Class::Foreground, echo(read, write));
        let (read, mut write) = connected.split();
        let reading = rt.spawn(Class::Foreground, read_to_end(read));

        // Uneven slices, empty ones among them, and more than fit into one call.
        let content = Bytes::from(pattern(1 << 20));
        let mut slices = Vec::new();
        let mut start = 0;
        while start < content.len() {
            let end = content.len().min(start + start % 2000 + 1);
            slices.extend([content.slice(start..end), Bytes::new()]);
            start = end;
        }
        assert!(slices.len() > 1000);
        write.write_all(&slices).await.unwrap();
        write.write_all(&[]).await.unwrap();
        write.shutdown().await.unwrap();
        assert!(reading.await == content);
        echoing.await;
    });
}

#[test]
fn a_cancelled_read_loses_nothing() {
    check(|rt, _| async move {
        let (accepted, connected) = connected_pair(&rt).await;
        let (mut read, _write) = accepted.split();
        let (_read, mut write) = connected.split();
        let mut buf = BytesMut::with_capacity(100);
        let early = rt
            .timeout(Duration::from_millis(2), read.read_into(&mut buf))
            .await;
        assert!(early.is_none());
        write
            .write_all(&[Bytes::from_static(b"late")])
            .await
            .unwrap();
        assert_eq!(read.read_into(&mut buf).await.unwrap(), 4);
        assert_eq!(buf, b"late"[..]);
    });
}

#[test]
fn a_closed_connection_is_seen_at_both_ends() {
    check(|rt, _| async move {
        let (accepted, connected) = connected_pair(&rt).await;
        drop(accepted);
        let (mut read, mut write) = connected.split();
        let mut buf = BytesMut::with_capacity(100);
        assert_eq!(read.read_into(&mut buf).await.unwrap(), 0);
        let mut outcome = Ok(());
        // The first write may still be taken, for the peer to refuse.
        for _ in 0..100 {
            outcome = write.write_all(&[Bytes::from_static(b"anyone?")]).await;
            if outcome.is_err() {
                break;
            }
            rt.sleep(Duration::from_millis(1)).await;
        }
        let kind = outcome.unwrap_err().kind();
        assert!(matches!(
            kind,
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
        ));
    });
}

#[test]
fn a_port_without_listener_refuses() {
    check(|rt, _| async move {
        let listener = rt.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr();
        drop(listener);
        let refused = rt.connect(address);
        assert_eq!(error_of(refused).await, ErrorKind::ConnectionRefused);
    });
}

#[test]
fn shards_share_a_port() {
    check(|rt, _| async move {
        let first = rt.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr();
        let second = rt.listen(address).unwrap();
        assert_eq!(second.local_addr(), address);
        let served = Rc::new(Cell::new(0));
        let serving: Vec<_> = [first, second]
            .into_iter()
            .map(|listener| {
                let served = served.clone();
                rt.spawn(Class::Foreground, async move {
                    loop {
                        listener.accept().await.unwrap();
                        served.set(served.get() + 1);
                    }
                })
            })
            .collect();
        for _ in 0..10 {
            rt.connect(address).await.unwrap();
        }
        while served.get() < 10 {
            rt.sleep(Duration::from_millis(1)).await;
        }
        drop(serving);
    });
}
