//! Memory for requests: nobody waits for ever, whatever the order in which frames arrive.

use std::{cell::Cell, rc::Rc, time::Duration};

use forebay_engine::rt::{
    Class,
    sim::{self, Disk},
};

use super::memory::{Memory, REQUEST_UNITS_MIN};

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
