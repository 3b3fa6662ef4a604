//! Hooks of a process that is killed in the middle of one: each is delivered again, in order.
//!
//! The process is this test once more, told by its environment to be the node.

use std::fs::{self, File, OpenOptions};
use std::future::pending;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use clusterkit::{ClusterKit, Hooks};

use crate::support::{Nodes, is_settled, options, wait_until};

/// The directory of the node to be; what it notes stands in `notes` there.
const DIR: &str = "CLUSTERKIT_TEST_KILLED_DIR";
const SEED: &str = "CLUSTERKIT_TEST_KILLED_SEED";
/// The stage in which the hook about partition 0 never ends.
const HANGS_IN: &str = "CLUSTERKIT_TEST_KILLED_HANGS_IN";

/// A node in a process of its own. Dropping it is `kill -9`.
struct Process(Child);

impl Process {
    fn start(dir: &Path, seed: &str, hangs_in: &str) -> Self {
        let this = std::env::current_exe().unwrap();
        let test = "killed::a_hook_interrupted_by_kill_9_is_delivered_again_and_in_order";
        let log = File::create(dir.join("log")).unwrap();
        let child = Command::new(this)
            .args(["--exact", test, "--nocapture"])
            .env(DIR, dir)
            .env(SEED, seed)
            .env(HANGS_IN, hangs_in)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Runs the node until the parent is gone.
async fn run_node(dir: &Path) {
    let mut notes = OpenOptions::new();
    notes.append(true).create(true);
    let notes = notes.open(dir.join("notes")).unwrap();
    let hangs_in = std::env::var(HANGS_IN).unwrap();
    let note = move |line: String| (&notes).write_all(line.as_bytes());
    note(String::from("start\n")).unwrap();
    let note = std::sync::Arc::new(note);
    let hooks = Hooks::new().on_partition_change(move |change| {
        let note = std::sync::Arc::clone(&note);
        let stage = format!("{:?}", change.stage);
        let hangs = change.partition.0 == 0 && stage == hangs_in;
        async move {
            if change.local {
                let what = format!("{} {stage} {}", change.partition, change.stage_id);
                note(format!("begin {what}\n"))?;
                if hangs {
                    pending::<()>().await;
                }
                note(format!("end {what}\n"))?;
            }
            Ok(())
        }
    });
    let options = options("node-2", &dir.join("data"));
    let options = options.join(std::env::var(SEED).unwrap()).hooks(hooks);
    let node = ClusterKit::start(options).await.unwrap();
    // Ends when the parent does.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    node.stop().await;
}

/// What was noted since the node started for the `run`th time.
fn noted(dir: &Path, run: usize) -> Vec<String> {
    let notes = fs::read_to_string(dir.join("notes")).unwrap_or_default();
    let run = notes.split("start\n").nth(run).unwrap_or_default();
    run.lines().map(ToOwned::to_owned).collect()
}

/// Returns the first line noted in `run` that begins with `start`.
async fn first(dir: &Path, run: usize, start: &str) -> String {
    let found = || noted(dir, run).into_iter().find(|it| it.starts_with(start));
    wait_until(start, || found().is_some()).await;
    found().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_interrupted_by_kill_9_is_delivered_again_and_in_order() {
    if let Some(dir) = std::env::var_os(DIR) {
        return run_node(Path::new(&dir)).await;
    }
    let cluster = Nodes::form(1, 2).await;
    let one = &cluster.nodes[0];
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();

    // Killed in the middle of a copy: it is asked for again, at first under the old stage perhaps,
    // for as long as the cluster has not heard of the new process.
    let process = Process::start(dir, one.address(), "Syncing");
    first(dir, 1, "begin 0 Syncing").await;
    first(dir, 1, "end 1 Syncing").await;
    drop(process);
    let process = Process::start(dir, one.address(), "Switched");
    first(dir, 2, "begin 0 Syncing").await;

    // Killed in the middle of another hook, long enough after that the cursor is on the disk. The
    // other partition is not held up.
    let switched = first(dir, 2, "begin 0 Switched").await;
    first(dir, 2, "end 1 S").await;
    let cursor = dir.join("data").join("hooks.cursor");
    wait_until("the cursor is written down", || cursor.exists()).await;
    drop(process);
    let process = Process::start(dir, one.address(), "");
    let ended = switched.replace("begin", "end");
    assert_eq!(first(dir, 3, &ended).await, ended, "the very same stage");
    wait_until("node-2 holds everything", || is_settled(one, 2)).await;
    let lines = noted(dir, 3);
    let of_0: Vec<&String> = lines.iter().filter(|it| it.contains(" 0 ")).collect();
    assert!(of_0.contains(&&switched), "{lines:?}");
    let stage = |line: &String| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    assert!(of_0.is_sorted_by_key(|line| stage(line)), "{lines:?}");
    // One at a time: a call ends before the next one begins.
    for pair in of_0.windows(2).filter(|pair| pair[1].starts_with("end")) {
        assert_eq!(pair[0].replace("begin", "end"), *pair[1], "{lines:?}");
    }
    drop(process);
    cluster.stop().await;
}
