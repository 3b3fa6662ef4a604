//! Tests of the harness with shell scripts in place of nodes.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A cluster whose program is a shell script.
fn cluster_of(script: &str) -> (TempDir, Cluster) {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source");
    std::fs::write(&source, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&source, PermissionsExt::from_mode(0o755)).unwrap();
    // Copied by another process: a file this one had open for writing may still be open in a
    // child of another test, and then cannot be executed.
    let program = directory.path().join("program");
    let mut copy = std::process::Command::new("cp");
    assert!(
        copy.arg("-p")
            .args([&source, &program])
            .status()
            .unwrap()
            .success()
    );
    let manner = Manner {
        store: Store::Memory,
        profile: manner::Profile::Lan,
        partitions: None,
    };
    let mut cluster = Cluster::new(&program, manner).unwrap();
    cluster.add("node-1").unwrap();
    (directory, cluster)
}

#[tokio::test]
async fn a_process_that_ends_by_itself_is_reported_with_its_log() {
    let (_directory, mut cluster) = cluster_of("echo cannot open $DATA_DIR; exit 3");
    cluster.start("node-1", &[]).unwrap();
    let never = async |_: &Cluster| bail!("not yet");
    let waited = cluster
        .wait_until("the end", Duration::from_secs(20), never)
        .await;
    let error = format!("{:#}", waited.unwrap_err());
    assert!(
        error.contains("node-1 ended by itself (exit status: 3)"),
        "{error}"
    );
    assert!(error.contains("| cannot open "), "{error}");
}

#[tokio::test]
async fn a_wait_ends_with_what_was_missing() {
    let (_directory, mut cluster) = cluster_of("exec sleep 60");
    cluster
        .start("node-1", &["127.0.0.1:1".to_owned()])
        .unwrap();
    let never = async |_: &Cluster| bail!("partition 3 has no primary");
    let waited = cluster
        .wait_until("a map", Duration::from_millis(50), never)
        .await;
    let error = format!("{:#}", waited.unwrap_err());
    assert_eq!(error, "waited 50ms for a map: partition 3 has no primary");
}

#[tokio::test]
async fn sigterm_lets_a_process_end_by_itself() {
    let (_directory, mut cluster) = cluster_of("trap 'exit 0' TERM; while :; do sleep 0.05; done");
    cluster.start("node-1", &[]).unwrap();
    assert_eq!(cluster.up(), ["node-1"]);
    assert!(
        cluster
            .wipe("node-1")
            .unwrap_err()
            .to_string()
            .contains("is running")
    );
    // Until the shell has read its first line it would just be ended by the signal.
    let trap = async |cluster: &Cluster| {
        let pid = cluster.member("node-1")?.pid().context("not running")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.context("no mask")?.trim(), 16)?;
        anyhow::ensure!(caught & (1 << 14) != 0, "SIGTERM is not caught yet");
        Ok(())
    };
    cluster
        .wait_until("the trap", Duration::from_secs(20), trap)
        .await
        .unwrap();
    cluster
        .stop("node-1", Duration::from_secs(20))
        .await
        .unwrap();
    assert!(cluster.up().is_empty());
}

#[test]
fn logs_are_kept_only_when_asked() {
    let (_directory, mut cluster) = cluster_of("exit 0");
    let kept = cluster.keep_directory();
    drop(cluster);
    assert!(kept.exists());
    std::fs::remove_dir_all(&kept).unwrap();
    let (_directory, cluster) = cluster_of("exit 0");
    let dropped = cluster.directory().to_owned();
    drop(cluster);
    assert!(!dropped.exists());
}

#[tokio::test]
async fn a_panic_in_a_log_is_found() {
    let (_directory, mut cluster) =
        cluster_of("echo \"thread 'main' panicked at src/a.rs:1:\"; exec sleep 60");
    assert!(cluster.check_no_panic().is_ok());
    cluster.start("node-1", &[]).unwrap();
    let panicked = async |cluster: &Cluster| {
        anyhow::ensure!(cluster.check_no_panic().is_err(), "the log is empty");
        Ok(())
    };
    cluster
        .wait_until("the panic", Duration::from_secs(20), panicked)
        .await
        .unwrap();
    let error = cluster.check_no_panic().unwrap_err().to_string();
    assert_eq!(
        error,
        "node-1 panicked: thread 'main' panicked at src/a.rs:1:"
    );
}
