//! Why one partition is, comes to, leaves, or is not on one node.
//!
//! Reasons are found by looking at what the plan was given, in the order in which the placement
//! weighs them: what must go, what was missing, zones, shares, and then chains. What is proven by
//! the certificate is told as proven, the rest as what it is.

use alloc::vec::Vec;

use super::study::Study;
use super::{Outcome, Placed, PlanRecord, Reason};
use crate::event::Role;
use crate::id::PartitionId;
use crate::placement::Rows;

/// Answers for `partition` and the node at position `at`.
pub(super) fn explain(
    record: &PlanRecord,
    study: &Study<'_>,
    partition: PartitionId,
    at: usize,
) -> Placed {
    let pair = Pair {
        record,
        study,
        partition,
        row: partition.index(),
        at,
    };
    let (before, after) = (&record.input.current, &record.placement.rows);
    let outcome = match (pair.on(before), pair.on(after)) {
        (true, true) => Outcome::Kept,
        (false, true) => Outcome::Added,
        (true, false) => Outcome::Dropped,
        (false, false) => Outcome::Absent,
    };
    let mut reasons = Vec::new();
    match outcome {
        _ if record.input.is_frozen(pair.row) => reasons.push(match record.paused(partition) {
            Some(work) => Reason::Paused { partition, work },
            None => Reason::PinnedRow { partition },
        }),
        Outcome::Kept => pair.kept(&mut reasons),
        Outcome::Added => pair.added(&mut reasons),
        Outcome::Dropped => pair.dropped(&mut reasons),
        Outcome::Absent => pair.absent(&mut reasons),
    }
    pair.lead(&mut reasons);
    Placed {
        partition,
        node: record.input.nodes[at].id.clone(),
        outcome,
        role_before: pair.role(before),
        role_after: pair.role(after),
        reasons,
    }
}

struct Pair<'a> {
    record: &'a PlanRecord,
    study: &'a Study<'a>,
    partition: PartitionId,
    row: usize,
    at: usize,
}

