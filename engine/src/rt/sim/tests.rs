//! What only the simulator has: one order of events per seed, and power failures.

use std::{collections::BTreeSet, path::Path, time::Duration};

use bytes::{Bytes, BytesMut};

use super::{Disk, Faults, Sim, Trace, run};
use crate::rt::{Class, File, Instant, OpenMode, Rt, buf::ALIGNMENT, durable, sim};

const BLOCK: u64 = ALIGNMENT as u64;
const SEEDS: u64 = 200;

fn sim_of(rt: &Rt) -> &Sim {
    match rt {
        Rt::Sim(sim) => sim,
        Rt::Uring(_) => panic!("these tests run in the simulator"),
    }
}

async fn write(rt: &Rt, file: &File, position: u64, fill: u8) {
    let mut buf = rt.alloc(ALIGNMENT);
    buf.bytes_mut().fill(fill);
    file.write_at(buf, position).await.unwrap();
}

async fn create(rt: &Rt, path: &Path) -> File {
    let file = rt.open(path, OpenMode::Create).await.unwrap();
    rt.sync_dir(Path::new("/")).await.unwrap();
    file
}

fn content_of(disk: Disk, path: &'static str) -> Option<Vec<u8>> {
    let read = |rt: Rt| async move { rt.read_small(Path::new(path), 1 << 20).await.ok() };
    run(0, disk, read).0
}

/// Tasks, timers, disk and network all at once.
async fn busy(rt: Rt) -> (Trace, Instant) {
    let listener = rt.listen("10.0.0.1:9092".parse().unwrap()).unwrap();
    let server_rt = rt.clone();
    let server = rt.spawn(Class::Foreground, async move {
        let (mut read, _write) = listener.accept().await.unwrap().split();
        let file = create(&server_rt, Path::new("/log")).await;
        let mut buf = BytesMut::with_capacity(100);
        while read.read_into(&mut buf).await.unwrap() > 0 {
            write(&server_rt, &file, 0, buf[0]).await;
            buf.clear();
        }
    });
    let client = rt.connect("10.0.0.1:9092".parse().unwrap()).await.unwrap();
    let (_read, mut send) = client.split();
    for number in 0..10 {
        let pause = rt.random_u64() % 1000;
        rt.sleep(Duration::from_micros(pause)).await;
        send.write_all(&[Bytes::from(vec![number; 30])])
            .await
            .unwrap();
    }
    drop(send);
    server.await;
    (sim_of(&rt).trace(), rt.now())
}

#[test]
fn one_seed_is_one_order_of_events() {
    let mut hashes = BTreeSet::new();
    for seed in 0..20 {
        let (first, _) = run(seed, Disk::default(), busy);
        let (second, _) = run(seed, Disk::default(), busy);
        assert!(first.0.count() > 50);
        assert_eq!(first, second, "seed {seed}");
        hashes.insert(first.0.hash());
    }
    assert_eq!(hashes.len(), 20, "other seeds take other ways");
}

#[test]
fn time_is_virtual() {
    let before = std::time::Instant::now();
    let day = Duration::from_secs(86_400);
    let (slept, _) = run(1, Disk::default(), |rt| async move {
        let start = rt.now();
        rt.sleep(day).await;
        rt.now().since(start)
    });
    assert!(slept >= day && slept < day + Duration::from_millis(1));
    assert!(before.elapsed() < Duration::from_secs(60));
}

#[test]
#[should_panic(expected = "stuck")]
fn waiting_for_nothing_is_found() {
    run(1, Disk::default(), |_| std::future::pending::<()>());
}

#[test]
fn unlinked_writes_complete_in_any_order() {
    let mut orders = BTreeSet::new();
    for seed in 0..50 {
        let (order, _) = run(seed, Disk::default(), |rt| async move {
            let file = create(&rt, Path::new("/file")).await;
            let order = std::cell::RefCell::new(Vec::new());
            let one = |number: u8| {
                let (rt, file, order) = (&rt, &file, &order);
                async move {
                    write(rt, file, u64::from(number) * BLOCK, number).await;
                    order.borrow_mut().push(number);
                }
            };
            futures_lite::future::zip(one(0), one(1)).await;
            order.into_inner()
        });
        orders.insert(order);
    }
    assert_eq!(orders.len(), 2);
}

