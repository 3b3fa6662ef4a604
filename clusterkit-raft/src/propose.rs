//! Proposing and reading: on the leader directly, elsewhere by asking the leader.
//!
//! The rule throughout: a command is handed over again only when it certainly was not taken. What
//! may have been taken and brought no answer is reported as unknown.

use std::time::Duration;

use clusterkit_core::command::{Applied, Command, Rejected};
use clusterkit_core::control::ProposeError;
use clusterkit_core::id::RaftId;
use clusterkit_core::planted::{self, Bug};
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::control_plane::Local;
use crate::options::COMMAND_MAX_BYTES;
use crate::peers::CallError;
use crate::transport::RpcKind;
use crate::types::CommandBytes;
use crate::{clock, codec};

/// How long to wait before looking again for a leader.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// What a member answers to a forwarded command.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ProposeAnswer {
    /// The command was applied, or refused by the state machine.
    Done(Result<Applied, Rejected>),
    /// The command was not taken.
    NotLeader,
    /// The command was taken, and what became of it is not known.
    Unknown(String),
}

/// What a member answers when asked how far a current read must have applied.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ReadAnswer {
    /// Up to here.
    Index(u64),
    /// It does not lead, or cannot confirm that it does.
    NotLeader(String),
}

impl Local {
    pub(crate) async fn propose(&self, command: &Command) -> Result<Applied, ProposeError> {
        let stopped = |reason: String| ProposeError::Stopped { reason };
        let bytes = codec::encode("command", command).map_err(|e| stopped(e.to_string()))?;
        if bytes.len() > COMMAND_MAX_BYTES {
            return Err(ProposeError::TooLarge {
                size_bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
                limit_bytes: u64::try_from(COMMAND_MAX_BYTES).unwrap_or(u64::MAX),
            });
        }
        let command = CommandBytes(bytes.into());
        let deadline = clock::now() + self.options.propose_timeout;
        let mut obstacle = String::from("no leader is known");
        loop {
            if let Some(reason) = self.stop_reason() {
                return Err(stopped(reason));
            }
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return Err(ProposeError::NoLeader { reason: obstacle });
            }
            let answer = match self.leader() {
                Some(leader) if leader == self.options.raft_id => {
                    self.propose_here(command.clone(), left).await
                }
                Some(leader) => match self.forward(leader, &command, left).await {
                    Ok(answer) => answer,
                    Err(not_taken) => {
                        obstacle = not_taken;
                        ProposeAnswer::NotLeader
                    }
                },
                None => ProposeAnswer::NotLeader,
            };
            match answer {
                ProposeAnswer::Done(Ok(applied)) => {
                    // So that the proposer finds its write in this node's view.
                    self.wait_applied(applied.index.0, deadline).await;
                    return Ok(applied);
                }
                ProposeAnswer::Done(Err(rejected)) => return Err(ProposeError::Rejected(rejected)),
                ProposeAnswer::Unknown(reason) => return Err(ProposeError::Unknown { reason }),
                ProposeAnswer::NotLeader => {
                    tokio::time::sleep_until(deadline.min(clock::now() + RETRY_PAUSE)).await;
                }
            }
        }
    }

    /// Writes `command` into the log if this member leads.
    pub(crate) async fn propose_here(
        &self,
        command: CommandBytes,
        limit: Duration,
    ) -> ProposeAnswer {
        let written = tokio::time::timeout(limit, self.raft.client_write(command)).await;
        match written {
            Err(_) => ProposeAnswer::Unknown(format!("not committed within {limit:?}")),
            Ok(Ok(response)) => match response.data.0 {
                Some(result) => ProposeAnswer::Done(result),
                None => ProposeAnswer::Unknown(String::from("the entry was not a command")),
            },
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                ProposeAnswer::NotLeader
            }
            Ok(Err(error)) => ProposeAnswer::Unknown(error.to_string()),
        }
    }

    /// Hands `command` to `leader`; the error says why it certainly was not taken.
    async fn forward(
        &self,
        leader: RaftId,
        command: &CommandBytes,
        limit: Duration,
    ) -> Result<ProposeAnswer, String> {
        let address = self.known_address(leader);
        let called = self
            .peers
            .call(leader, address.as_deref(), RpcKind::Propose, command, limit);
        match called.await {
            Ok(ProposeAnswer::NotLeader) => Err(format!("member {leader} does not lead")),
            Ok(answer) => Ok(answer),
            Err(CallError::Transport(error)) if error.is_harmless() => Err(error.to_string()),
            Err(error) => Ok(ProposeAnswer::Unknown(error.to_string())),
        }
    }

    pub(crate) async fn read_barrier(&self) -> Result<(), ProposeError> {
        if planted::is_on(Bug::StaleRead) {
            return Ok(());
        }
        let deadline = clock::now() + self.options.propose_timeout;
        let mut obstacle = String::from("no leader is known");
        loop {
            if let Some(reason) = self.stop_reason() {
                return Err(ProposeError::Stopped { reason });
            }
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return Err(ProposeError::NoLeader { reason: obstacle });
            }
            let answer = match self.leader() {
                Some(leader) if leader == self.options.raft_id => {
                    self.read_index_within(left).await
                }
                Some(leader) => {
                    let address = self.known_address(leader);
                    let limit = left.min(self.options.rpc_timeout);
                    self.peers
                        .call(leader, address.as_deref(), RpcKind::ReadBarrier, &(), limit)
                        .await
                        .unwrap_or_else(|error| ReadAnswer::NotLeader(error.to_string()))
                }
                None => ReadAnswer::NotLeader(String::from("no leader is known")),
            };
            match answer {
                ReadAnswer::Index(index) => {
                    if self.wait_applied(index, deadline).await {
                        return Ok(());
                    }
                    obstacle = format!("log entry {index} is not applied here yet");
                }
                ReadAnswer::NotLeader(reason) => {
                    obstacle = reason;
                    tokio::time::sleep_until(deadline.min(clock::now() + RETRY_PAUSE)).await;
                }
            }
        }
    }

    /// Returns how far a current read must have applied, if this member confirms that it leads.
    pub(crate) async fn read_index_within(&self, limit: Duration) -> ReadAnswer {
        let confirmed = self.raft.get_read_log_id(ReadPolicy::ReadIndex);
        match tokio::time::timeout(limit, confirmed).await {
            Ok(Ok((read, _))) => ReadAnswer::Index(read.log_id().index()),
            Ok(Err(error)) => ReadAnswer::NotLeader(error.to_string()),
            Err(_) => ReadAnswer::NotLeader(format!("leadership not confirmed within {limit:?}")),
        }
    }

    /// Returns who leads as far as Raft knows; sooner than the view tells.
    pub(crate) fn leader(&self) -> Option<RaftId> {
        let metrics = self.raft.metrics();
        let leader = metrics.borrow_watched().current_leader;
        leader.map(RaftId)
    }

    /// Waits until the view has applied `index`; tells whether it has by `deadline`.
    pub(crate) async fn wait_applied(&self, index: u64, deadline: Instant) -> bool {
        let mut views = self.view.subscribe();
        let applied = views.wait_for(|view| view.applied.0 >= index);
        matches!(tokio::time::timeout_at(deadline, applied).await, Ok(Ok(_)))
    }

    fn known_address(&self, member: RaftId) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let node = metrics.membership_config.get_node(&member.0);
        node.map(|node| node.addr.clone())
    }

    fn stop_reason(&self) -> Option<String> {
        if let Some(reason) = self.failure() {
            return Some(reason);
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics
            .running_state
            .as_ref()
            .err()
            .map(ToString::to_string)
    }
}
