//! A cluster of real `kv` processes on this machine: start, kill, pause, restart, look at.
//!
//! [`Cluster`] owns every process it starts and ends all of them when it is dropped, so neither an
//! error, a panic nor Ctrl-C leaves one running; where `setpriv` exists the kernel does it even if
//! we are killed. What a cluster must look like is judged by `verdict`, records are read and
//! written by `kv`.

mod build;
mod change;
mod lines;
mod manner;
mod movement;
mod net;
mod observe;
mod ports;
mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clusterkit_http::client::HttpClient;
use tempfile::TempDir;

pub(crate) use build::ProgramArgs;
pub(crate) use lines::Line;
use lines::Listening;
pub(crate) use manner::{Manner, Store};
pub(crate) use movement::{Mark, Movement};
use net::Place;
pub(crate) use net::{Network, NetworkArg};
#[cfg(test)]
pub(crate) use observe::NodeRow;
pub(crate) use observe::{PartitionRow, View};
use ports::free_port;
use process::{Process, Setting};
use tokio::sync::mpsc::Receiver;

use crate::clock::Stopwatch;

/// How often a condition is looked at again while waiting for it.
const POLL_EVERY: Duration = Duration::from_millis(20);
/// The same once it has taken longer than [`POLL_CLOSELY`]: looking costs the cluster time too.
const POLL_LATER_EVERY: Duration = Duration::from_millis(100);
/// How long a condition is expected within a moment.
const POLL_CLOSELY: Duration = Duration::from_secs(2);

/// One member of a [`Cluster`], running or not.
#[derive(Debug)]
pub(crate) struct Member {
    /// The node's id.
    pub(crate) id: String,
    /// The port of the node's HTTP address.
    pub(crate) http_port: u16,
    /// The port of the key-value service.
    pub(crate) kv_port: u16,
    place: Place,
    seeds: Vec<String>,
    data: PathBuf,
    log: PathBuf,
    process: Option<Process>,
    paused: bool,
}

impl Member {
    /// Returns the node's HTTP address.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.place.host, self.http_port)
    }

    /// Returns the address of the node's key-value service.
    pub(crate) fn kv_address(&self) -> String {
        format!("{}:{}", self.place.host, self.kv_port)
    }

    /// Returns the process id while the process runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Tells whether the process runs and is not paused.
    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some() && !self.paused
    }
}

/// Processes of one cluster, their directories and their logs.
#[derive(Debug)]
pub(crate) struct Cluster {
    binary: PathBuf,
    directory: Directory,
    manner: Manner,
    members: BTreeMap<String, Member>,
    http: HttpClient,
    listening: Option<Listening>,
    network: Option<Network>,
}

#[derive(Debug)]
enum Directory {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Cluster {
    /// Prepares a cluster of processes of `binary` in a new temporary directory.
    pub(crate) fn new(binary: &Path, manner: Manner) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("clusterkit-")
            .tempdir()
            .context("cannot create a temporary directory")?;
        Ok(Self {
            binary: binary.to_owned(),
            directory: Directory::Temporary(directory),
            manner,
            members: BTreeMap::new(),
            http: HttpClient::default(),
            listening: None,
            network: None,
        })
    }

    /// Puts the members added from now on onto `network`.
    pub(crate) fn connect(&mut self, network: Network) {
        self.network = Some(network);
    }

    /// Returns the network between the members.
    pub(crate) fn network(&self) -> anyhow::Result<&Network> {
        let network = self.network.as_ref();
        network.context("the nodes share the network of this machine")
    }

    /// Returns every line that nodes started from now on write, with the time by `watch`, at which
    /// it was read here.
    pub(crate) fn listen(&mut self, watch: Stopwatch) -> Receiver<Line> {
        let (listening, lines) = Listening::start(watch);
        self.listening = Some(listening);
        lines
    }

    /// Returns the directory that holds data and logs.
    pub(crate) fn directory(&self) -> &Path {
        match &self.directory {
            Directory::Temporary(directory) => directory.path(),
            Directory::Kept(path) => path,
        }
    }

    /// Keeps data and logs after the cluster is gone, and says where.
    pub(crate) fn keep_directory(&mut self) -> PathBuf {
        let path = self.directory().to_owned();
        let before = std::mem::replace(&mut self.directory, Directory::Kept(path.clone()));
        if let Directory::Temporary(directory) = before {
            let _ = directory.keep();
        }
        path
    }

