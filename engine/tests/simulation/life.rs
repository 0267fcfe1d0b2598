//! One life of an engine on what the last one left, and the run of a seed: life after life.

use std::{cell::RefCell, path::Path, rc::Rc, time::Duration};

use forebay_engine::{
    Engine, EngineConfig, Fault, Log, OpenError, ReadError,
    log::ReadLimit,
    rt::{
        Class, Rt,
        sim::{self, Damage, Disk, Faults},
    },
};

use crate::{
    actions::{Hands, World},
    audit,
    model::{Held, Trust},
    plan::{self, Bent, DATA_DIR, End, LOGS, Trouble},
    testing::Rng,
};

/// Much longer than anything takes on a disk that works, in virtual time.
const HANGS_AFTER: Duration = Duration::from_secs(600);

/// What a run amounted to; equal for equal seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    pub lives: u64,
    pub events: u64,
    pub hash: u64,
}

/// How a life ended.
struct Ended {
    /// The disk after a power failure.
    crashed: Option<Disk>,
    closed: bool,
    damage: Vec<Damage>,
    events: u64,
    hash: u64,
}

pub fn run_seed(seed: u64) -> Run {
    let world = Rc::new(RefCell::new(World::new(seed)));
    let mut rng = Rng::new(seed ^ 0x5eed);
    let bent = Bent::of(seed);
    let lives = plan::lives(&mut rng, bent);
    let mut run = Run::default();
    let mut disk = Disk::default();
    let mut damage = None;
    for life in lives {
        let life_seed = rng.next();
        let engine = plan::engine_config(&mut rng, bent);
        if life.trouble == Trouble::Full {
            let room = rng.below(300_000) as u64;
            let used = disk.used_bytes();
            disk = disk.with_capacity(used + room);
        }
        say!("life {}: {life:?}", run.lives);
        world.borrow_mut().life = life;
        let (ended, left) = one_life(life_seed, disk, world.clone(), engine);
        run.lives += 1;
        run.events += ended.events;
        run.hash = run.hash.rotate_left(1) ^ ended.hash;
        disk = ended.crashed.unwrap_or(left).with_capacity(1 << 40);
        if world.borrow().life.trouble == Trouble::Lies {
            damage = Some(ended.damage);
        } else if ended.closed {
            disk = audit::check(&world, disk);
        }
    }
    verify(&world, disk, damage.as_deref());
    run
}

fn one_life(
    seed: u64,
    disk: Disk,
    world: Rc<RefCell<World>>,
    engine: EngineConfig,
) -> (Ended, Disk) {
    sim::run(seed, disk, move |rt| async move {
        let Rt::Sim(sim) = &rt else {
            panic!("this runs in the simulator");
        };
        let sim = sim.clone();
        prepare(&rt).await;
        let life = world.borrow().life.clone();
        let closed = match life.end {
            End::Close => {
                let closed = rt
                    .timeout(
                        HANGS_AFTER,
                        Box::pin(live(rt.clone(), world.clone(), engine)),
                    )
                    .await;
                assert!(
                    closed.is_some() || life.trouble.excuses_faults(),
                    "the engine does not come to its end"
                );
                closed.unwrap_or(false)
            }
            End::PowerFailure | End::Kill => {
                rt.timeout(
                    life.duration,
                    Box::pin(live(rt.clone(), world.clone(), engine)),
                )
                .await;
                false
            }
        };
        let mut world = world.borrow_mut();
        world.observe_all();
        let trace = sim.trace();
        let ended = Ended {
            crashed: (life.end != End::Kill).then(|| sim.crash()),
            closed,
            damage: sim.damage(),
            events: trace.count(),
            hash: trace.hash(),
        };
        world.handles = vec![None; LOGS];
        ended
    })
}

pub async fn prepare(rt: &Rt) {
    if let (Rt::Sim(sim), true) = (rt, std::env::var_os("FOREBAY_SAY").is_some()) {
        sim.tell_operations();
    }
    rt.create_dir_all(Path::new(DATA_DIR))
        .await
        .expect("create the data directory");
    rt.sync_dir(Path::new("/")).await.expect("sync");
}