impl Pair<'_> {
    fn on(&self, rows: &Rows) -> bool {
        rows.members(self.row)
            .any(|node| usize::from(node) == self.at)
    }

    fn role(&self, rows: &Rows) -> Role {
        match (self.on(rows), rows.primary(self.row)) {
            (false, _) => Role::None,
            (true, Some(primary)) if usize::from(primary) == self.at => Role::Primary,
            (true, _) => Role::Replica,
        }
    }

    fn node(&self) -> crate::id::NodeId {
        self.record.input.nodes[self.at].id.clone()
    }

    fn kept(&self, reasons: &mut Vec<Reason>) {
        let share = self.study.shares.nodes[self.at].unwrap_or_default();
        reasons.push(Reason::KeptForFree {
            partition: self.partition,
            node: self.node(),
            load: self.study.after[self.at],
            floor: share.floor,
            ceil: share.ceil,
        });
    }

    fn added(&self, reasons: &mut Vec<Reason>) {
        let partition = self.partition;
        let current = &self.record.input.current;
        let share = self.study.shares.nodes[self.at].unwrap_or_default();
        let (had, wanted) = (self.study.keepable(self.row), self.study.shares.factor);
        if current.members(self.row).next().is_none() {
            reasons.push(Reason::FirstPlacement { partition });
        } else {
            self.gone_members(reasons);
            if had < wanted && reasons.is_empty() {
                reasons.push(Reason::MissingCopy {
                    partition,
                    had,
                    wanted,
                });
            }
        }
        let (zone, held) = self.study.zone_count(current, self.row, self.at);
        if self.study.shares.zones > 1 && held < share.zone_least {
            reasons.push(Reason::ZoneMissing {
                partition,
                zone,
                had: held,
                least: share.zone_least,
            });
        }
        self.below_share(reasons);
        if reasons.is_empty() {
            reasons.push(self.chain());
        }
    }

    fn dropped(&self, reasons: &mut Vec<Reason>) {
        let partition = self.partition;
        if let Some(cause) = self.record.cause(self.at) {
            reasons.push(Reason::MemberMustGo {
                partition,
                gone: self.node(),
                cause,
            });
            return;
        }
        let current = &self.record.input.current;
        let share = self.study.shares.nodes[self.at].unwrap_or_default();
        let (had, wanted) = (self.study.keepable(self.row), self.study.shares.factor);
        if had > wanted {
            reasons.push(Reason::SurplusCopy {
                partition,
                had,
                wanted,
            });
        }
        let (zone, held) = self.study.zone_count(current, self.row, self.at);
        if self.study.shares.zones > 1 && held > share.zone_most {
            reasons.push(Reason::ZoneCrowded {
                partition,
                zone,
                had: held,
                most: share.zone_most,
            });
        }
        let before = self.study.before[self.at];
        if before > share.ceil {
            reasons.push(Reason::AboveShare {
                node: self.node(),
                before,
                floor: share.floor,
                ceil: share.ceil,
            });
        }
        if reasons.is_empty() {
            reasons.push(self.chain());
        }
    }

    fn absent(&self, reasons: &mut Vec<Reason>) {
        let partition = self.partition;
        if let Some(cause) = self.record.cause(self.at) {
            reasons.push(Reason::TakesNothing {
                node: self.node(),
                cause,
            });
            return;
        }
        let rows = &self.record.placement.rows;
        let Some(share) = self.study.shares.nodes[self.at] else {
            return;
        };
        let current = &self.record.input.current;
        let copies = self.study.shares.factor;
        if !self.record.changes(partition) && current.members(self.row).next().is_some() {
            reasons.push(Reason::RowComplete { partition, copies });
        }
        let load = self.study.after[self.at];
        if load >= share.ceil {
            reasons.push(Reason::NodeFull {
                node: self.node(),
                load,
                ceil: share.ceil,
            });
        }
        let (zone, holds) = self.study.zone_count(rows, self.row, self.at);
        if self.study.shares.zones > 1 && holds >= share.zone_most {
            reasons.push(Reason::ZoneFull {
                partition,
                zone,
                holds,
                most: share.zone_most,
            });
        }
        match self.extra_copies() {
            Some(0) => reasons.push(Reason::Tie {
                partition,
                node: self.node(),
            }),
            Some(extra) => reasons.push(Reason::WouldCost {
                partition,
                node: self.node(),
                extra,
                minimum: self.record.placement.moves,
            }),
            None if reasons.is_empty() => reasons.push(Reason::RowComplete { partition, copies }),
            None => {}
        }
    }

    /// Returns how many more copies any placement with this partition on this node needs at
    /// least, by the prices of the certificate; none without one.
    ///
    /// At the certificate's prices the rows are independent and every row costs what the cheapest
    /// one does, so a row forced to hold the node costs at least its price and the cheapest others
    /// (zones ignored, which can only make the bound smaller).
    fn extra_copies(&self) -> Option<u32> {
        self.record.verify().ok()?;
        let prices = &self.record.placement.certificate.as_ref()?.replica_prices;
        let cost = |at: usize| {
            let node = u16::try_from(at).unwrap_or(crate::placement::NO_NODE);
            let fresh = !self.record.input.current.contains(self.row, node);
            i64::from(fresh) - i64::from(prices.get(at).copied().unwrap_or(0))
        };
        let row = self.record.placement.rows.members(self.row);
        let chosen: i64 = row.map(|node| cost(usize::from(node))).sum();
        let mut others: Vec<i64> = (0..self.record.input.nodes.len())
            .filter(|&at| at != self.at && self.study.shares.nodes[at].is_some())
            .map(cost)
            .collect();
        others.sort_unstable();
        let width = (self.study.shares.factor as usize).saturating_sub(1);
        let forced = cost(self.at) + others.iter().take(width).sum::<i64>();
        u32::try_from((forced - chosen).max(0)).ok()
    }

    /// Names the members of the row that take no data any more.
    fn gone_members(&self, reasons: &mut Vec<Reason>) {
        for node in self.record.input.current.members(self.row) {
            let Some(gone) = self.record.input.nodes.get(usize::from(node)) else {
                continue;
            };
            if let Some(cause) = self.record.cause(usize::from(node)) {
                reasons.push(Reason::MemberMustGo {
                    partition: self.partition,
                    gone: gone.id.clone(),
                    cause,
                });
            }
        }
    }

    fn below_share(&self, reasons: &mut Vec<Reason>) {
        let share = self.study.shares.nodes[self.at].unwrap_or_default();
        let before = self.study.before[self.at];
        if before < share.floor {
            reasons.push(Reason::BelowShare {
                node: self.node(),
                before,
                floor: share.floor,
                ceil: share.ceil,
            });
        } else if before < share.ceil {
            reasons.push(Reason::RoomLeft {
                node: self.node(),
                before,
                ceil: share.ceil,
            });
        }
    }

    fn chain(&self) -> Reason {
        Reason::Chain {
            partition: self.partition,
            node: self.node(),
            moves: self.record.placement.moves,
        }
    }

    /// Says why the node leads, or ceased to lead.
    fn lead(&self, reasons: &mut Vec<Reason>) {
        let (input, rows) = (&self.record.input, &self.record.placement.rows);
        let (old, new) = (input.current.primary(self.row), rows.primary(self.row));
        let is_me = |node: Option<u16>| node.is_some_and(|node| usize::from(node) == self.at);
        if !is_me(old) && !is_me(new) {
            if new.is_none() && self.on(rows) {
                let partition = self.partition;
                reasons.push(Reason::Leaderless { partition });
            }
            return;
        }
        let partition = self.partition;
        let Some(new) = new else {
            reasons.push(Reason::Leaderless { partition });
            return;
        };
        let id = |node: u16| input.nodes.get(usize::from(node)).map(|it| it.id.clone());
        let Some(new_id) = id(new) else { return };
        if old == Some(new) {
            reasons.push(Reason::PrimaryKept {
                partition,
                node: new_id,
            });
            return;
        }
        let could_stay = old.filter(|&old| {
            let known = input.nodes.get(usize::from(old));
            rows.contains(self.row, old) && known.is_some_and(|node| node.may_lead)
        });
        let stayed = could_stay.and_then(|old| Some((usize::from(old), id(old)?)));
        reasons.push(match stayed {
            None => Reason::OrphanedPrimary {
                partition,
                old: old.and_then(id),
                new: new_id,
                in_sync: input.current.contains(self.row, new)
                    || input.current.members(self.row).next().is_none(),
            },
            Some((old, old_id)) => {
                let share = |at: usize| self.study.shares.nodes[at].unwrap_or_default();
                Reason::PrimaryBalance {
                    partition,
                    old: old_id,
                    old_led: self.study.led_before[old],
                    old_ceil: share(old).lead_ceil,
                    new: new_id,
                    new_led: self.study.led_before[usize::from(new)],
                    new_floor: share(usize::from(new)).lead_floor,
                }
            }
        });
    }
}
