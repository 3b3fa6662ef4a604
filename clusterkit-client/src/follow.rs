//! The follower: keeps a client's topology current, whatever happens to single nodes.
//!
//! It watches one node and moves to another when that fails; a node that cannot be watched is
//! polled. Now and then it asks a second node, so that a node which was removed without noticing
//! cannot hold it to an old map.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::sleep;

use crate::clock;
use crate::shared::{Shared, Wanted};
use crate::{SourceError, TopologyFeed};

/// The rhythm of the follower.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rhythm {
    /// Between two polls of a node that cannot be watched.
    pub(crate) poll: Duration,
    /// Between two questions to another node while one is watched; also how long a node is polled
    /// before watching is tried again.
    pub(crate) verify: Duration,
}

/// How long a watch must have lasted to count as one.
const WORTH: Duration = Duration::from_secs(1);

/// Follows until dropped.
pub(crate) async fn follow(shared: Arc<Shared>, rhythm: Rhythm) {
    let pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times();
    let mut left: Option<String> = None;
    let mut pause = pauses.build();
    loop {
        let wanted = Wanted {
            avoid: left.as_deref(),
            ..Wanted::default()
        };
        let mut followed = false;
        for address in shared.addresses(wanted) {
            if follow_one(&shared, &address, rhythm).await {
                left = Some(address);
                followed = true;
                break;
            }
        }
        if followed {
            pause = pauses.build();
        } else {
            sleep(pause.next().unwrap_or(rhythm.verify)).await;
        }
    }
}

/// Follows the node at `address` until it fails; tells whether it was followed at all.
async fn follow_one(shared: &Shared, address: &str, rhythm: Rhythm) -> bool {
    match shared.source().watch(address, shared.topology()).await {
        Ok(feed) => {
            tracing::debug!(address, "watching this node");
            let began = clock::now();
            let error = watch(shared, address, feed, rhythm).await;
            tracing::debug!(address, %error, "watching another node from now on");
            // A watch that breaks at once is none: the next one waits its turn.
            began.elapsed() >= WORTH
        }
        Err(SourceError::Unsupported { message, .. }) => {
            tracing::debug!(address, message, "polling this node, it cannot be watched");
            poll(shared, address, rhythm).await
        }
        Err(error) => {
            tracing::debug!(address, %error, "this node cannot be watched");
            false
        }
    }
}

async fn watch(
    shared: &Shared,
    address: &str,
    mut feed: Box<dyn TopologyFeed>,
    rhythm: Rhythm,
) -> SourceError {
    let mut verify_at = clock::deadline(rhythm.verify);
    loop {
        tokio::select! {
            next = feed.next() => match next {
                Ok(topology) => {
                    if let Err(error) = shared.publish(&topology, address) {
                        return error;
                    }
                }
                Err(error) => return error,
            },
            () = tokio::time::sleep_until(verify_at) => {
                verify_at = clock::deadline(rhythm.verify);
                if fell_behind(shared, address).await {
                    return SourceError::Unavailable {
                        address: address.to_owned(),
                        message: "it did not report a change that another node knows".to_owned(),
                    };
                }
            }
        }
    }
}

/// Asks another node, and tells whether it knew of a change that the watched one had time to tell.
async fn fell_behind(shared: &Shared, address: &str) -> bool {
    let before = shared.topology().epoch();
    let wanted = Wanted {
        avoid: Some(address),
        ..Wanted::default()
    };
    match shared.refresh(wanted).await {
        Ok(topology) => topology.epoch() > before,
        Err(_) => false,
    }
}

/// Polls for one round of `verify`; tells whether the node answered at least once.
async fn poll(shared: &Shared, address: &str, rhythm: Rhythm) -> bool {
    let until = clock::deadline(rhythm.verify);
    let mut answered = false;
    loop {
        let known = shared.topology();
        match shared.source().fetch(address, Some(&known)).await {
            Ok(None) => {}
            Ok(Some(topology)) => {
                if shared.publish(&topology, address).is_err() {
                    return answered;
                }
            }
            Err(error) => {
                tracing::debug!(address, %error, "polling another node from now on");
                return answered;
            }
        }
        answered = true;
        if clock::now() >= until {
            return true;
        }
        sleep(rhythm.poll).await;
    }
}