    /// Adds a member that is not started yet, with ports of its own.
    pub(crate) fn add(&mut self, id: &str) -> anyhow::Result<()> {
        let home = self.directory().join(id);
        let (http_port, kv_port) = (free_port()?, free_port()?);
        let place = match &mut self.network {
            Some(network) => network.add(id, [http_port, kv_port])?,
            None => Place::default(),
        };
        let member = Member {
            id: id.to_owned(),
            http_port,
            kv_port,
            place,
            seeds: Vec::new(),
            data: home.join("data"),
            log: home.join("log.txt"),
            process: None,
            paused: false,
        };
        std::fs::create_dir_all(&home)
            .with_context(|| format!("cannot create {}", home.display()))?;
        self.members.insert(id.to_owned(), member);
        Ok(())
    }

    /// Starts the process of `id`, which joins through `seeds` (none: it forms a cluster).
    pub(crate) fn start(&mut self, id: &str, seeds: &[String]) -> anyhow::Result<()> {
        let binary = self.binary.clone();
        let args = self.manner.args();
        let partitions = self.manner.partitions;
        let listening = self.listening.clone();
        let member = self.member_mut(id)?;
        if member.process.is_some() {
            bail!("{id} is already running");
        }
        member.seeds = seeds.to_vec();
        let mut env = vec![
            ("NODE_ID", member.id.clone()),
            (
                "HTTP_ADDR",
                format!("{}:{}", member.place.listen, member.http_port),
            ),
            ("KV_PORT", member.kv_port.to_string()),
            ("DATA_DIR", member.data.display().to_string()),
        ];
        if member.place.listen != member.place.host {
            env.push(("ADVERTISE_ADDR", member.address()));
            env.push(("KV_ADVERTISE_ADDR", member.kv_address()));
        }
        if !member.seeds.is_empty() {
            env.push(("JOIN_ADDR", member.seeds.join(",")));
        }
        if let Some(partitions) = partitions {
            env.push(("PARTITIONS", partitions.to_string()));
        }
        let ear = listening.map(|listening| listening.ear(id));
        if ear.is_some() {
            // Hooks are told in the debug log of the program.
            env.push((
                "RUST_LOG",
                "info,openraft=warn,clusterkit_examples::kv::server=debug".into(),
            ));
        }
        let setting = Setting {
            args: &args,
            env: &env,
            log: &member.log,
            namespace: member.place.namespace.as_deref(),
            ear,
        };
        let process = Process::start(&binary, setting)?;
        let pid = process.pid();
        member.process = Some(process);
        member.paused = false;
        if let Some(network) = &self.network {
            network.runs_as(id, pid);
        }
        Ok(())
    }

    /// Starts `id` again with the seeds it had.
    pub(crate) fn restart(&mut self, id: &str) -> anyhow::Result<()> {
        let seeds = self.member(id)?.seeds.clone();
        self.start(id, &seeds)
    }

    /// Kills `id` at once (SIGKILL), and waits until it is gone.
    pub(crate) fn kill(&mut self, id: &str) -> anyhow::Result<()> {
        let member = self.member_mut(id)?;
        let process = member
            .process
            .take()
            .with_context(|| format!("{id} is not running"))?;
        member.paused = false;
        drop(process);
        Ok(())
    }