/// Opens, works, and closes if that is how this life ends; `true` if it was closed in order.
async fn live(rt: Rt, world: Rc<RefCell<World>>, config: EngineConfig) -> bool {
    let Rt::Sim(sim) = &rt else {
        panic!("this runs in the simulator");
    };
    let life = world.borrow().life.clone();
    sim.set_faults(life.faults_opening);
    let engine = match open(&rt, &world, config, &[Trust::Full; LOGS]).await {
        Ok(engine) => engine,
        Err(error) => {
            assert!(life.trouble.excuses_faults(), "open: {error}");
            world.borrow_mut().handles = vec![None; LOGS];
            return false;
        }
    };
    sim.set_faults(life.faults);
    if world.borrow_mut().rng.chance(30) {
        let bytes_per_sec = [1 << 18, 1 << 22, 1 << 26][world.borrow_mut().rng.below(3)];
        engine.start_scrub(bytes_per_sec);
    }
    let hands = Hands {
        rt: rt.clone(),
        engine: engine.clone(),
        world: world.clone(),
    };
    let progress = {
        let engine = engine.clone();
        rt.spawn(Class::Foreground, async move {
            loop {
                engine.progress().await;
            }
        })
    };
    let actors: Vec<_> = (0..life.actors)
        .map(|_| rt.spawn(Class::Foreground, hands.clone().act()))
        .collect();
    for actor in actors {
        actor.await;
    }
    if world.borrow().bent == Bent::ShortLives {
        hands.flip_all();
        let micros = world.borrow_mut().rng.below(1500);
        rt.sleep(Duration::from_micros(micros as u64)).await;
        return false;
    }
    drop(hands);
    if life.end != End::Close {
        // Until the power goes.
        return std::future::pending().await;
    }
    if life.trouble == Trouble::Nothing && world.borrow_mut().rng.chance(15) {
        delete_all(&rt, &engine, &world).await;
    }
    if !life.trouble.excuses_faults() && world.borrow_mut().rng.chance(20) {
        // It stalls just now.
        sim.set_faults(Faults {
            stall: 0.03,
            spike: 0.2,
            ..Faults::default()
        });
    }
    let closed = engine.close().await;
    {
        let mut world = world.borrow_mut();
        let world = &mut *world;
        world.observe_all();
        if let Err(fault) = closed {
            assert!(life.trouble.excuses_faults(), "close: {fault}");
            return false;
        }
        if life.trouble != Trouble::Lies {
            let stats = engine.stats();
            assert_eq!(stats.corrupt_batches, 0, "on a disk that did not lie");
            // An error that the scrub met counts too.
            let unread = life.trouble.excuses_faults() || stats.scrub_errors == 0;
            assert!(unread, "a wrong index on a disk that did not lie");
        }
        for (model, handle) in world.models.iter_mut().zip(&world.handles) {
            if handle.is_some() {
                model.closed();
            }
        }
        world.handles = vec![None; LOGS];
    }
    drop((engine, progress));
    // Whatever is still under way holds files.
    sim.set_faults(Faults::default());
    rt.sleep(Duration::from_secs(20)).await;
    assert_eq!(sim.files_open(), 0, "files are still open");
    true
}

/// Afterwards the engine must hold nothing.
async fn delete_all(rt: &Rt, engine: &Engine, world: &Rc<RefCell<World>>) {
    for at in 0..LOGS {
        let id = world.borrow().models[at].id;
        let name = world.borrow().models[at].name.clone();
        world.borrow_mut().models[at].deleting = true;
        world.borrow_mut().handles[at] = None;
        engine.delete_log(id, &name).await.expect("delete");
        world.borrow_mut().replace(at);
    }
    // A checkpoint or a retention check under way may still hold one.
    rt.sleep(Duration::from_secs(1)).await;
    let stats = engine.stats();
    assert_eq!(stats.logs, 0);
    assert_eq!(stats.tail_bytes, 0, "memory of deleted logs");
    assert_eq!(stats.tail_unflushed_bytes, 0, "memory of deleted logs");
    assert_eq!(stats.readahead_bytes, 0, "memory of deleted logs");
}

/// Opens everything as a broker does, and checks what is there.
async fn open(
    rt: &Rt,
    world: &Rc<RefCell<World>>,
    config: EngineConfig,
    trust: &[Trust; LOGS],
) -> Result<Engine, OpenError> {
    let engine = Engine::open(rt.clone(), config).await?;
    let mut logs = Vec::new();
    for at in 0..LOGS {
        let (id, name, config) = {
            let world = world.borrow();
            let model = &world.models[at];
            (model.id, model.name.clone(), model.config.clone())
        };
        let opened = match rests(at) {
            false => engine.open_log(id, name, config).await,
            true => engine.open_log_when_used(id, name, config).await,
        };
        match opened {
            Ok(log) => logs.push(log),
            // The directory may be another incarnation's only if the disk lied.
            Err(error) => return Err(error),
        }
    }
    engine.sync_recovered().await?;
    engine.start_journal().await?;
    for (at, log) in logs.iter().enumerate() {
        let found = read_all(rt, world, at, log, trust[at]).await?;
        let mut world = world.borrow_mut();
        let Some(found) = found else {
            continue;
        };
        world.models[at].accept(log, &found, trust[at]);
        world.models[at].resume_producers();
        world.handles[at] = Some(log.clone());
    }
    world.borrow_mut().epoch += 1;
    // What the operator had asked for before the crash is done now.
    for at in 0..LOGS {
        finish_deletion(&engine, world, at).await?;
    }
    Ok(engine)
}

