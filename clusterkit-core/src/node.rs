//! The record of a node: what it announced about itself and what the cluster decided about it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, SERVICES_MAX};
use crate::id::{DiskId, Incarnation, NodeId, RaftId};
use crate::time::UnixMillis;

/// The longest address, zone, name or service name, in bytes.
pub const NODE_TEXT_MAX_BYTES: usize = 256;

/// The feature level of this build: what it understands of what members tell each other and write
/// into the log. Raised with the first feature that older builds do not know.
///
/// A cluster is at the level that all its members have announced: see
/// [`crate::state::ClusterState::feature_level`]. Level 0 is that of builds before there were levels.
pub const FEATURE_LEVEL: u32 = 1;

/// What a node says about itself when it joins or starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// The operator's id.
    pub id: NodeId,
    /// The data directory the process runs on.
    pub disk: DiskId,
    /// The count of process starts on that directory.
    pub incarnation: Incarnation,
    /// A name for people.
    pub name: Arc<str>,
    /// The address peers and clients reach it at, `host:port`, announced by the node itself.
    pub address: Arc<str>,
    /// The address for peer traffic where it differs from `address`.
    pub peer_address: Option<Arc<str>>,
    /// Services of the application on this node: name to address.
    pub services: Arc<BTreeMap<String, String>>,
    /// The failure domain, empty when there is none.
    pub zone: Arc<str>,
    /// The share of the data it takes relative to others. Default 1; 0 takes none.
    pub weight: u32,
    /// The features it knows. Default [`FEATURE_LEVEL`].
    pub feature_level: u32,
}

impl NodeSpec {
    /// Returns a spec with defaults for everything but who and where.
    #[must_use]
    pub fn new(id: NodeId, disk: DiskId, address: &str) -> Self {
        Self {
            name: Arc::from(id.as_str()),
            id,
            disk,
            incarnation: Incarnation(1),
            address: Arc::from(address),
            peer_address: None,
            services: Arc::default(),
            zone: Arc::from(""),
            weight: 1,
            feature_level: FEATURE_LEVEL,
        }
    }

    /// Checks lengths and emptiness of every text field.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field refused.
    pub fn validate(&self) -> Result<(), ConfigError> {
        text("node_name", &self.name, 1)?;
        text("address", &self.address, 1)?;
        text("zone", &self.zone, 0)?;
        if let Some(peer) = &self.peer_address {
            text("peer_address", peer, 1)?;
        }
        if self.services.len() > SERVICES_MAX {
            return Err(ConfigError::new(
                "services",
                self.services.len(),
                "at most 32 entries",
            ));
        }
        for (name, address) in self.services.iter() {
            text("service name", name, 1)?;
            text("service address", address, 1)?;
        }
        Ok(())
    }

    /// Returns the address for peer traffic.
    #[must_use]
    pub fn peer_address(&self) -> &str {
        self.peer_address.as_deref().unwrap_or(&self.address)
    }
}

fn text(field: &str, value: &str, min: usize) -> Result<(), ConfigError> {
    if (min..=NODE_TEXT_MAX_BYTES).contains(&value.len()) {
        Ok(())
    } else {
        Err(ConfigError::new(
            field,
            value,
            format_args!("{min} to {NODE_TEXT_MAX_BYTES} bytes"),
        ))
    }
}

/// Where a node stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(
    clippy::exhaustive_enums,
    reason = "the life cycle is a documented, closed set"
)]
pub enum NodeStatus {
    /// Admitted; not yet caught up with the log.
    Joining,
    /// Takes part fully.
    Active,
    /// Gives its data away; still serves what it has.
    Draining,
    /// Condemned: holds no role, keeps its place until `repair_delay` ends.
    Down,
    /// Gone for good. Left nodes stand in events only, never in the state.
    Left,
}

impl core::fmt::Display for NodeStatus {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.as_str())
    }
}

impl NodeStatus {
    /// Returns the status as the wire knows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Down => "down",
            Self::Left => "left",
        }
    }

    /// Tells whether the node is thought to be running.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Joining | Self::Active | Self::Draining)
    }
}

/// Whether a node's data is to move away, and what then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::exhaustive_enums, reason = "the intents of the drain verb")]
pub enum Drain {
    /// It stays.
    #[default]
    No,
    /// It gives everything away and stays a member.
    Empty,
    /// It gives everything away and then leaves the cluster.
    Leave,
}