    /// Asks `id` to stop (SIGTERM) and waits up to `limit` for it to end by itself.
    pub(crate) async fn stop(&mut self, id: &str, limit: Duration) -> anyhow::Result<()> {
        let member = self.member_mut(id)?;
        let mut process = member
            .process
            .take()
            .with_context(|| format!("{id} is not running"))?;
        process.terminate()?;
        let watch = Stopwatch::start();
        while watch.elapsed() < limit {
            if let Some(status) = process.ended()? {
                if !status.success() {
                    bail!("{id} ended with {status} after SIGTERM");
                }
                return Ok(());
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        bail!("{id} did not end within {limit:?} after SIGTERM");
    }

    /// Stops the process of `id` from running, without ending it (SIGSTOP).
    pub(crate) fn pause(&mut self, id: &str) -> anyhow::Result<()> {
        let member = self.member_mut(id)?;
        member
            .process
            .as_ref()
            .with_context(|| format!("{id} is not running"))?
            .pause()?;
        member.paused = true;
        Ok(())
    }

    /// Lets a paused process run on (SIGCONT).
    pub(crate) fn resume(&mut self, id: &str) -> anyhow::Result<()> {
        let member = self.member_mut(id)?;
        member
            .process
            .as_ref()
            .with_context(|| format!("{id} is not running"))?
            .resume()?;
        member.paused = false;
        Ok(())
    }

    /// Deletes the data directory of `id`, which must not run.
    pub(crate) fn wipe(&mut self, id: &str) -> anyhow::Result<()> {
        let member = self.member(id)?;
        if member.process.is_some() {
            bail!("{id} is running: its disk cannot be wiped");
        }
        std::fs::remove_dir_all(&member.data)
            .with_context(|| format!("cannot delete {}", member.data.display()))
    }

    /// Gives `id` other ports for its next start.
    pub(crate) fn readdress(&mut self, id: &str) -> anyhow::Result<()> {
        let (http_port, kv_port) = (free_port()?, free_port()?);
        let member = self.member_mut(id)?;
        if member.process.is_some() {
            bail!("{id} is running: its address cannot change");
        }
        (member.http_port, member.kv_port) = (http_port, kv_port);
        Ok(())
    }

    /// Returns the member `id`.
    pub(crate) fn member(&self, id: &str) -> anyhow::Result<&Member> {
        self.members
            .get(id)
            .with_context(|| format!("there is no member {id}"))
    }

    fn member_mut(&mut self, id: &str) -> anyhow::Result<&mut Member> {
        self.members
            .get_mut(id)
            .with_context(|| format!("there is no member {id}"))
    }

    /// Returns every member, running or not, by id.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Returns the ids of the members that run and are not paused.
    pub(crate) fn up(&self) -> Vec<String> {
        self.members
            .values()
            .filter(|member| member.is_up())
            .map(|m| m.id.clone())
            .collect()
    }

    /// Returns the HTTP addresses of the members that run and are not paused.
    pub(crate) fn seeds(&self) -> Vec<String> {
        self.members
            .values()
            .filter(|member| member.is_up())
            .map(Member::address)
            .collect()
    }

    /// Fails when a process that should run has ended by itself, with the end of its log.
    pub(crate) fn check_alive(&mut self) -> anyhow::Result<()> {
        for member in self.members.values_mut() {
            let Some(process) = &mut member.process else {
                continue;
            };
            if let Some(status) = process.ended()? {
                member.process = None;
                let tail = log_tail(&member.log, 12);
                bail!(
                    "{} ended by itself ({status}); the end of its log:\n{tail}",
                    member.id
                );
            }
        }
        Ok(())
    }

    /// Fails when any process of this cluster has panicked, even if it went on.
    pub(crate) fn check_no_panic(&self) -> anyhow::Result<()> {
        for member in self.members.values() {
            let log = std::fs::read(&member.log).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
                bail!("{} panicked: {line}", member.id);
            }
        }
        Ok(())
    }

    /// Waits until `look` answers nothing more to wait for, at most `limit`. Returns the time taken;
    /// an error names what was still missing.
    pub(crate) async fn wait_until<F>(
        &mut self,
        what: &str,
        limit: Duration,
        mut look: F,
    ) -> anyhow::Result<Duration>
    where
        F: AsyncFnMut(&Self) -> anyhow::Result<()>,
    {
        let watch = Stopwatch::start();
        loop {
            self.check_alive()?;
            let missing = match look(self).await {
                Ok(()) => return Ok(watch.elapsed()),
                Err(missing) => missing,
            };
            if watch.elapsed() > limit {
                return Err(missing).with_context(|| format!("waited {limit:?} for {what}"));
            }
            let is_close = watch.elapsed() < POLL_CLOSELY;
            tokio::time::sleep(if is_close {
                POLL_EVERY
            } else {
                POLL_LATER_EVERY
            })
            .await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // All of them first, so that none reacts to the end of another.
        for member in self.members.values_mut() {
            if let Some(process) = &mut member.process {
                process.kill();
            }
        }
        self.members.clear();
    }
}

/// Returns the last `lines` lines of a log.
pub(crate) fn log_tail(log: &Path, lines: usize) -> String {
    let content = std::fs::read(log).unwrap_or_default();
    let content = String::from_utf8_lossy(&content);
    let all: Vec<&str> = content.lines().collect();
    let from = all.len().saturating_sub(lines);
    all[from..]
        .iter()
        .map(|line| format!("  | {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests;
