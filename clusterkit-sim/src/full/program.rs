//! The programs of a run: what its nodes and clients execute, and what must hold of it.
//!
//! [`Program`] is what a user implements, and what the run of `cargo xtask sim` is made of (`kv`).

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use clusterkit::disk::Directory;
use clusterkit::{
    ClusterKit, Entropy, Environment, Execution, FEATURE_LEVEL, Options, Profile, Subscriber,
};
use clusterkit_http::net::Network;
use tokio::sync::watch;

use super::clock::SimClock;
use super::fabric::Fabric;
use super::hooks::{Recorded, Recorder};
use super::net::SimNetwork;
use crate::{FaultKind, Rng, Violation};

/// Where nodes serve their cluster.
pub(super) const HTTP_PORT: u16 = 8_080;
/// How long a program waits to be admitted before it ends and is started again.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a program came to its end.
pub type ProgramError = Box<dyn std::error::Error + Send + Sync>;

/// A program whose copies are to become one cluster, its clients, and what must hold of both.
///
/// One value stands for the whole of a run: all its nodes and clients execute methods of the same
/// value, in one thread. What they write down in it (behind a `Mutex`) is therefore what an observer
/// of the whole world would see, at the same moment, and the place to look for broken promises.
///
/// What runs in it must take time, chance, files and connections from [`Process`] and [`Client`], or
/// a seed will not mean the same twice. Timers of tokio are part of the simulation.
#[async_trait]
pub trait Program: Send + Sync + 'static {
    /// Runs one process of the program, from the start of its machine until [`Process::stopped`]
    /// says that an operator wants it to end. A process that ends on its own, well or not, is
    /// started again a moment later, as a supervisor would.
    ///
    /// # Errors
    /// Whatever keeps the process from going on. It is written into the trace.
    async fn node(&self, process: Process) -> Result<(), ProgramError>;

    /// Runs one client until [`Client::is_closing`]. The default does nothing.
    async fn client(&self, client: Client) {
        drop(client);
    }

    /// Says whether every promise holds at this moment. Asked after every turn of the world, so
    /// it should be quick. The default finds nothing wrong.
    ///
    /// # Errors
    /// The promise that does not hold.
    fn check(&self, now: Duration) -> Result<(), Violation> {
        let _ = now;
        Ok(())
    }

    /// Says whether every promise was kept, once nothing goes wrong any more, all clients have ended
    /// and the cluster is well again; `client` may ask its nodes. The default finds nothing wrong.
    ///
    /// # Errors
    /// The promise that was not kept.
    async fn verify(&self, client: Client) -> Result<(), Violation> {
        drop(client);
        Ok(())
    }
}

/// Who plays in a run.
pub(super) struct Cast {
    pub(super) program: Arc<dyn Program>,
    /// What it is, for people.
    pub(super) about: String,
    pub(super) clients: u32,
    /// Faults that are not drawn.
    pub(super) unwanted: Vec<FaultKind>,
}

impl Cast {
    pub(super) fn new(program: impl Program, about: String, clients: u32) -> Self {
        Self {
            program: Arc::new(program),
            about,
            clients,
            unwanted: Vec::new(),
        }
    }
}

/// What the processes of a run have in common.
pub(super) struct Shared {
    pub(super) fabric: Arc<Fabric>,
    pub(super) program: Arc<dyn Program>,
    /// The first members, through which others join.
    pub(super) seeds: Vec<String>,
    /// How many nodes there are at the start.
    pub(super) begun_with: u32,
    /// No clock is off by more than leases tolerate: what tokens prove, they prove.
    pub(super) clocks_are_kept: bool,
    /// Whether clients are to end.
    pub(super) closing: AtomicBool,
    /// How many disks were lost for good so far.
    pub(super) disks_lost: AtomicUsize,
    /// Lines for the trace.
    pub(super) notes: Mutex<Vec<String>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn note(&self, text: fmt::Arguments<'_>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(text.to_string());
    }

    /// Returns the lines noted since the last time.
    pub(super) fn take_notes(&self) -> Vec<String> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *notes)
    }
}

/// One start of one node, as the world sets it up.
pub(super) struct Start {
    pub(super) number: u32,
    pub(super) host: IpAddr,
    pub(super) boot: u64,
    pub(super) zone: String,
    pub(super) began: Duration,
    /// Whether it may form a cluster: a node that lost its disk must not, once there is one.
    pub(super) may_form: bool,
    /// Whether it is an older build, which knows less than the others.
    pub(super) older: bool,
    /// Where it may join through.
    pub(super) seeds: Vec<String>,
    pub(super) shared: Arc<Shared>,
    pub(super) directory: Arc<dyn Directory>,
    pub(super) rng: Rng,
    pub(super) probe: Arc<Probe>,
    pub(super) recorder: Arc<Recorder>,
}

