//! [`Preview`]: what carrying a plan out changes, before it is carried out.
//!
//! Computed from a [`PlanRecord`] alone. Applying one is the embedding node's business: it computes
//! the plan again on the present state and compares the [`PreviewId`].

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use super::study::Study;
use super::{ExplainError, PlanRecord};
use crate::config::ConfigError;
use crate::id::{Epoch, NodeId, PartitionId};
use crate::pause::Work;

/// The most nodes a preview names at the limit of moves per node.
pub const LIMITS_NAMED_MAX: usize = 16;

/// What carrying a plan out changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Preview {
    /// What to ask for to have exactly this plan carried out.
    pub id: PreviewId,
    /// The epoch it was computed on.
    pub epoch: Epoch,
    /// The replicas to be copied.
    pub moves: u32,
    /// The fewest copies that any placement within the same bounds needs, proven by the
    /// certificate; none when there is no valid certificate.
    pub minimum: Option<u32>,
    /// Every copy to be made or given up, by partition.
    pub transfers: Vec<Transfer>,
    /// Every primary that changes, by partition.
    pub primary_changes: Vec<PrimaryChange>,
    /// What every node holds and leads, before and after, in order of joining.
    pub nodes: Vec<NodeLoad>,
    /// The limits that bind: without them the plan would be another one, or done sooner.
    pub limits: Vec<Limit>,
}

/// One copy made, one given up, or both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Transfer {
    /// The partition.
    pub partition: PartitionId,
    /// Who gives its copy up; none where a copy is only made. An additional copy is made from any
    /// member in sync.
    pub from: Option<NodeId>,
    /// Who copies; none where a copy is only given up.
    pub to: Option<NodeId>,
}

/// One primary that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PrimaryChange {
    /// The partition.
    pub partition: PartitionId,
    /// Who leads it now.
    pub from: Option<NodeId>,
    /// Who leads it then.
    pub to: Option<NodeId>,
}

/// What a node holds and leads, before and after. A move under way counts as done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeLoad {
    /// The node.
    pub node: NodeId,
    /// Its zone, empty when it has none.
    pub zone: String,
    /// Its weight.
    pub weight: u32,
    /// The replicas it holds, those it leads included.
    pub replicas_before: u32,
    /// The same afterwards.
    pub replicas_after: u32,
    /// The least it should hold; 0 for a node that takes no data.
    pub replicas_floor: u32,
    /// The most it should hold; 0 for a node that takes no data.
    pub replicas_ceil: u32,
    /// The partitions it leads.
    pub primaries_before: u32,
    /// The same afterwards.
    pub primaries_after: u32,
    /// The least it should lead.
    pub primaries_floor: u32,
    /// The most it should lead.
    pub primaries_ceil: u32,
}

/// A limit that binds. In JSON `limit` names it and the values stand beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "limit", rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named as the text names them")]
pub enum Limit {
    /// No node takes data.
    Unavailable,
    /// Fewer nodes take data than copies are wanted.
    UnderReplicated { wanted: u32, nodes: u32 },
    /// There are fewer zones than copies.
    ZoneCap { zones: u32, per_zone: u32 },
    /// Zones, or one replica per node, keep some node above its share by weight.
    Overloaded,
    /// Partitions without a member that may lead.
    Leaderless { partitions: u32 },
    /// Primaries out of bounds because rows leave no choice.
    PrimaryBounds { partitions: u32 },
    /// More partitions change their members than may move at once.
    MovesInFlight { partitions: u32, at_most: u32 },
    /// A node copies more than it may at once.
    MovesPerNode {
        node: NodeId,
        copies: u32,
        at_most: u32,
    },
    /// The search gave up: the rows are valid and balanced, but not the fewest moves.
    Fallback,
    /// Work is paused, so that partitions stay as they are.
    Paused { work: Work, partitions: u32 },
}

/// The name of a preview: the epoch it was computed on and a digest of its rows.
///
/// Any node that computes the same plan on the same epoch gives it the same name, so it can be
/// applied through any node. As text `EPOCH-DIGEST` with 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(
    clippy::exhaustive_structs,
    reason = "the epoch and the digest are all there is to the name"
)]
pub struct PreviewId {
    /// The epoch it was computed on.
    pub epoch: Epoch,
    /// The digest of what was computed from and of the rows.
    pub digest: u64,
}

