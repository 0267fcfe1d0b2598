//! Starts shards, joins them, stops them; says what it did.
//!
//! Shard 0 conducts: it replays the metadata, has all shards open their logs, makes what recovery kept durable, starts the journals,
//! registers this broker, and only then lets anyone in. Each step is finished on all shards before the next begins on any. Stopping
//! goes the other way round.

mod command;
pub mod directory;
mod failure;
mod report;
mod strays;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use forebay_engine::{
    Engine, LeaderEpoch, ShardId, TopicId,
    rt::{
        Class, Rt,
        uring::{self, ShardHandle, ShardOptions},
    },
};
use futures_util::future::{Either, join_all, select};

use crate::{
    config::Config,
    meta::{self, Controller, controller},
    net,
    shard::{
        Shard,
        mesh::{self, Between, MeshSeeds},
        msg::Step,
    },
};
use directory::DataDir;

pub use command::start;
pub use failure::{EXIT_ON_SECOND_SIGNAL, StartFailure};
pub use report::Report;

/// How often a shard looks whether it shall stop.
const STOP_POLL: Duration = Duration::from_millis(50);
/// How long a killed broker's listener may outlive it.
const KILLED_LISTENER_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a listener on this host may take to accept.
const TAKEN_PROBE_TIME_MAX: Duration = Duration::from_secs(1);

/// A running broker.
pub struct Broker {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Of `/metrics` and the like, unless that is off.
    pub http_address: Option<SocketAddr>,
    pub report: Report,
    stop: Arc<AtomicBool>,
    shards: Vec<ShardHandle<Result<(), StartFailure>>>,
}

impl Broker {
    /// Checks the host, opens the data directory, starts all shards; returns when clients may connect. The broker stops when the
    /// flag is set.
    pub fn start(config: Config, stop: Arc<AtomicBool>) -> Result<Broker, StartFailure> {
        let began = Instant::now();
        let data_dir = DataDir::open(&config.data_dir, config.node_id)?;
        let cores = uring::usable_cores().map_err(StartFailure::Executors)?;
        let shards = config
            .shards
            .unwrap_or_else(|| u16::try_from(cores.len()).unwrap_or(u16::MAX));
        check_host(&data_dir, shards)?;
        let address = resolve(&config)?;
        let killed = !data_dir.is_new && data_dir.clean_epoch.is_none();
        let free = match killed {
            true => outlast_killed(address),
            false => refuse_taken(address),
        };
        free.map_err(|error| StartFailure::Listen {
            address: address.to_string(),
            error,
        })?;
        data_dir
            .consume_marker()
            .map_err(|error| StartFailure::DataDir {
                path: data_dir.path.clone(),
                error,
            })?;
        let options = ShardOptions {
            cores,
            ..ShardOptions::unpinned(shards)
        };
        let mut report = Report::new(&config, &data_dir, &options, began);

        let mut config = config;
        config.data_dir.clone_from(&data_dir.path);
        let (tell, told) = mpsc::channel();
        let mut seeds = mesh::seeds(shards, Between::Threads).into_iter();
        let abandoned = Arc::new(AtomicBool::new(false));
        let mut conductor = Some(Conductor {
            data_dir,
            address,
            stop: stop.clone(),
            tell: tell.clone(),
        });
        let shards = uring::run_shards(&options, |_| {
            let seeds = seeds.next().expect("there are seeds for every shard");
            let config = config.clone();
            let conductor = conductor.take();
            let tell = tell.clone();
            let abandoned = abandoned.clone();
            move |rt, id| run_shard(rt, id, seeds, config, conductor, tell, abandoned)
        })
        .map_err(StartFailure::Executors)?;
        drop(tell);
        match told.recv() {
            Ok(Ok(ready)) => {
                report.ready(&ready);
                Ok(Broker {
                    address: ready.address,
                    http_address: ready.http,
                    report,
                    stop,
                    shards,
                })
            }
            Ok(Err(failure)) => {
                // No thread, and no listener, outlives the attempt. What they ended with follows from this failure.
                for shard in shards {
                    let _ = shard.join();
                }
                Err(failure)
            }
            Err(_) => {
                let ended = shards.into_iter().find_map(|shard| shard.join().err());
                let error = ended.unwrap_or_else(|| io::Error::other("a shard ended early"));
                Err(StartFailure::Executors(error))
            }
        }
    }

    /// Asks the broker to stop, as SIGTERM does.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until it has stopped.
    pub fn join(self) -> Result<(), StartFailure> {
        let mut outcome = Ok(());
        for shard in self.shards {
            let ended = shard.join().map_err(StartFailure::Executors);
            outcome = outcome.and(ended.and_then(|outcome| outcome));
        }
        outcome
    }
}

