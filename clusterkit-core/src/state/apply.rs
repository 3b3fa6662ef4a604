//! Carrying out commands: the dispatch, formation, configuration and custom data.
//!
//! Membership commands are in `members.rs`, moves of partitions in `moves.rs`.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;

use super::change::Change;
use super::{ClusterState, DataEntry};
use crate::command::{Applied, Command, Expected, Rejected};
use crate::config::{
    ClusterConfig, ConfigChange, ConfigError, DATA_KEY_MAX_BYTES, DATA_KEYS_MAX,
    DATA_VALUE_MAX_BYTES,
};
use crate::event::EventKind;
use crate::id::{ClusterId, LogIndex, RaftId};
use crate::node::{Node, NodeSpec, NodeStatus};
use crate::partition::Partition;
use crate::time::UnixMillis;

impl ClusterState {
    /// Applies the command at log index `at`.
    ///
    /// Deterministic and total: the answer and the state afterwards depend on the state and the
    /// arguments alone.
    ///
    /// # Errors
    /// [`Rejected`] when the command cannot be carried out; nothing but [`Self::applied`] changed.
    pub fn apply(&mut self, at: LogIndex, command: &Command) -> Result<Applied, Rejected> {
        let applied = self.carry_out(at, command);
        self.applied = at;
        applied
    }

    fn carry_out(&mut self, index: LogIndex, command: &Command) -> Result<Applied, Rejected> {
        if let Command::Bootstrap {
            cluster,
            config,
            node,
            at,
        } = command
        {
            return self.bootstrap(index, *cluster, config, node, *at);
        }
        if self.cluster.is_none() {
            return Err(Rejected::NotFormed);
        }
        let mut change = Change::new(self, index, command_time(command));
        match command {
            Command::Bootstrap { .. } => {}
            Command::Join { node, replaces, .. } => self.join(node, *replaces, &mut change)?,
            Command::Announce { node, spec, .. } => self.announce(*node, spec, &mut change)?,
            Command::Activate { node, .. } => self.activate(*node, &mut change)?,
            Command::UpdateNode {
                node, weight, zone, ..
            } => {
                self.update_node(*node, *weight, zone.as_ref(), &mut change)?;
            }
            Command::MarkDown {
                nodes, promotions, ..
            } => {
                self.mark_down(nodes, promotions, &mut change);
            }
            Command::MarkUp { nodes, .. } => self.mark_up(nodes, &mut change),
            Command::Evict { nodes, .. } => self.evict(nodes, &mut change),
            Command::Drain {
                node, on, leave, ..
            } => {
                self.drain(*node, *on, *leave, &mut change)?;
            }
            Command::Remove {
                node,
                reason,
                force,
                ..
            } => {
                self.remove(*node, *reason, *force, &mut change)?;
            }
            Command::UpdateConfig {
                change: settings, ..
            } => {
                self.update_config(*settings, &mut change)?;
            }
            Command::Plan {
                base,
                trigger,
                trigger_node,
                basis,
                targets,
                ..
            } => {
                self.accept_plan(
                    *base,
                    (*trigger, *trigger_node, *basis),
                    targets,
                    &mut change,
                )?;
            }
            Command::StartMoves { plan, moves, .. } => {
                self.start_moves(*plan, moves, &mut change)?;
            }
            Command::Synced { node, stages, .. } => self.synced(*node, stages, &mut change),
            Command::Switch { stages, .. } => self.switch(stages, &mut change),
            Command::Revert { stages, .. } => self.revert(stages, &mut change),
            Command::Released { node, stages } => self.released(*node, stages, &mut change),
            Command::SetData {
                key,
                value,
                expected,
            } => {
                self.set_data(key, value, *expected, &change)?;
            }
            Command::DeleteData { key, expected } => self.delete_data(key, *expected)?,
            Command::Pause {
                work, on, reason, ..
            } => {
                self.set_pause(*work, *on, reason, &change)?;
            }
            Command::SetHealth {
                node,
                incarnation,
                report,
                heirs,
                ..
            } => {
                self.set_health(*node, *incarnation, report, heirs, &mut change)?;
            }
            Command::SetIntent {
                node,
                intent,
                force,
                heirs,
                ..
            } => {
                self.set_intent(*node, *intent, *force, heirs, &mut change)?;
            }
            Command::ExpireIntents { .. } => self.expire_intents(&change),
            Command::Abandon { stages, .. } => self.abandon_cleanup(stages, &mut change),
            Command::CancelPlan { plan, .. } => self.cancel_plan(*plan, &mut change)?,
        }
        if change.published {
            // Somebody older may have left, or started again as a newer build.
            self.raise_feature_level();
        }
        Ok(change.finish(self))
    }

