//! Memory for requests, and time for frames: nobody waits for ever, whatever the order in which frames arrive.

use std::{cell::Cell, rc::Rc, time::Duration};

use forebay_engine::rt::{
    Class,
    sim::{self, Disk},
};

use super::{
    connection::Connection,
    frame::FrameReader,
    memory::{Memory, REQUEST_UNITS_MIN},
};

#[test]
fn who_stops_within_a_frame_overstays_earlier_than_who_is_idle() {
    let idle_max = Duration::from_secs(600);
    let check = |frame_bytes: usize, sent: Vec<u8>, overstays: bool| {
        sim::run(1, Disk::default(), |rt| async move {
            let listener = rt.listen("127.0.0.1:0".parse().unwrap()).unwrap();
            let client = rt.connect(listener.local_addr()).await.unwrap();
            let (_half, mut write) = client.split();
            let stream = listener.accept().await.unwrap();
            let connection = Rc::new(Connection::new(rt.clone(), stream.peer_addr()));
            let (read, _write) = stream.split();
            let reading = {
                let connection = connection.clone();
                rt.spawn(Class::Foreground, async move {
                    let memory = Memory::new(1 << 30);
                    let mut frames = FrameReader::new(read, 1 << 20);
                    frames.next(&connection, &memory).await.map(drop)
                })
            };
            let mut bytes = (frame_bytes as u32).to_be_bytes().to_vec();
            bytes.extend(sent);
            write.write_all(&[bytes.into()]).await.unwrap();
            rt.sleep(Duration::from_secs(20)).await;
            assert!(!connection.overstayed(rt.now(), idle_max));
            rt.sleep(Duration::from_secs(20)).await;
            assert_eq!(connection.overstayed(rt.now(), idle_max), overstays);
            drop(reading);
        });
    };
    check(100_000, vec![0; 10], true);
    check(100_000, vec![0; 50_000], true);
    check(10, vec![0; 10], false);
}

#[test]
fn half_read_requests_that_want_more_than_there_is_all_finish() {
    for seed in 0..50 {
        let (peak, _) = sim::run(seed, Disk::default(), |rt| async move {
            let memory = Rc::new(Memory::new(10_000));
            let peak = Rc::new(Cell::new(0));
            let now = Rc::new(Cell::new(0));
            let requests: Vec<_> = (0..20)
                .map(|_| {
                    let (memory, peak, now) = (memory.clone(), peak.clone(), now.clone());
                    let here = rt.clone();
                    rt.spawn(Class::Foreground, async move {
                        // Each takes 8000 in steps; any two of them have more than half.
                        let mut held = memory.begin(2000).await;
                        now.set(now.get() + 2000);
                        for bytes in [4000, 6000, 8000] {
                            here.sleep(Duration::from_millis(here.random_u64() % 5))
                                .await;
                            memory.extend(&mut held, bytes).await;
                            now.set(now.get() + 2000);
                            peak.set(now.get().max(peak.get()));
                        }
                        assert_eq!(held.bytes(), 8000);
                        now.set(now.get() - 8000);
                    })
                })
                .collect();
            for request in requests {
                let done = rt.timeout(Duration::from_secs(60), request).await;
                assert!(done.is_some(), "a deadlock with seed {seed}");
            }
            assert_eq!(memory.in_use(), 0, "all given back, seed {seed}");
            peak.get()
        });
        assert!(
            peak <= 10_000 + 8000,
            "the budget and one request, not {peak}; seed {seed}"
        );
    }
}

#[test]
fn the_smallest_request_counts() {
    sim::run(1, Disk::default(), |rt| async move {
        let memory = Memory::new(3 * REQUEST_UNITS_MIN);
        let first = memory.begin(0).await;
        let _second = memory.begin(1).await;
        let _third = memory.begin(REQUEST_UNITS_MIN).await;
        let fourth = rt.timeout(Duration::from_secs(1), memory.begin(0));
        assert!(fourth.await.is_none(), "the number of requests is bounded");
        drop(first);
        let fourth = rt.timeout(Duration::from_secs(1), memory.begin(0));
        assert!(fourth.await.is_some());
    });
}
