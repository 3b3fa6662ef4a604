//! A node of a replicated key-value service: serves until it is told to stop, then leaves.
//!
//! The service is in the library of this crate; `kv --help` lists the options.

use clap::Parser;
use clusterkit_examples::kv::{Args, KvNode};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,openraft=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let options = Args::parse().into_options()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let node = tokio::select! {
        started = KvNode::start(options) => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let cluster = node.cluster().clone();
    tracing::info!(node = %cluster.node_id(), http = cluster.address(), kv = node.address(), "started");
    tokio::select! {
        _ = terminate.recv() => tracing::info!("stopping"),
        _ = interrupt.recv() => tracing::info!("stopping"),
        () = cluster.left() => tracing::info!("no member any more, stopping"),
        () = node.failed() => {
            // It cannot hand over what it holds: the others take over from the copies they have.
            node.stop().await;
            anyhow::bail!("records cannot be written any more: see the error above, then start again");
        }
    }
    tokio::select! {
        () = node.shutdown() => tracing::info!("stopped"),
        _ = terminate.recv() => tracing::warn!("stopped before it had left"),
        _ = interrupt.recv() => tracing::warn!("stopped before it had left"),
    }
    Ok(())
}