async fn finish_deletion(
    engine: &Engine,
    world: &Rc<RefCell<World>>,
    at: usize,
) -> Result<(), OpenError> {
    let (id, name) = {
        let mut world = world.borrow_mut();
        if !world.models[at].deleting {
            return Ok(());
        }
        world.handles[at] = None;
        (world.models[at].id, world.models[at].name.clone())
    };
    engine.delete_log(id, &name).await?;
    let (id, name, config) = {
        let mut world = world.borrow_mut();
        world.replace(at);
        let model = &world.models[at];
        (model.id, model.name.clone(), model.config.clone())
    };
    let log = engine.open_log(id, name, config).await?;
    let mut world = world.borrow_mut();
    world.models[at].accept(&log, &[], Trust::Full);
    world.handles[at] = Some(log);
    Ok(())
}

/// All that is in the log. Where the disk lied some of it may be unreadable, and then there is nothing to accept; but what can be
/// read is right.
async fn read_all(
    rt: &Rt,
    world: &Rc<RefCell<World>>,
    at: usize,
    log: &Log,
    trust: Trust,
) -> Result<Option<Vec<Held>>, Fault> {
    let mut marks = log.marks();
    let mut found = Vec::new();
    let mut whole = true;
    let mut from = marks.log_start;
    while from < marks.log_end {
        let limit = ReadLimit {
            below: marks.log_end,
            bytes_max: 50_000,
            at_least_one: true,
        };
        match log.read(from, limit).await {
            // Where the disk lost segments that it had confirmed, the log goes on behind them.
            Ok(fetched) if fetched.next.is_none() && trust == Trust::None => return Ok(None),
            Ok(fetched) => {
                assert!(
                    fetched.next.is_some_and(|next| next > from),
                    "{}: nothing at {from}",
                    log.name()
                );
                if trust == Trust::None {
                    world.borrow().models[at].check_slices(&fetched, 0);
                }
                found.extend(fetched.slices.into_iter().map(Held::new));
                from = fetched.next.expect("checked above");
            }
            Err(ReadError::Fault(fault) | ReadError::Corrupt(fault)) if trust == Trust::Full => {
                return Err(fault);
            }
            Err(ReadError::Corrupt(_)) => {
                whole = false;
                from = world.borrow().models[at]
                    .batch_of(from.get())
                    .map_or(from.plus(1), |held| held.header.next_offset());
            }
            // One at rest whose directory the disk has falsified does not wake up.
            Err(ReadError::Fault(_)) if trust == Trust::None => return Ok(None),
            // Retention has begun.
            Err(ReadError::OutOfRange { log_start, .. }) if log_start > marks.log_start => {
                marks.log_start = log_start;
                from = log_start;
                found.clear();
                whole = true;
            }
            Err(error) => panic!("{}: {error}", log.name()),
        }
        rt.yield_now().await;
    }
    Ok(whole.then_some(found))
}

/// The last life: only opens and looks. What was promised is there as far as the disk was honest, and all that is there is right.
fn verify(world: &Rc<RefCell<World>>, disk: Disk, damage: Option<&[Damage]>) {
    let lied = damage.is_some();
    let damage = damage.unwrap_or_default();
    let falsified = !damage.is_empty();
    let damaged = |part: &str| {
        damage
            .iter()
            .any(|damage| damage.path.to_string_lossy().contains(part))
    };
    let everything = damaged("/journal/") || damaged("/checkpoint/") || damaged("-delete/");
    let trust: [Trust; LOGS] = std::array::from_fn(|at| {
        let dir = format!("{DATA_DIR}/{}/", world.borrow().models[at].name);
        match everything || damaged(&dir) {
            true => Trust::None,
            false => Trust::Full,
        }
    });
    let world = world.clone();
    let bent = world.borrow().bent;
    let config = plan::engine_config(&mut world.borrow_mut().rng, bent);
    world.borrow_mut().life.trouble = match lied {
        true => Trouble::Lies,
        false => Trouble::Nothing,
    };
    sim::run(0, disk, move |rt| async move {
        prepare(&rt).await;
        let opened = open(&rt, &world, config, &trust).await;
        world.borrow_mut().handles = vec![None; LOGS];
        if let Err(error) = opened {
            // Reads that were wrong have left nothing wrong.
            assert!(falsified, "open: {error}");
        }
    });
}

/// Half of the logs rest while they are not used.
pub fn rests(at: usize) -> bool {
    at % 2 == 1
}