/// One process of a [`Program`]: the machine it runs on.
#[derive(Debug)]
pub struct Process {
    number: u32,
    host: IpAddr,
    zone: String,
    may_form: bool,
    older: bool,
    seeds: Vec<String>,
    shared: Arc<Shared>,
    environment: Environment,
    directory: Arc<dyn Directory>,
    probe: Arc<Probe>,
    recorder: Arc<Recorder>,
}

impl Process {
    fn new(start: Start) -> Self {
        let mut environment = Environment::default();
        let fabric = Arc::clone(&start.shared.fabric);
        environment.network = Arc::new(SimNetwork::new(fabric, start.host, start.boot));
        environment.clock = Arc::new(SimClock::new(start.began));
        environment.entropy = Arc::new(SimEntropy(Mutex::new(start.rng)));
        environment.execution = Execution::Inline;
        Self {
            number: start.number,
            host: start.host,
            zone: start.zone,
            may_form: start.may_form,
            older: start.older,
            seeds: start.seeds,
            shared: start.shared,
            environment,
            directory: start.directory,
            probe: start.probe,
            recorder: start.recorder,
        }
    }

    /// Returns the number of its node, from 1. The same at every start.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Returns the id of its node: `node-` and the number.
    #[must_use]
    pub fn id(&self) -> String {
        format!("node-{}", self.number)
    }

    /// Returns `host:port` for a port of this machine.
    #[must_use]
    pub fn address(&self, port: u16) -> String {
        format!("{}:{port}", self.host)
    }

    /// Returns the options of its embedded node: id, address, zone, seeds, the simulated disk and
    /// all that belongs to the simulation, with the profile `fast`. The program adds its own.
    ///
    /// Shutting down does not leave the cluster: in the simulator, who leaves is drained before.
    pub fn options(&self) -> Options {
        let mut options = Options::new(self.id(), self.address(HTTP_PORT))
            .environment(self.environment.clone())
            .directory(Arc::clone(&self.directory))
            .profile(Profile::Fast)
            .zone(self.zone.clone())
            .leave_on_shutdown(false)
            .join_timeout(JOIN_TIMEOUT);
        if !self.may_form {
            options = options.bootstrap(false);
        }
        if self.older {
            options = options.feature_level(FEATURE_LEVEL - 1);
        }
        for seed in &self.seeds {
            options = options.join(seed.as_str());
        }
        options
    }

    /// Returns `hooks` with somebody beside them who takes notes: the run then judges that they were
    /// told everything at least once, in order for each partition, across crashes.
    #[must_use]
    pub fn watched<S: Subscriber>(&self, hooks: S) -> impl Subscriber + use<S> {
        Recorded::new(Arc::new(hooks), Arc::clone(&self.recorder))
    }

    /// Returns how many nodes the run began with.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.shared.begun_with
    }

    /// Returns network, clock, chance and threads of the machine.
    #[must_use]
    pub fn environment(&self) -> Environment {
        self.environment.clone()
    }

    /// Returns the network of the machine.
    #[must_use]
    pub fn network(&self) -> Arc<dyn Network> {
        Arc::clone(&self.environment.network)
    }

    /// Returns the disk of the machine. What is not synced may be lost with the power.
    #[must_use]
    pub fn directory(&self) -> Arc<dyn Directory> {
        Arc::clone(&self.directory)
    }

    /// Returns the observer of the run, for hooks and tasks of the process.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer {
            who: self.id(),
            shared: Arc::clone(&self.shared),
        }
    }

    /// Returns the time of the world, as [`Observer::true_time`] does.
    #[must_use]
    pub fn true_time(&self) -> Duration {
        self.shared.fabric.now()
    }

    /// Shows the embedded node to the world, which judges it from then on and carries out through
    /// it what operators do. Without it the run ends with a violation: the node never started.
    pub fn started(&self, cluster: &ClusterKit) {
        self.probe.lock().cluster = Some(cluster.clone());
    }

    /// Ends when an operator wants the process to end, which it should do in good order.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn stopped(&self) {
        let mut stop = self.probe.stop.subscribe();
        // The sender is never dropped before the probe.
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

/// What no real program has: a look at the whole world, for what a [`Program`] writes down about
/// itself.
#[derive(Clone, Debug)]
pub struct Observer {
    who: String,
    shared: Arc<Shared>,
}