/// Runs `main` and then crashes its disk under many seeds; returns what was found at `/file` after each.
fn crashes<Running: Future<Output = ()> + 'static>(
    main: impl Fn(Rt) -> Running,
) -> BTreeSet<Option<Vec<u8>>> {
    let (_, disk) = run(7, Disk::default(), main);
    (0..SEEDS)
        .map(|seed| content_of(disk.crash(seed), "/file"))
        .collect()
}

#[test]
fn a_killed_process_loses_no_write() {
    let (_, disk) = run(1, Disk::default(), |rt| async move {
        let file = rt.open(Path::new("/file"), OpenMode::Create).await.unwrap();
        write(&rt, &file, 0, 7).await;
    });
    assert_eq!(content_of(disk, "/file"), Some(vec![7; ALIGNMENT]));
}

#[test]
fn a_synced_file_with_a_synced_name_survives() {
    let found = crashes(|rt| async move {
        let file = create(&rt, Path::new("/file")).await;
        write(&rt, &file, 0, 7).await;
        file.sync().await.unwrap();
    });
    assert_eq!(found, BTreeSet::from([Some(vec![7; ALIGNMENT])]));
}

#[test]
fn a_synced_file_without_a_synced_name_may_be_gone() {
    let found = crashes(|rt| async move {
        let file = rt.open(Path::new("/file"), OpenMode::Create).await.unwrap();
        write(&rt, &file, 0, 7).await;
        file.sync().await.unwrap();
    });
    assert_eq!(found, BTreeSet::from([None, Some(vec![7; ALIGNMENT])]));
}

#[test]
fn an_unsynced_write_survives_in_any_part() {
    let found = crashes(|rt| async move {
        let file = create(&rt, Path::new("/file")).await;
        write(&rt, &file, 0, 7).await;
    });
    assert!(found.len() > 50, "only {} outcomes", found.len());
    for content in found {
        let content = content.expect("its name was synced");
        assert!(content.len().is_multiple_of(512));
        let mut sectors = content.chunks(512);
        assert!(sectors.all(|sector| sector == [7; 512] || sector == [0; 512]));
    }
}

#[test]
fn a_write_in_flight_survives_in_any_part() {
    let mut lengths = BTreeSet::new();
    for seed in 0..SEEDS {
        let (crashed, _) = run(seed, Disk::default(), |rt| async move {
            let file = create(&rt, Path::new("/file")).await;
            let inner = rt.clone();
            let _writing = rt.spawn(Class::Foreground, async move {
                write(&inner, &file, 0, 7).await;
            });
            rt.sleep(Duration::from_micros(10)).await;
            sim_of(&rt).crash()
        });
        lengths.insert(
            content_of(crashed, "/file")
                .expect("its name was synced")
                .len(),
        );
    }
    assert!(lengths.contains(&0) && lengths.contains(&ALIGNMENT) && lengths.len() > 4);
}

#[test]
fn a_durable_write_survives_and_earlier_ones_cannot_undo_it() {
    let found = crashes(|rt| async move {
        let file = create(&rt, Path::new("/file")).await;
        write(&rt, &file, 0, 1).await;
        let durable = rt
            .open(Path::new("/file"), OpenMode::ReadWriteDurable)
            .await
            .unwrap();
        write(&rt, &durable, 0, 2).await;
    });
    assert_eq!(found, BTreeSet::from([Some(vec![2; ALIGNMENT])]));
}

#[test]
fn a_sync_covers_only_what_was_complete_when_it_began() {
    let mut kept = BTreeSet::new();
    for seed in 0..SEEDS {
        let (_, disk) = run(seed, Disk::default(), |rt| async move {
            let file = create(&rt, Path::new("/file")).await;
            write(&rt, &file, 0, 1).await;
            let sync = async { file.sync().await.unwrap() };
            futures_lite::future::zip(sync, write(&rt, &file, BLOCK, 2)).await;
        });
        let content = content_of(disk.crash(seed), "/file").expect("its name was synced");
        assert_eq!(content[..ALIGNMENT], [1; ALIGNMENT], "seed {seed}");
        kept.insert(content.len() == 2 * ALIGNMENT);
    }
    assert_eq!(kept.len(), 2);
}