fn check_host(data_dir: &DataDir, shards: u16) -> Result<(), StartFailure> {
    use forebay_tune::check::{Severity, all};
    raise_open_files();
    for finding in all(&data_dir.path, u64::from(shards)) {
        match finding.severity {
            Severity::Fatal => return Err(StartFailure::Host(finding)),
            Severity::Warn => tracing::warn!(
                check = finding.id,
                current = finding.current,
                wanted = finding.wanted,
                "{}: {}",
                finding.why,
                finding.remedy
            ),
            Severity::Ok | Severity::Unknown => {}
        }
    }
    Ok(())
}

/// Every connection and open segment takes a file descriptor: use all we may have.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn resolve(config: &Config) -> Result<SocketAddr, StartFailure> {
    let listener = &config.endpoints.listener;
    let host = match listener.host.as_str() {
        "" => "0.0.0.0",
        host => host.trim_matches(['[', ']']),
    };
    let failed = |error| StartFailure::Listen {
        address: format!("{host}:{}", listener.port),
        error,
    };
    (host, listener.port)
        .to_socket_addrs()
        .map_err(failed)?
        .next()
        .ok_or_else(|| failed(io::Error::other("the host has no address")))
}

/// The shards share the port (SO_REUSEPORT), and so would a second broker of the same user. An ordinary bind tells, but it is also
/// refused while connections of the last broker linger: then what counts is whether somebody answers.
fn refuse_taken(address: SocketAddr) -> io::Result<()> {
    match TcpListener::bind(address) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse || answers(address) => Err(error),
        _ => Ok(()),
    }
}

/// The kernel takes the rings of a killed broker apart after the process is gone, and its listeners live until then.
fn outlast_killed(address: SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + KILLED_LISTENER_TIME_MAX;
    loop {
        match refuse_taken(address) {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            outcome => return outcome,
        }
    }
}

fn answers(mut address: SocketAddr) -> bool {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    TcpStream::connect_timeout(&address, TAKEN_PROBE_TIME_MAX).is_ok()
}

/// What shard 0 has beside a shard.
struct Conductor {
    data_dir: DataDir,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    tell: Tell,
}

type Tell = mpsc::Sender<Result<Ready, StartFailure>>;

/// Told when clients may connect.
#[derive(Debug)]
pub struct Ready {
    pub address: SocketAddr,
    pub http: Option<SocketAddr>,
    pub partitions: usize,
}

async fn run_shard(
    rt: Rt,
    id: ShardId,
    seeds: MeshSeeds,
    config: Config,
    conductor: Option<Conductor>,
    tell: Tell,
    abandoned: Arc<AtomicBool>,
) -> Result<(), StartFailure> {
    let config = Rc::new(config);
    let engine_config = config.engine_config(id, seeds.shard_count());
    let engine = match Engine::open(rt.clone(), engine_config).await {
        Ok(engine) => engine,
        Err(error) => {
            abandoned.store(true, Ordering::Relaxed);
            let _ = tell.send(Err(StartFailure::Storage(error.to_string())));
            return Ok(());
        }
    };
    // From here on only the conductor speaks.
    drop(tell);
    let joined = pin!(Shard::start(rt.clone(), id, seeds, engine, config));
    // A peer that could not open its engine never comes.
    let given_up = pin!(async {
        while !abandoned.load(Ordering::Relaxed) {
            rt.sleep(STOP_POLL).await;
        }
    });
    let shard = match select(joined, given_up).await {
        Either::Left((shard, _)) => shard,
        Either::Right(_) => return Ok(()),
    };
    let Some(conductor) = conductor else {
        shard.stopped().await;
        return Ok(());
    };
    let outcome = conductor.run(&shard).await;
    // Told, and not left to find out: nobody waits for a peer that is gone.
    let others = shard.shards().filter(|other| *other != shard.id);
    join_all(others.map(|to| shard.step(to, Step::Leave))).await;
    shard.leave_mesh();
    shard.stopped().await;
    outcome
}

impl Conductor {
    async fn run(self, shard: &Rc<Shard>) -> Result<(), StartFailure> {
        let (controller, broker_epoch) = match self.start(shard).await {
            Ok((controller, broker_epoch, ready)) => {
                let _ = self.tell.send(Ok(ready));
                (controller, broker_epoch)
            }
            Err(failure) => {
                let _ = self.tell.send(Err(failure));
                return Ok(());
            }
        };
        while !self.stop.load(Ordering::Relaxed) {
            shard.rt.sleep(STOP_POLL).await;
        }
        tracing::info!("stopping");
        step(shard, Step::Drain).await?;
        controller.stop();
        step(shard, Step::CloseEngine).await?;
        self.data_dir
            .mark_clean(broker_epoch)
            .map_err(|error| StartFailure::Storage(format!("clean-shutdown marker: {error}")))?;
        tracing::info!("stopped; everything is on disk");
        Ok(())
    }