impl Observer {
    /// Returns the time of the world since the run began, which no clock of a machine shows.
    #[must_use]
    pub fn true_time(&self) -> Duration {
        self.shared.fabric.now()
    }

    /// Writes a line into the trace of the run.
    pub fn note(&self, text: fmt::Arguments<'_>) {
        self.shared.note(format_args!("{}: {text}", self.who));
    }
}

/// One client of a [`Program`], on a machine of its own that no fault stops; its connections are
/// as good as the network is.
#[derive(Debug)]
pub struct Client {
    number: u32,
    network: Arc<SimNetwork>,
    rng: Rng,
    seeds: Vec<String>,
    shared: Arc<Shared>,
}

impl Client {
    pub(super) fn new(
        number: u32,
        (host, boot): (IpAddr, u64),
        rng: Rng,
        seeds: Vec<String>,
        shared: Arc<Shared>,
    ) -> Self {
        let fabric = Arc::clone(&shared.fabric);
        Self {
            number,
            network: Arc::new(SimNetwork::new(fabric, host, boot)),
            rng,
            seeds,
            shared,
        }
    }

    /// Returns its number, from 0.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Returns the network of its machine, for [`HttpSource::over`] and [`HttpClient::over`].
    ///
    /// [`HttpSource::over`]: clusterkit_client::HttpSource::over
    /// [`HttpClient::over`]: clusterkit_http::client::HttpClient::over
    #[must_use]
    pub fn network(&self) -> Arc<dyn Network> {
        Arc::clone(&self.network) as Arc<dyn Network>
    }

    /// Returns the addresses that members are joined and topologies are fetched through.
    #[must_use]
    pub fn seeds(&self) -> &[String] {
        &self.seeds
    }

    /// Returns its source of chance.
    pub const fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Returns the observer of the run.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer {
            who: format!("client {}", self.number),
            shared: Arc::clone(&self.shared),
        }
    }

    /// Returns the time of the world, as [`Observer::true_time`] does.
    #[must_use]
    pub fn true_time(&self) -> Duration {
        self.shared.fabric.now()
    }

    /// Tells whether it is to finish what it does and end.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Relaxed)
    }

    /// Tells whether no clock of a machine is ever off by more than leases tolerate. Where one is,
    /// nobody promises that the holders of two tokens of one partition exclude each other.
    #[must_use]
    pub fn clocks_are_kept(&self) -> bool {
        self.shared.clocks_are_kept
    }

    /// Returns how many disks were lost for good so far: with them whatever no other disk held.
    #[must_use]
    pub fn disks_lost(&self) -> usize {
        self.shared.disks_lost.load(Ordering::Relaxed)
    }
}

/// What the world sees of a process, and tells it.
#[derive(Debug)]
pub(super) struct Probe {
    state: Mutex<ProbeState>,
    stop: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct ProbeState {
    cluster: Option<ClusterKit>,
    end: Option<End>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was told to stop, and did.
    Stopped,
    /// On its own.
    Ended,
    /// It could not go on, because of this.
    Failed(String),
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            stop: watch::Sender::new(false),
        }
    }
}

impl Probe {
    fn lock(&self) -> MutexGuard<'_, ProbeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the embedded node once it has started.
    pub(super) fn cluster(&self) -> Option<ClusterKit> {
        self.lock().cluster.clone()
    }

    /// Returns how it ended.
    pub(super) fn end(&self) -> Option<End> {
        self.lock().end.clone()
    }

    /// Tells the program to stop in good order, without leaving its cluster.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Lets go of the embedded node.
    pub(super) fn clear(&self) {
        let cluster = self.lock().cluster.take();
        drop(cluster);
    }
}

/// Identities from the seed.
#[derive(Debug)]
struct SimEntropy(Mutex<Rng>);

impl Entropy for SimEntropy {
    fn id(&self) -> [u8; 16] {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bytes16()
    }
}

/// Runs a process of the program to its end.
pub(super) async fn run(start: Start) {
    let probe = Arc::clone(&start.probe);
    let program = Arc::clone(&start.shared.program);
    let ended = program.node(Process::new(start)).await;
    let stopped = *probe.stop.borrow();
    let mut state = probe.lock();
    state.end = Some(match ended {
        Err(error) => End::Failed(error.to_string()),
        Ok(()) if stopped => End::Stopped,
        Ok(()) => End::Ended,
    });
    let cluster = state.cluster.take();
    drop(state);
    drop(cluster);
}
