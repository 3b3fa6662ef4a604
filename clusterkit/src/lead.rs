//! The leader's loop: what the coordinator decides is proposed, one thing after the other.
//!
//! Runs on every node and idles while another one leads. The decisions are
//! `clusterkit_core::coordinator`'s.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clusterkit_core::command::{Applied, Command};
use clusterkit_core::control::{ControlPlane, ProposeError, View};
use clusterkit_core::coordinator::PlanRequest;
use clusterkit_core::id::RaftId;
use clusterkit_core::placement::Placement;

use crate::error::NodeError;
use crate::inner::{Inner, Phase};

/// How long to wait before deciding again about what was just refused or failed.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// For how many leases a leader that is to give way tries to, before it decides again.
const YIELD_LEASES: u32 = 2;

/// Decides and proposes until the node stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    tokio::select! {
        () = lead(&inner) => {}
        reason = inner.member_control().failed() => {
            tracing::error!(%reason, "the control plane of this node has failed: it serves no more");
            inner.set_phase(Phase::Stopped);
        }
        () = inner.stop.cancelled() => {}
    }
}

async fn lead(inner: &Inner) {
    let control = inner.member_control();
    let mut protected = false;
    let mut led = None;
    let mut vouched = Vec::new();
    loop {
        let view = control.view();
        let (now, wall) = (inner.clock.now(), inner.clock.wall());
        let leading = inner.raft_id().filter(|_| view.leadership.is_leader);
        if led != leading.map(|_| view.leadership.term) {
            led = leading.map(|_| view.leadership.term);
            match led {
                Some(term) => tracing::info!(term, "leads the cluster"),
                None => tracing::info!("leads the cluster no more"),
            }
        }
        let decision = {
            let mut coordinator = inner.coordinator();
            coordinator.handle_leadership(leading, view.leadership.term, now);
            coordinator.decide(&view.state, now, wall)
        };
        if protected != decision.protected {
            protected = decision.protected;
            if protected {
                tracing::warn!("protected: so many nodes are down that no data is copied");
            } else {
                tracing::info!("protected mode has ended: data is copied again");
            }
        }
        if vouched != decision.vouched {
            vouched.clone_from(&decision.vouched);
            let nodes = names(&view, &vouched);
            if !vouched.is_empty() {
                tracing::warn!(
                    nodes,
                    "not heard here, and seen by others: not declared down"
                );
            } else if leading.is_some() {
                tracing::info!("nobody is missed here any more whom others see");
            }
        }
        let mut commands = decision.commands;
        if let Some(request) = decision.plan {
            match inner.compute(request).await {
                Ok((request, placement)) => {
                    commands.push(request.command(&placement, wall));
                }
                Err(error) => tracing::error!(%error, "no plan could be made"),
            }
        }
        let acted = !commands.is_empty() || !decision.yield_to.is_empty();
        let mut content = true;
        for command in commands {
            if let Command::MarkDown { nodes, .. } = &command {
                let nodes = names(&view, nodes);
                tracing::warn!(nodes, "silent for too long: declared down");
                if !decision.overruled.is_empty() {
                    let nodes = names(&view, &decision.overruled);
                    let limit = inner.settings.timing.detector.vouched_limit;
                    tracing::warn!(
                        nodes,
                        ?limit,
                        "others still see it, but nobody who leads has heard it for the limit"
                    );
                }
            }
            content &= inner.carry(command).await;
        }
        if !decision.yield_to.is_empty() {
            inner.yield_to(&decision.yield_to).await;
        }
        if !content {
            tokio::time::sleep(RETRY_PAUSE).await;
        } else if !acted {
            let wait = decision.next.saturating_since(inner.clock.now());
            let wait = wait.min(Duration::from_secs(60));
            tokio::select! {
                _ = control.changed(view.version) => {}
                () = inner.heard.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

fn names(view: &View, nodes: &[RaftId]) -> String {
    let nodes = nodes.iter().filter_map(|id| view.state.node(*id));
    let names: Vec<&str> = nodes.map(|node| node.id.as_str()).collect();
    names.join(", ")
}

impl Inner {
    /// Lets somebody lead who hears more of the others.
    async fn yield_to(&self, heirs: &[RaftId]) {
        tracing::warn!(
            to = names(&self.view(), heirs),
            "gives way to a leader that hears who is not heard here"
        );
        let limit = self.settings.timing.leases.wait() * YIELD_LEASES;
        let handed = self.member_control().transfer_leadership_to(heirs);
        match tokio::time::timeout(limit, handed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "nobody else took the lead"),
            Err(_) => tracing::warn!(?limit, "nobody else took the lead in time"),
        }
    }

    /// Proposes a decision. Returns whether all of it was done.
    async fn carry(&self, command: Command) -> bool {
        match self.member_control().propose(command).await {
            Ok(Applied { refused, .. }) if refused.is_empty() => true,
            Ok(applied) => {
                tracing::debug!(refused = ?applied.refused, "some stages were not open any more");
                false
            }
            Err(ProposeError::Rejected(rejected)) => {
                tracing::debug!(%rejected, "a decision was overtaken");
                false
            }
            Err(error) => {
                tracing::debug!(%error, "a decision did not reach the log");
                false
            }
        }
    }

    /// Runs the placement strategy on a thread of its own.
    pub(crate) async fn compute(
        &self,
        request: PlanRequest,
    ) -> Result<(PlanRequest, Placement), NodeError> {
        let strategy = Arc::clone(&self.settings.strategy);
        let computed = self.settings.environment.execution.run(move || {
            let placement = request.compute(&*strategy);
            (request, placement)
        });
        let (request, placement) = match computed.await {
            Ok((request, Ok(placement))) => (request, placement),
            Ok((_, Err(error))) => {
                return Err(NodeError::Placement {
                    reason: error.to_string(),
                });
            }
            Err(panicked) => return Err(NodeError::Placement { reason: panicked }),
        };
        let (placement, refuted) = placement;
        if let Some(error) = refuted {
            tracing::error!(%error, "a placement was refuted: the systematic layout is used");
        } else if placement.flags.fallback {
            tracing::error!("the placement search gave up: the systematic layout is used");
        }
        if placement.flags.fallback {
            self.fallbacks.fetch_add(1, Ordering::Relaxed);
        }
        Ok((request, placement))
    }
}
