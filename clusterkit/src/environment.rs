//! What a node takes from the machine it runs on, so that it can run on something else.
//!
//! Files are the matter of [`crate::disk`].

use std::fmt::Debug;
use std::sync::Arc;

use clusterkit_http::net::{Network, TcpNetwork};
use clusterkit_raft::Execution;

use crate::clock::{Clock, SystemClock};

/// Network, clock, chance and threads of a node. The default is the operating system's.
///
/// A simulation replaces all four; a test may replace one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Environment {
    /// What connections are made over.
    pub network: Arc<dyn Network>,
    /// What tells the time. Time limits follow the timers of the async runtime besides.
    pub clock: Arc<dyn Clock>,
    /// Where identities come from.
    pub entropy: Arc<dyn Entropy>,
    /// Where work that blocks is done.
    pub execution: Execution,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            network: TcpNetwork::shared(),
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(SystemEntropy),
            execution: Execution::Threads,
        }
    }
}

/// A source of identities.
pub trait Entropy: Debug + Send + Sync + 'static {
    /// Returns 16 bytes that nothing else in the world was given.
    fn id(&self) -> [u8; 16];
}

/// The chance of the operating system.
#[derive(Debug)]
struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn id(&self) -> [u8; 16] {
        uuid::Uuid::new_v4().into_bytes()
    }
}

/// The clock of a node as its control plane reads it.
#[derive(Debug)]
pub(crate) struct WallOf(pub(crate) Arc<dyn Clock>);

impl clusterkit_raft::WallClock for WallOf {
    fn wall(&self) -> clusterkit_core::time::UnixMillis {
        self.0.wall()
    }
}