impl PlanRecord {
    /// Returns the name under which exactly this plan can be asked for.
    #[must_use]
    pub fn preview_id(&self) -> PreviewId {
        let mut text: Vec<u8> = Vec::new();
        text.extend(self.basis.to_be_bytes());
        for row in self.placement.rows.iter() {
            for &node in row {
                let member = self.nodes.get(usize::from(node)).map(|it| it.member.0);
                text.extend(member.unwrap_or(u64::MAX).to_be_bytes());
            }
            text.extend(0_u64.to_be_bytes());
        }
        PreviewId {
            epoch: self.epoch,
            digest: xxhash_rust::xxh3::xxh3_64(&text),
        }
    }

    /// Says what carrying the plan out changes.
    ///
    /// # Errors
    /// [`ExplainError::Input`] when the record is beyond a limit of placement.
    pub fn preview(&self) -> Result<Preview, ExplainError> {
        let study = Study::new(self)?;
        let mut transfers = Vec::new();
        let mut primary_changes = Vec::new();
        for row in 0..self.placement.rows.len() {
            self.add_transfers(row, &mut transfers);
            let (before, after) = (&self.input.current, &self.placement.rows);
            let (from, to) = (before.primary(row), after.primary(row));
            if from != to {
                primary_changes.push(PrimaryChange {
                    partition: PartitionId::from_index(row),
                    from: from.and_then(|node| self.named(node)),
                    to: to.and_then(|node| self.named(node)),
                });
            }
        }
        let limits = self.limits(&study, &transfers);
        Ok(Preview {
            id: self.preview_id(),
            epoch: self.epoch,
            moves: self.placement.moves,
            minimum: self.verify().ok().map(|verdict| verdict.moves),
            transfers,
            primary_changes,
            nodes: self.loads(&study),
            limits,
        })
    }

    fn named(&self, node: u16) -> Option<NodeId> {
        let node = self.input.nodes.get(usize::from(node))?;
        Some(node.id.clone())
    }

    /// Pairs what is made with what is given up: within a zone first, then in order.
    fn add_transfers(&self, row: usize, transfers: &mut Vec<Transfer>) {
        let (before, after) = (&self.input.current, &self.placement.rows);
        let comes = after.members(row).filter(|&it| !before.contains(row, it));
        let mut goes: Vec<u16> = before
            .members(row)
            .filter(|&it| !after.contains(row, it))
            .collect();
        let zone = |node: u16| self.input.nodes.get(usize::from(node)).map(|it| &it.zone);
        let partition = PartitionId::from_index(row);
        for to in comes {
            let near = goes.iter().position(|&from| zone(from) == zone(to));
            let from = match near {
                Some(at) => Some(goes.remove(at)),
                None if goes.is_empty() => None,
                None => Some(goes.remove(0)),
            };
            transfers.push(Transfer {
                partition,
                from: from.and_then(|node| self.named(node)),
                to: self.named(to),
            });
        }
        transfers.extend(goes.into_iter().map(|from| Transfer {
            partition,
            from: self.named(from),
            to: None,
        }));
    }

    fn loads(&self, study: &Study<'_>) -> Vec<NodeLoad> {
        let load = |(at, node): (usize, &crate::placement::PlacementNode)| {
            let share = study.shares.nodes[at].unwrap_or_default();
            NodeLoad {
                node: node.id.clone(),
                zone: String::from(&*node.zone),
                weight: node.weight,
                replicas_before: study.before[at],
                replicas_after: study.after[at],
                replicas_floor: share.floor,
                replicas_ceil: share.ceil,
                primaries_before: study.led_before[at],
                primaries_after: study.led_after[at],
                primaries_floor: share.lead_floor,
                primaries_ceil: share.lead_ceil,
            }
        };
        self.input.nodes.iter().enumerate().map(load).collect()
    }