    async fn start(&self, shard: &Rc<Shard>) -> Result<(Rc<Controller>, i64, Ready), StartFailure> {
        let controller = load_metadata(shard).await?;
        let image = controller.image();
        join_all(shard.shards().map(|to| shard.publish(to, image.clone()))).await;
        step(shard, Step::SyncRecovered).await?;
        step(shard, Step::StartJournal).await?;
        controller
            .start(shard, &self.data_dir.identity.cluster_id)
            .await
            .map_err(|error| StartFailure::Metadata(error.to_string()))?;

        // Before clients can make topics: a directory may be there before its topic is known.
        strays::report(shard).await;
        let failed = |error| StartFailure::Listen {
            address: self.address.to_string(),
            error,
        };
        let listener = shard.rt.listen(self.address).map_err(failed)?;
        let address = listener.local_addr();
        let broker_epoch = self.register(shard, address.port()).await?;
        net::serve(shard, listener);
        let others = shard.shards().filter(|id| *id != shard.id);
        for listening in join_all(others.map(|to| shard.step(to, Step::Listen(address)))).await {
            listening
                .unwrap_or_else(|| Err("a shard ended".to_owned()))
                .map_err(|error| failed(io::Error::other(error)))?;
        }
        let http = self.serve_http(shard, address)?;
        let ready = Ready {
            address,
            http,
            partitions: shard
                .image()
                .topics
                .values()
                .map(|t| t.partitions.len())
                .sum(),
        };
        Ok((controller, broker_epoch, ready))
    }

    async fn register(&self, shard: &Rc<Shard>, bound_port: u16) -> Result<i64, StartFailure> {
        let advertised = &shard.config.endpoints.advertised;
        let directory_id = TopicId::parse(&self.data_dir.identity.directory_id);
        let directory_id = directory_id.ok_or_else(|| {
            StartFailure::Metadata("meta.properties: directory.id is not an id".to_owned())
        })?;
        let registration = controller::Registration {
            id: shard.config.node_id,
            incarnation: *uuid::Uuid::new_v4().as_bytes(),
            storage_id: directory_id.0,
            clean_epoch: self.data_dir.clean_epoch,
            host: advertised.host.clone(),
            port: match advertised.port {
                0 => bound_port,
                port => port,
            },
            rack: shard.config.rack.clone(),
        };
        let request = controller::Request::RegisterBroker(registration);
        match shard.control(request).await {
            Some(controller::Reply::RegisterBroker(epoch)) => Ok(epoch),
            Some(controller::Reply::Refused(refusal)) => {
                Err(StartFailure::Metadata(format!("registration: {refusal:?}")))
            }
            other => unreachable!("a registration is answered in kind, not by {other:?}"),
        }
    }

    fn serve_http(
        &self,
        shard: &Rc<Shard>,
        address: SocketAddr,
    ) -> Result<Option<SocketAddr>, StartFailure> {
        let Some(port) = shard.config.http_port else {
            return Ok(None);
        };
        let wanted = SocketAddr::new(address.ip(), port);
        let failed = |error| StartFailure::Listen {
            address: format!("{wanted} (forebay.http.port)"),
            error,
        };
        if port != 0 {
            refuse_taken(wanted).map_err(failed)?;
        }
        let listener = shard.rt.listen(wanted).map_err(failed)?;
        let bound = listener.local_addr();
        let serve = net::http::serve(shard.clone(), listener);
        shard.rt.spawn(Class::Housekeeping, serve).detach();
        Ok(Some(bound))
    }
}

async fn load_metadata(shard: &Rc<Shard>) -> Result<Rc<Controller>, StartFailure> {
    let storage = |error: &dyn std::fmt::Display| StartFailure::Storage(error.to_string());
    let log = shard
        .engine
        .open_log(meta::METADATA_LOG, meta::log_name(), meta::log_config())
        .await
        .map_err(|error| storage(&error))?;
    let partition = shard.adopt(log, LeaderEpoch(0));
    let controller = Controller::load(
        shard.rt.clone(),
        shard.engine.clone(),
        shard.config.clone(),
        partition,
    )
    .await
    .map_err(|fault| storage(&fault))?;
    shard.install_controller(controller.clone());
    Ok(controller)
}

/// Has all shards take a step; the first failure counts.
async fn step(shard: &Rc<Shard>, step: Step) -> Result<(), StartFailure> {
    let steps = shard.shards().map(|to| shard.step(to, step));
    for (id, outcome) in join_all(steps).await.into_iter().enumerate() {
        let outcome = outcome.unwrap_or_else(|| Err("ended".to_owned()));
        outcome.map_err(|error| StartFailure::Storage(format!("shard {id}: {error}")))?;
    }
    Ok(())
}
