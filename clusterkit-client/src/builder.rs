//! How a client is set up, and its first contact with the cluster.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use clusterkit_core::config::ConfigError;
use tokio::time::sleep;

use crate::client::CallDefaults;
use crate::follow::{Rhythm, follow};
use crate::shared::{Shared, ask};
use crate::tasks::Follower;
use crate::{
    Client, ConnectError, DefaultRouting, ExponentialRetry, HttpSource, RetryPolicy, RoutingPolicy,
    SourceError, TopologySource, clock,
};

/// The most seeds.
const SEEDS_MAX: usize = 256;

/// Sets up a [`Client`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it connects"]
pub struct ClientBuilder {
    seeds: Vec<String>,
    source: Arc<dyn TopologySource>,
    routing: Arc<dyn RoutingPolicy>,
    retry: Arc<dyn RetryPolicy>,
    defaults: CallDefaults,
    rhythm: Rhythm,
    seeds_within: Duration,
}

impl ClientBuilder {
    /// Starts with the seeds, 1 to 256 addresses `host:port`, and defaults for everything else.
    pub fn new<S: Into<String>>(seeds: impl IntoIterator<Item = S>) -> Self {
        Self {
            seeds: seeds.into_iter().map(Into::into).collect(),
            source: Arc::new(HttpSource::default()),
            routing: Arc::new(DefaultRouting),
            retry: Arc::new(ExponentialRetry::default()),
            defaults: CallDefaults {
                deadline: Duration::from_secs(5),
                attempt_timeout: Duration::from_secs(1),
            },
            rhythm: Rhythm {
                poll: Duration::from_secs(2),
                verify: Duration::from_secs(30),
            },
            seeds_within: Duration::ZERO,
        }
    }

    /// Sets how long [`connect`](Self::connect) keeps asking seeds that do not answer. Default 0:
    /// every seed is asked once.
    pub const fn wait_for_seeds(mut self, within: Duration) -> Self {
        self.seeds_within = within;
        self
    }

    /// Sets the deadline of calls that name none. Default 5 s.
    pub const fn call_deadline(mut self, deadline: Duration) -> Self {
        self.defaults.deadline = deadline;
        self
    }

    /// Sets how long one attempt of an idempotent call may take. Default 1 s. Too short and slow
    /// answers are thrown away, too long and a hung node costs the whole deadline.
    pub const fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.defaults.attempt_timeout = timeout;
        self
    }

    /// Sets how often a node is asked that cannot be watched. Default 2 s; at least 10 ms.
    pub const fn poll_interval(mut self, interval: Duration) -> Self {
        self.rhythm.poll = interval;
        self
    }

    /// Sets how often a second node is asked beside the one watched, and how long a node is polled
    /// before it is tried to be watched again. Default 30 s; at least 10 ms.
    pub const fn verify_interval(mut self, interval: Duration) -> Self {
        self.rhythm.verify = interval;
        self
    }

    /// Sets where the topology comes from. Default: HTTP with the limits of
    /// [`HttpSourceLimits`](crate::HttpSourceLimits).
    pub fn source(mut self, source: impl TopologySource) -> Self {
        self.source = Arc::new(source);
        self
    }

    /// Sets how nodes are chosen. Default [`DefaultRouting`].
    pub fn routing(mut self, routing: impl RoutingPolicy) -> Self {
        self.routing = Arc::new(routing);
        self
    }

    /// Sets how failures are retried. Default [`ExponentialRetry`].
    pub fn retry(mut self, retry: impl RetryPolicy) -> Self {
        self.retry = Arc::new(retry);
        self
    }

    /// Fetches the topology from the first seed that answers and starts to follow it.
    ///
    /// Seeds are asked in order, a further one as soon as the one before has failed or taken
    /// 100 ms, so that a dead seed does not hold up the others.
    ///
    /// # Errors
    /// As [`Client::connect`].
    ///
    /// # Cancel safety
    /// Nothing is left behind when the future is dropped.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        self.validate()?;
        let until = clock::deadline(self.seeds_within);
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(20))
            .with_max_delay(Duration::from_millis(500))
            .with_jitter()
            .without_max_times()
            .build();
        let topology = loop {
            let mut failures = match ask(&*self.source, &self.seeds, None, |_| true).await {
                Ok(Some((_, topology))) => break topology,
                // A source that calls nothing "unchanged" is at fault; it has not answered.
                Ok(None) => Vec::new(),
                Err(failures) => failures,
            };
            if let Some(at) = failures
                .iter()
                .position(|failure| matches!(failure.error, SourceError::Incompatible { .. }))
            {
                let source = failures.swap_remove(at).error;
                return Err(ConnectError::Incompatible { source });
            }
            let pause = pauses.next().unwrap_or_default();
            if clock::now() + pause >= until {
                failures.sort_by_key(|failure| {
                    self.seeds.iter().position(|seed| *seed == failure.address)
                });
                return Err(ConnectError::NoSeedAnswered { failures });
            }
            sleep(pause).await;
        };
        let shared = Arc::new(Shared::new(topology, self.source, self.seeds));
        let follower = Follower::spawn(follow(Arc::clone(&shared), self.rhythm));
        Ok(Client::new(
            shared,
            self.routing,
            self.retry,
            self.defaults,
            follower,
        ))
    }

    fn validate(&self) -> Result<(), ConfigError> {
        if self.seeds.is_empty() || self.seeds.len() > SEEDS_MAX {
            let limit = format_args!("1 to {SEEDS_MAX} addresses");
            return Err(ConfigError::new("seeds", self.seeds.len(), limit));
        }
        for seed in &self.seeds {
            let port = seed.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(1..))) {
                return Err(ConfigError::new("seeds", seed, "host:port"));
            }
        }
        let at_least = |field, value: Duration, min: Duration| {
            if value >= min {
                Ok(())
            } else {
                let limit = format_args!("at least {min:?}");
                Err(ConfigError::new(field, format_args!("{value:?}"), limit))
            }
        };
        let brief = Duration::from_millis(10);
        at_least("poll_interval", self.rhythm.poll, brief)?;
        at_least("verify_interval", self.rhythm.verify, brief)?;
        at_least(
            "call_deadline",
            self.defaults.deadline,
            Duration::from_millis(1),
        )?;
        at_least(
            "attempt_timeout",
            self.defaults.attempt_timeout,
            Duration::from_millis(1),
        )
    }
}