    fn limits(&self, study: &Study<'_>, transfers: &[Transfer]) -> Vec<Limit> {
        let (flags, shares) = (&self.placement.flags, &study.shares);
        let mut limits = Vec::new();
        if shares.factor == 0 {
            limits.push(Limit::Unavailable);
        } else if shares.factor < self.input.replication_factor {
            limits.push(Limit::UnderReplicated {
                wanted: self.input.replication_factor,
                nodes: shares.factor,
            });
        }
        if shares.zones > 1 && shares.per_zone > 1 {
            limits.push(Limit::ZoneCap {
                zones: shares.zones,
                per_zone: shares.per_zone,
            });
        }
        if flags.overloaded {
            limits.push(Limit::Overloaded);
        }
        if flags.leaderless > 0 {
            let partitions = flags.leaderless;
            limits.push(Limit::Leaderless { partitions });
        }
        if self.placement.stats.primary_violation > 0 {
            let partitions = self.placement.stats.primary_violation;
            limits.push(Limit::PrimaryBounds { partitions });
        }
        if flags.fallback {
            limits.push(Limit::Fallback);
        }
        let paused = self.paused_work();
        limits.extend(paused.map(|(work, partitions)| Limit::Paused { work, partitions }));
        // The first placement copies nothing: there is nothing to wait for.
        if self.input.current.total() > 0 {
            self.pace(transfers, &mut limits);
        }
        limits
    }

    /// Adds the limits on how much moves at once.
    fn pace(&self, transfers: &[Transfer], limits: &mut Vec<Limit>) {
        let mut copies: BTreeMap<&NodeId, u32> = BTreeMap::new();
        let mut moving = Vec::new();
        for transfer in transfers {
            if let Some(to) = &transfer.to {
                *copies.entry(to).or_default() += 1;
                moving.push(transfer.partition);
            }
        }
        moving.dedup();
        let partitions = u32::try_from(moving.len()).unwrap_or(u32::MAX);
        if partitions > self.moves_in_flight {
            let at_most = self.moves_in_flight;
            limits.push(Limit::MovesInFlight {
                partitions,
                at_most,
            });
        }
        let at_most = self.moves_per_node;
        let crowded = copies.into_iter().filter(|&(_, copies)| copies > at_most);
        limits.extend(
            crowded
                .take(LIMITS_NAMED_MAX)
                .map(|(node, copies)| Limit::MovesPerNode {
                    node: node.clone(),
                    copies,
                    at_most,
                }),
        );
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable => f.write_str("No node takes data."),
            Self::UnderReplicated { wanted, nodes } => write!(
                f,
                "{wanted} copies of every partition are wanted, and {nodes} nodes take data."
            ),
            Self::ZoneCap { zones, per_zone } => write!(
                f,
                "There are {zones} zones, so one zone holds up to {per_zone} copies of a partition."
            ),
            Self::Overloaded => f.write_str(
                "Some node holds more than its share by weight, because of zones or because a node \
                 holds a partition at most once.",
            ),
            Self::Leaderless { partitions } => {
                write!(f, "{partitions} partitions have no member that may lead.")
            }
            Self::PrimaryBounds { partitions } => write!(
                f,
                "{partitions} partitions are led beyond the shares, because their rows leave no \
                 choice."
            ),
            Self::MovesInFlight {
                partitions,
                at_most,
            } => write!(
                f,
                "{partitions} partitions are copied, at most {at_most} of them at once."
            ),
            Self::MovesPerNode {
                node,
                copies,
                at_most,
            } => write!(
                f,
                "{node} makes {copies} copies, at most {at_most} at once."
            ),
            Self::Fallback => f.write_str(
                "The placement is the systematic layout, which may copy more than needed.",
            ),
            Self::Paused { work, partitions } => write!(
                f,
                "An operator has paused {work}: {partitions} partitions stay as they are."
            ),
        }
    }
}

impl fmt::Display for PreviewId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.epoch, self.digest)
    }
}

impl FromStr for PreviewId {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ConfigError::new("preview", text, "an id of a preview, EPOCH-DIGEST");
        let (epoch, digest) = text.split_once('-').ok_or_else(refused)?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if digest.len() != 16 || !digits(digest) || !digits(epoch) {
            return Err(refused());
        }
        Ok(Self {
            epoch: Epoch(epoch.parse().map_err(|_| refused())?),
            digest: u64::from_str_radix(digest, 16).map_err(|_| refused())?,
        })
    }
}

impl Serialize for PreviewId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PreviewId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minimum = match self.minimum {
            Some(minimum) => format!("minimum {minimum}"),
            None => String::from("minimum not proven"),
        };
        write!(
            f,
            "moves {}, {minimum}; {} primaries change",
            self.moves,
            self.primary_changes.len()
        )
    }
}