    fn bootstrap(
        &mut self,
        index: LogIndex,
        cluster: ClusterId,
        config: &ClusterConfig,
        spec: &NodeSpec,
        at: UnixMillis,
    ) -> Result<Applied, Rejected> {
        if let Some(cluster) = self.cluster {
            return Err(Rejected::AlreadyFormed { cluster });
        }
        config.validate().map_err(Rejected::Invalid)?;
        spec.validate().map_err(Rejected::Invalid)?;
        self.cluster = Some(cluster);
        self.config = config.clone();
        self.feature_level = spec.feature_level;
        self.partitions = Arc::new(vec![Partition::default(); config.partition_count as usize]);
        let mut change = Change::new(self, index, at);
        let mut node = Node::new(RaftId::BOOTSTRAP, spec.clone(), at);
        node.status = NodeStatus::Active;
        self.nodes.insert(node.raft_id, Arc::new(node));
        change.node = Some(RaftId::BOOTSTRAP);
        change.published = true;
        change.emit(EventKind::NodeJoined {
            node: RaftId::BOOTSTRAP,
            cluster_size: 1,
            is_bootstrap: true,
        });
        Ok(change.finish(self))
    }

    fn update_config(
        &mut self,
        settings: ConfigChange,
        change: &mut Change,
    ) -> Result<(), Rejected> {
        let config = settings.apply_to(&self.config).map_err(Rejected::Invalid)?;
        // The other settings are not part of the published topology.
        change.published = config.replication_factor != self.config.replication_factor;
        self.config = config;
        Ok(())
    }

    fn set_data(
        &mut self,
        key: &String,
        value: &Arc<[u8]>,
        expected: Expected,
        change: &Change,
    ) -> Result<(), Rejected> {
        if key.is_empty() || key.len() > DATA_KEY_MAX_BYTES {
            let limit = format_args!("1 to {DATA_KEY_MAX_BYTES} bytes");
            return Err(Rejected::Invalid(ConfigError::new("data key", key, limit)));
        }
        if value.len() > DATA_VALUE_MAX_BYTES {
            let limit = format_args!("at most {DATA_VALUE_MAX_BYTES} bytes");
            let given = format_args!("{} bytes", value.len());
            return Err(Rejected::Invalid(ConfigError::new(
                "data value",
                given,
                limit,
            )));
        }
        self.expect_data(key, expected)?;
        if self.data.len() == DATA_KEYS_MAX && !self.data.contains_key(key) {
            let limit = u32::try_from(DATA_KEYS_MAX).unwrap_or(u32::MAX);
            return Err(Rejected::DataFull { limit });
        }
        let entry = DataEntry {
            version: change.index,
            value: Arc::clone(value),
        };
        Arc::make_mut(&mut self.data).insert(key.clone(), entry);
        Ok(())
    }

    fn delete_data(&mut self, key: &str, expected: Expected) -> Result<(), Rejected> {
        self.expect_data(key, expected)?;
        if self.data.contains_key(key) {
            Arc::make_mut(&mut self.data).remove(key);
        }
        Ok(())
    }

    fn expect_data(&self, key: &str, expected: Expected) -> Result<(), Rejected> {
        let version = self.data.get(key).map(|entry| entry.version);
        let holds = match expected {
            Expected::Any => true,
            Expected::Absent => version.is_none(),
            Expected::Version(wanted) => version == Some(wanted),
        };
        if holds {
            Ok(())
        } else {
            Err(Rejected::DataMismatch {
                key: String::from(key),
                version,
            })
        }
    }
}

/// Returns the wall-clock time written into `command`, zero for those that carry none because no
/// event follows from them.
fn command_time(command: &Command) -> UnixMillis {
    match command {
        Command::Bootstrap { at, .. }
        | Command::Join { at, .. }
        | Command::Announce { at, .. }
        | Command::Activate { at, .. }
        | Command::UpdateNode { at, .. }
        | Command::MarkDown { at, .. }
        | Command::MarkUp { at, .. }
        | Command::Evict { at, .. }
        | Command::Drain { at, .. }
        | Command::Remove { at, .. }
        | Command::UpdateConfig { at, .. }
        | Command::Plan { at, .. }
        | Command::StartMoves { at, .. }
        | Command::Synced { at, .. }
        | Command::Switch { at, .. }
        | Command::Revert { at, .. }
        | Command::Pause { at, .. }
        | Command::Abandon { at, .. }
        | Command::CancelPlan { at, .. }
        | Command::SetHealth { at, .. }
        | Command::SetIntent { at, .. }
        | Command::ExpireIntents { at } => *at,
        Command::Released { .. } | Command::SetData { .. } | Command::DeleteData { .. } => {
            UnixMillis(0)
        }
    }
}
