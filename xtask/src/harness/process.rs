//! One process: its own process group, its log in a file, killed when dropped.
//!
//! Its own group, so that Ctrl-C in the terminal reaches only us and we end our processes in
//! order. `setpriv --pdeathsig` (util-linux), where installed, makes the kernel kill the process
//! if we die without running any code.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::lines::{Ear, copy_and_tell};

/// A running process.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Copies its output to the log while somebody listens.
    listener: Option<JoinHandle<()>>,
}

/// What a process is started with, besides the program.
#[derive(Debug)]
pub(super) struct Setting<'a> {
    pub(super) args: &'a [&'a str],
    pub(super) env: &'a [(&'a str, String)],
    /// Where both its outputs are appended.
    pub(super) log: &'a Path,
    /// The network namespace it runs in, if it is not ours.
    pub(super) namespace: Option<&'a str>,
    /// Who hears of every line of its output.
    pub(super) ear: Option<Ear>,
}

impl Process {
    /// Starts `binary`.
    pub(super) fn start(binary: &Path, setting: Setting<'_>) -> anyhow::Result<Self> {
        let Setting {
            args,
            env,
            log,
            namespace,
            ear,
        } = setting;
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let mut words: Vec<&OsStr> = Vec::new();
        if has_setpriv() {
            words.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(OsStr::new));
        }
        if let Some(namespace) = namespace {
            // It replaces itself by the program: process id and signal stay.
            words.extend(["ip", "netns", "exec", namespace].map(OsStr::new));
        }
        words.push(binary.as_os_str());
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        for (name, _) in std::env::vars_os() {
            if is_option_of_a_node(&name.to_string_lossy()) {
                command.env_remove(name);
            }
        }
        command
            .args(args)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .process_group(0);
        let cannot = || format!("cannot start {}", binary.display());
        let Some(ear) = ear else {
            let errors = output.try_clone().context("cannot share the log")?;
            let child = command.stdout(output).stderr(errors).spawn();
            let child = child.with_context(cannot)?;
            let listener = None;
            return Ok(Self { child, listener });
        };
        let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        let errors = writer.try_clone().context("cannot share a pipe")?;
        let child = command.stdout(writer).stderr(errors).spawn();
        // It holds the writing ends, which must end with the process.
        drop(command);
        let child = child.with_context(cannot)?;
        let listener = std::thread::spawn(move || copy_and_tell(reader, output, &ear));
        let listener = Some(listener);
        Ok(Self { child, listener })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process and waits until it is gone.
    pub(super) fn kill(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(listener) = self.listener.take() {
            // A panic of it has been printed.
            let _ = listener.join();
        }
    }

    pub(super) fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)
    }

    pub(super) fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    pub(super) fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Returns how the process ended, if it has.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .context("cannot look at a process of ours")
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid()).context("a process id is a positive i32")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to {pid}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn has_setpriv() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

/// What the `kv` program and the node in it read from the environment.
const OPTIONS: &[&str] = &[
    "ADVERTISE_ADDR",
    "BOOTSTRAP",
    "CLUSTER_NAME",
    "CONNECTIONS_MAX",
    "DATA_DIR",
    "EXPECT",
    "HASH",
    "HTTP_ADDR",
    "HTTP_PORT",
    "JOIN_ADDR",
    "JOIN_TIMEOUT_MS",
    "KV_ADDR",
    "KV_ADVERTISE_ADDR",
    "KV_PORT",
    "LEAVE_TIMEOUT_MS",
    "LEGACY_ADDRESSES",
    "NODE_ID",
    "NODE_NAME",
    "NO_LEAVE",
    "PARTITIONS",
    "PARTITION_COUNT",
    "PROFILE",
    "RAFT_ADDR",
    "REPAIR_DELAY_MS",
    "REPLICATION_FACTOR",
    "STORE",
    "VALUE_MAX_BYTES",
    "WEIGHT",
    "ZONE",
];

/// Tells whether an environment variable would configure a node behind our back.
fn is_option_of_a_node(name: &str) -> bool {
    name.starts_with("CLUSTERKIT_") || OPTIONS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_process_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log.txt");
        let setting = Setting {
            args: &["60"],
            env: &[],
            log: &log,
            namespace: None,
            ear: None,
        };
        let process = Process::start(Path::new("/bin/sleep"), setting).unwrap();
        let pid = Pid::from_raw(i32::try_from(process.pid()).unwrap());
        assert!(kill(pid, None).is_ok(), "it runs");
        process.pause().unwrap();
        drop(process);
        assert!(kill(pid, None).is_err(), "even a paused one is gone");
    }
}