/// A member of the cluster: what it announced and what the cluster decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its identity within the control plane; never reused.
    pub raft_id: RaftId,
    /// The operator's id.
    pub id: NodeId,
    /// The data directory it runs on.
    pub disk: DiskId,
    /// The count of process starts on that directory.
    pub incarnation: Incarnation,
    /// A name for people.
    pub name: Arc<str>,
    /// The address peers and clients reach it at, `host:port`.
    pub address: Arc<str>,
    /// The address for peer traffic where it differs from `address`.
    pub peer_address: Option<Arc<str>>,
    /// Services of the application on this node: name to address.
    pub services: Arc<BTreeMap<String, String>>,
    /// The failure domain, empty when there is none.
    pub zone: Arc<str>,
    /// The share of the data it takes relative to others; 0 takes none.
    pub weight: u32,
    /// The features that its process knows.
    pub feature_level: u32,
    /// Where it stands.
    pub status: NodeStatus,
    /// Whether its data is to move away, and what then.
    pub drain: Drain,
    /// Down for longer than the repair delay: its copies are being made elsewhere.
    pub evicted: bool,
    /// When it joined.
    pub joined_at: UnixMillis,
    /// When its status last changed.
    pub status_since: UnixMillis,
}

impl Node {
    /// Returns the record of a node that joins with `spec` as `raft_id`.
    #[must_use]
    pub fn new(raft_id: RaftId, spec: NodeSpec, at: UnixMillis) -> Self {
        Self {
            raft_id,
            id: spec.id,
            disk: spec.disk,
            incarnation: spec.incarnation,
            name: spec.name,
            address: spec.address,
            peer_address: spec.peer_address,
            services: spec.services,
            zone: spec.zone,
            weight: spec.weight,
            feature_level: spec.feature_level,
            status: NodeStatus::Joining,
            drain: Drain::No,
            evicted: false,
            joined_at: at,
            status_since: at,
        }
    }

    /// Takes over what a starting process says of itself. Zone and weight stay as the cluster
    /// holds them: an operator may have changed them since. A leave that an earlier process began
    /// and did not finish is over: whoever starts again wants to stay.
    pub(crate) fn announce(&mut self, spec: NodeSpec) {
        if spec.incarnation > self.incarnation && self.drain == Drain::Leave {
            self.drain = Drain::No;
        }
        self.incarnation = spec.incarnation;
        self.name = spec.name;
        self.address = spec.address;
        self.peer_address = spec.peer_address;
        self.services = spec.services;
        self.feature_level = spec.feature_level;
    }

    /// Returns the address for peer traffic.
    #[must_use]
    pub fn peer_address(&self) -> &str {
        self.peer_address.as_deref().unwrap_or(&self.address)
    }

    /// Tells whether placement may give it data: it is active, or down and expected back.
    #[must_use]
    pub fn takes_data(&self) -> bool {
        self.drain == Drain::No && self.would_take_data()
    }

    /// Tells whether placement might give it data if it were not being drained.
    pub(crate) fn would_take_data(&self) -> bool {
        let expected_back = self.status == NodeStatus::Down && !self.evicted;
        let runs = matches!(self.status, NodeStatus::Active | NodeStatus::Draining);
        self.weight > 0 && (runs || expected_back)
    }

    /// Returns the address of the application's service `name` on this node.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&str> {
        self.services.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leave_that_was_not_finished_ends_with_the_process_and_a_drain_does_not() {
        let id = NodeId::new("node-1").unwrap();
        let mut spec = NodeSpec::new(id, DiskId::from_bytes([1; 16]), "127.0.0.1:1");
        let mut node = Node::new(RaftId(1), spec.clone(), UnixMillis(0));
        for (asked, after) in [(Drain::Leave, Drain::No), (Drain::Empty, Drain::Empty)] {
            node.drain = asked;
            node.announce(spec.clone());
            assert_eq!(node.drain, asked, "the same process goes on with it");
            spec.incarnation = Incarnation(spec.incarnation.0 + 1);
            node.announce(spec.clone());
            assert_eq!(node.drain, after);
        }
    }
}