#[test]
fn a_replaced_file_is_old_or_new_at_every_moment() {
    let path = Path::new("/file");
    let mut found = BTreeSet::new();
    for seed in 0..SEEDS {
        let (crashed, _) = run(seed, Disk::default(), |rt| async move {
            durable::replace_file(&rt, path, &[1; 5000]).await.unwrap();
            let inner = rt.clone();
            let _replacing = rt.spawn(Class::Foreground, async move {
                durable::replace_file(&inner, path, &[2; 6000])
                    .await
                    .unwrap();
            });
            let moment = rt.random_u64() % 4_000_000;
            rt.sleep(Duration::from_nanos(moment)).await;
            sim_of(&rt).crash()
        });
        found.insert(content_of(crashed, "/file"));
    }
    let (old, new) = (Some(vec![1; 5000]), Some(vec![2; 6000]));
    assert_eq!(found, BTreeSet::from([old, new]));
}

#[test]
fn after_a_failed_sync_the_next_one_lies() {
    let mut lost = 0;
    for seed in 0..SEEDS {
        let (_, disk) = run(seed, Disk::default(), |rt| async move {
            let file = create(&rt, Path::new("/file")).await;
            write(&rt, &file, 0, 7).await;
            let all_syncs_fail = Faults {
                sync_error: 1.0,
                ..Faults::default()
            };
            sim_of(&rt).set_faults(all_syncs_fail);
            let error = file.sync().await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO));
            sim_of(&rt).set_faults(Faults::default());
            file.sync().await.unwrap();
            let read = file.read_at(0, ALIGNMENT).await.unwrap();
            assert_eq!(read, vec![7; ALIGNMENT]);
        });
        lost += usize::from(content_of(disk.crash(seed), "/file") == Some(Vec::new()));
    }
    assert!(lost > 0 && lost < SEEDS as usize, "lost {lost} of {SEEDS}");
}

#[test]
fn faults_come_as_often_as_asked_for() {
    let (failed, _) = run(3, Disk::default(), |rt| async move {
        let file = create(&rt, Path::new("/file")).await;
        sim_of(&rt).set_faults(Faults {
            read_error: 0.25,
            write_error: 0.5,
            ..Faults::default()
        });
        let (mut reads, mut writes) = (0, 0);
        for _ in 0..400 {
            reads += u32::from(file.read_at(0, 1).await.is_err());
            writes += u32::from(file.write_at(rt.alloc(1), 0).await.is_err());
        }
        (reads, writes)
    });
    assert!((60..140).contains(&failed.0), "{failed:?}");
    assert!((160..240).contains(&failed.1), "{failed:?}");
}

#[test]
fn a_removed_directory_may_come_back_in_part() {
    let mut found = BTreeSet::new();
    let (_, disk) = sim::run(1, Disk::default(), |rt| async move {
        rt.create_dir_all(Path::new("/dir")).await.unwrap();
        for name in ["a", "b"] {
            let path = Path::new("/dir").join(name);
            rt.open(&path, OpenMode::Create).await.unwrap();
        }
        rt.sync_dir(Path::new("/dir")).await.unwrap();
        rt.sync_dir(Path::new("/")).await.unwrap();
        rt.remove_dir_all(Path::new("/dir")).await.unwrap();
    });
    for seed in 0..SEEDS {
        let list = |rt: Rt| async move { rt.list_dir(Path::new("/dir")).await.ok() };
        let (entries, _) = run(0, disk.crash(seed), list);
        found.insert(entries.map(|entries| entries.len()));
    }
    assert_eq!(found, BTreeSet::from([None, Some(0), Some(1), Some(2)]));
}

