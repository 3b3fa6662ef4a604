//! A node in five lines: start, ask where a key goes, print it.
//!
//! `embed [ID] [ADDRESS] [SEED]`; without a seed it forms a cluster of its own.

use std::time::Duration;

use clusterkit::{ClusterKit, Options};

#[tokio::main]
#[allow(
    clippy::print_stdout,
    reason = "the answer is what this program is for"
)]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let id = args.next().unwrap_or_else(|| String::from("node-1"));
    let address = args
        .next()
        .unwrap_or_else(|| String::from("127.0.0.1:8080"));
    let data = std::env::temp_dir().join(format!("clusterkit-embed-{}", std::process::id()));
    let mut options = Options::new(id, address).data_dir(&data);
    if let Some(seed) = args.next() {
        options = options.join(seed);
    }

    let ck = ClusterKit::start(options).await?;
    ck.wait_ready(Duration::from_secs(10)).await?;
    let found = ck.locate(b"user:123")?;
    println!(
        "{} -> {} (epoch {})",
        found.partition, found.primary.id, found.epoch
    );
    ck.shutdown().await;

    std::fs::remove_dir_all(data)?;
    Ok(())
}
