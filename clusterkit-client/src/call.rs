//! One call: choose a node, try, and decide what a failure means, until the deadline.
//!
//! Policies decide ([`RoutingPolicy`](crate::RoutingPolicy), [`RetryPolicy`](crate::RetryPolicy));
//! this file acts. What no policy may decide stands here: nothing outlives the deadline, an answer
//! is final, and a call that is not idempotent is not repeated once it may have taken effect.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::id::PartitionId;
use clusterkit_core::topology::Topology;
use tokio::time::{Instant, timeout_at};

use crate::client::{CallDefaults, Client};
use crate::routing::RouteRequest;
use crate::shared::Wanted;
use crate::{
    CallError, CallFailure, CallOutcome, Decision, FailedAttempt, ReadFrom, Target, clock,
};

/// A call about one key, to be sent to the node that serves it.
///
/// Made by [`Client::call`]; nothing happens before [`send`](Self::send).
#[derive(Clone, Debug)]
#[must_use = "a call does nothing until it is sent"]
pub struct Call<'a> {
    client: &'a Client,
    partition: PartitionId,
    idempotent: bool,
    read_from: ReadFrom,
    deadline: Duration,
    attempt_timeout: Duration,
}

impl<'a> Call<'a> {
    pub(crate) const fn new(
        client: &'a Client,
        partition: PartitionId,
        defaults: CallDefaults,
    ) -> Self {
        Self {
            client,
            partition,
            idempotent: false,
            read_from: ReadFrom::Primary,
            deadline: defaults.deadline,
            attempt_timeout: defaults.attempt_timeout,
        }
    }

    /// Says whether carrying the call out twice is as good as once. Default: it is not.
    ///
    /// A call that is not idempotent ends with [`CallError::Unknown`] as soon as an attempt may
    /// have been carried out.
    pub const fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Sets how long the call may take, retries and pauses included. Default: the client's, 5 s.
    ///
    /// A deadline shorter than a failover (about 1.5 s with default detection) makes calls fail
    /// while one goes on.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how long one attempt of an idempotent call may take before the next node is tried.
    /// Default: the client's, 1 s. Other calls have one attempt as long as the deadline allows.
    pub const fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// Says who may answer. Default: the primary only.
    pub const fn read_from(mut self, read_from: ReadFrom) -> Self {
        self.read_from = read_from;
        self
    }

    /// Returns the partition of the key.
    #[must_use]
    pub const fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Sends the call: `attempt` is run for one target after the other until it succeeds, its error
    /// is final, or the deadline has passed.
    ///
    /// # Errors
    /// [`CallError`], whose variants say whether the call may have taken effect.
    ///
    /// # Cancel safety
    /// Dropping the future drops the running attempt: whether it took effect is then unknown.
    pub async fn send<F, Fut, T, E>(self, mut attempt: F) -> Result<T, CallError<E>>
    where
        F: FnMut(Target) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: CallFailure,
    {
        let count = self.client.topology().partition_count();
        if self.partition.value() >= count {
            return Err(CallError::NoSuchPartition {
                partition: self.partition,
                count,
            });
        }
        let mut run = Run::new(&self);
        let mut last_error = None;
        loop {
            let Some(target) = run.next_target() else {
                if run.pause(None).await {
                    continue;
                }
                return Err(run.end(last_error));
            };
            let failure = match timeout_at(run.attempt_until(), attempt(target.clone())).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            let outcome = failure
                .as_ref()
                .map_or(CallOutcome::Unknown, CallFailure::outcome);
            run.note(&target, outcome);
            if let Some(error) = failure {
                if outcome == CallOutcome::Fatal {
                    return Err(CallError::Refused {
                        node: target.id().clone(),
                        partition: self.partition,
                        source: error,
                    });
                }
                last_error = Some(error);
            } else {
                last_error = None;
            }
            if !run.go_on(&target, outcome).await {
                return Err(run.end(last_error));
            }
        }
    }
}

/// The progress of one call.
struct Run<'a> {
    call: &'a Call<'a>,
    started: Instant,
    deadline: Instant,
    /// Made when the first one is needed: most calls need none.
    pauses: Option<Box<dyn Iterator<Item = Duration> + Send>>,
    turn: u64,
    topology: Arc<Topology>,
    /// The candidates of this snapshot not tried yet, the next one last.
    candidates: Vec<Target>,
    last: Option<Target>,
    attempts: u32,
    moved_in_a_row: u32,
    maybe_applied: bool,
}

impl<'a> Run<'a> {
    fn new(call: &'a Call<'a>) -> Self {
        let client = call.client;
        let mut run = Self {
            call,
            started: clock::now(),
            deadline: clock::deadline(call.deadline),
            pauses: None,
            turn: client.next_turn(),
            topology: client.topology(),
            candidates: Vec::new(),
            last: None,
            attempts: 0,
            moved_in_a_row: 0,
            maybe_applied: false,
        };
        run.route();
        run
    }