#[test]
fn a_full_disk_refuses_what_makes_a_file_longer() {
    run(3, Disk::empty(64 << 10), |rt| async move {
        let sim = sim_of(&rt);
        let file = rt
            .open(Path::new("/f"), OpenMode::Create)
            .await
            .expect("create");
        file.write_at(rt.alloc(60 << 10), 0).await.expect("fits");
        let full = file.write_at(rt.alloc(8 << 10), 60 << 10).await;
        assert_eq!(full.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        file.write_at(rt.alloc(4096), 0)
            .await
            .expect("takes no more space");
        sim.set_capacity(32 << 10);
        let space = rt.disk_space(Path::new("/")).await.expect("space");
        assert_eq!(space.available_bytes, 0);
        sim.set_capacity(128 << 10);
        file.write_at(rt.alloc(8 << 10), 60 << 10)
            .await
            .expect("there is room again");
    });
}

/// What a file of one block written with `fill` holds afterwards, and what the disk admits to have falsified.
fn falsified(faults: Faults, seed: u64) -> (Vec<u8>, Vec<super::Damage>) {
    let ((read, damage), _) = run(seed, Disk::default(), move |rt| async move {
        let other = rt
            .open(Path::new("/other"), OpenMode::Create)
            .await
            .unwrap();
        write(&rt, &other, 0, 1).await;
        let file = create(&rt, Path::new("/file")).await;
        write(&rt, &file, 0, 2).await;
        sim_of(&rt).set_faults(faults);
        write(&rt, &file, 0, 3).await;
        let read = file.read_at(0, ALIGNMENT).await.unwrap();
        (read.to_vec(), sim_of(&rt).damage())
    });
    (read, damage)
}

#[test]
fn a_lost_write_leaves_what_was_there() {
    let lost = Faults {
        lost_write: 1.0,
        ..Faults::default()
    };
    let (read, damage) = falsified(lost, 1);
    assert_eq!(read, vec![2; ALIGNMENT]);
    assert_eq!(damage.len(), 1);
    assert_eq!(damage[0].path, Path::new("/file"));
}

#[test]
fn a_misdirected_write_lands_elsewhere() {
    let misdirected = Faults {
        misdirected_write: 1.0,
        ..Faults::default()
    };
    let mut landed = BTreeSet::new();
    for seed in 0..20 {
        let (read, damage) = falsified(misdirected, seed);
        assert_eq!(
            damage.len(),
            2,
            "where it was meant to go, and where it went"
        );
        let elsewhere = damage[1].path == Path::new("/other");
        assert_eq!(read, vec![if elsewhere { 2 } else { 3 }; ALIGNMENT]);
        landed.insert(elsewhere);
    }
    assert_eq!(landed.len(), 2);
}

#[test]
fn bits_flip_for_once_or_for_good() {
    for (flip_in_read, rot) in [(1.0, 0.0), (0.0, 1.0)] {
        let (differing, damage) = run(5, Disk::default(), move |rt| async move {
            let file = create(&rt, Path::new("/file")).await;
            write(&rt, &file, 0, 7).await;
            sim_of(&rt).set_faults(Faults {
                flip_in_read,
                rot,
                ..Faults::default()
            });
            let flipped = file.read_at(0, ALIGNMENT).await.unwrap();
            sim_of(&rt).set_faults(Faults::default());
            let later = file.read_at(0, ALIGNMENT).await.unwrap();
            let bits =
                |bytes: &[u8]| -> u32 { bytes.iter().map(|byte| (byte ^ 7).count_ones()).sum() };
            ((bits(&flipped), bits(&later)), sim_of(&rt).damage().len())
        })
        .0;
        let expected = if rot > 0.0 { ((1, 1), 1) } else { ((1, 0), 0) };
        assert_eq!((differing, damage), expected);
    }
    let (_, disk) = run(1, Disk::default(), |rt| async move {
        let file = create(&rt, Path::new("/file")).await;
        write(&rt, &file, 0, 7).await;
        file.sync().await.unwrap();
    });
    let damage = disk.rot("file", 3).expect("a file with content");
    let content = content_of(disk.crash(0), "/file").expect("synced");
    assert_ne!(content[damage.position as usize], 7);
    assert!(content_of(Disk::default(), "/file").is_none());
}

#[test]
fn a_full_disk_refuses_what_grows() {
    let disk = Disk::empty(2 * BLOCK);
    run(1, disk, |rt| async move {
        let file = create(&rt, Path::new("/file")).await;
        write(&rt, &file, 0, 1).await;
        write(&rt, &file, BLOCK, 1).await;
        let refused = file.write_at(rt.alloc(ALIGNMENT), 2 * BLOCK).await;
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        write(&rt, &file, 0, 2).await;
        file.truncate(BLOCK).await.unwrap();
        write(&rt, &file, BLOCK, 3).await;
        assert_eq!(
            rt.disk_space(Path::new("/")).await.unwrap().available_bytes,
            0
        );
    });
}

#[test]
fn a_stalled_disk_answers_nothing_for_seconds() {
    let (took, _) = run(1, Disk::default(), |rt| async move {
        let file = create(&rt, Path::new("/file")).await;
        sim_of(&rt).set_faults(Faults {
            stall: 1.0,
            ..Faults::default()
        });
        let begun = rt.now();
        write(&rt, &file, 0, 1).await;
        rt.now().since(begun)
    });
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_secs(6),
        "{took:?}"
    );
}

#[test]
fn open_files_are_counted() {
    run(1, Disk::default(), |rt| async move {
        let file = create(&rt, Path::new("/file")).await;
        assert_eq!(sim_of(&rt).files_open(), 1);
        drop(file);
        assert_eq!(sim_of(&rt).files_open(), 0);
    });
}