    /// Chooses the candidates anew from the current snapshot.
    fn route(&mut self) {
        self.topology = self.call.client.topology();
        let request = RouteRequest::new(
            &self.topology,
            self.call.partition,
            self.call.read_from,
            self.turn,
        );
        let mut candidates = Vec::new();
        self.call.client.routing().route(&request, &mut candidates);
        self.candidates = candidates
            .into_iter()
            .rev()
            .filter_map(|candidate| {
                Target::of(
                    &self.topology,
                    candidate.node,
                    self.call.partition,
                    candidate.role,
                )
            })
            .collect();
    }

    fn next_target(&mut self) -> Option<Target> {
        if self.is_over() {
            return None;
        }
        self.candidates.pop()
    }

    fn attempt_until(&self) -> Instant {
        if self.call.idempotent {
            self.deadline
                .min(clock::deadline(self.call.attempt_timeout))
        } else {
            self.deadline
        }
    }

    fn note(&mut self, target: &Target, outcome: CallOutcome) {
        self.attempts += 1;
        self.last = Some(target.clone());
        match outcome {
            CallOutcome::Moved { .. } => self.moved_in_a_row += 1,
            CallOutcome::Unknown => {
                self.maybe_applied = true;
                self.moved_in_a_row = 0;
            }
            CallOutcome::Unavailable | CallOutcome::Fatal => self.moved_in_a_row = 0,
        }
        tracing::trace!(%target, ?outcome, attempt = self.attempts, "attempt failed");
    }

    /// Prepares the next attempt; false when there is to be none.
    async fn go_on(&mut self, target: &Target, outcome: CallOutcome) -> bool {
        if self.is_over() || (self.maybe_applied && !self.call.idempotent) {
            return false;
        }
        let failed = FailedAttempt {
            number: self.attempts,
            outcome,
            moved_in_a_row: self.moved_in_a_row,
            alternatives: self.candidates.len(),
            elapsed: clock::now().saturating_duration_since(self.started),
        };
        match self.call.client.retry().decide(&failed) {
            Decision::GiveUp => false,
            Decision::Next if !self.candidates.is_empty() => true,
            Decision::Next | Decision::Pause => {
                let hint = matches!(outcome, CallOutcome::Moved { .. });
                self.pause((!hint).then(|| target.address())).await
            }
            Decision::Refresh => {
                let epoch = match outcome {
                    CallOutcome::Moved { epoch } => epoch,
                    _ => None,
                };
                self.refresh(Wanted {
                    prefer: epoch.map(|_| target.address()),
                    avoid: None,
                    epoch,
                })
                .await;
                self.route();
                true
            }
        }
    }

    /// Waits, refreshes and routes again; false when the pauses or the time are used up.
    async fn pause(&mut self, avoid: Option<&str>) -> bool {
        let retry = self.call.client.retry();
        let Some(pause) = self.pauses.get_or_insert_with(|| retry.pauses()).next() else {
            return false;
        };
        let until = self.deadline.min(clock::deadline(pause));
        let rerouted = timeout_at(
            until,
            self.call
                .client
                .rerouted(&self.topology, self.call.partition),
        );
        if rerouted.await.is_err() && !self.is_over() {
            self.refresh(Wanted {
                avoid,
                ..Wanted::default()
            })
            .await;
        }
        self.route();
        !self.is_over()
    }

    /// Fetches a newer topology unless one has arrived meanwhile. A failure is no failure of the
    /// call: it goes on with what is known.
    async fn refresh(&mut self, wanted: Wanted<'_>) {
        let current = self.call.client.topology();
        let newer = current.epoch() > self.topology.epoch();
        if newer && wanted.epoch.is_none_or(|epoch| current.epoch() >= epoch) {
            return;
        }
        let until = self
            .deadline
            .min(clock::deadline(self.call.attempt_timeout));
        if let Ok(Err(failures)) = timeout_at(until, self.call.client.refresh_wanted(wanted)).await
        {
            tracing::debug!(nodes = failures.len(), "no node gave a topology");
        }
    }

    fn is_over(&self) -> bool {
        clock::now() >= self.deadline
    }

    fn end<E: CallFailure>(self, source: Option<E>) -> CallError<E> {
        let (partition, attempts) = (self.call.partition, self.attempts);
        let after = clock::now().saturating_duration_since(self.started);
        match self.last {
            Some(last) if self.maybe_applied => CallError::Unknown {
                node: last.id().clone(),
                partition,
                attempts,
                source,
            },
            Some(_) => CallError::Unserved {
                partition,
                after,
                attempts,
                source,
            },
            None => CallError::NoTarget {
                partition,
                epoch: self.topology.epoch(),
                after,
            },
        }
    }
}
