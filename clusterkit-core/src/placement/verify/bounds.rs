//! Lower bounds from prices: what any valid placement must cost at least.
//!
//! For given prices the rows become independent of each other, and the cheapest valid row is found
//! greedily: first what the zones' lower bounds demand, then the cheapest of the rest under their
//! upper bounds. That is exact, since such bounds form a laminar family.

use alloc::vec;
use alloc::vec::Vec;

use super::VerifyError;
use super::rules::{Range, Rules};
use crate::placement::outcome::{LEAD_CHANGE_COST, LEAD_VIOLATION_COST};
use crate::placement::rows::Rows;

/// Checks that no valid placement within the shares needs fewer copies, and returns how many this
/// one needs.
pub(super) fn check_moves(
    rules: &Rules<'_>,
    rows: &Rows,
    shares: &[Range],
    prices: &[i32],
) -> Result<u32, VerifyError> {
    let current = &rules.input.current;
    let mut market = Market::new(rules, prices);
    let (mut moves, mut bound) = (0, 0);
    for partition in 0..rows.len() {
        if !rules.input.is_frozen(partition) {
            let added = rows
                .members(partition)
                .filter(|&node| !current.contains(partition, node));
            moves += i128::try_from(added.count()).unwrap_or(i128::MAX);
            bound += i128::from(market.cheapest_row(current.row(partition)));
        }
    }
    for (at, &(floor, ceil)) in shares.iter().enumerate() {
        if rules.zone[at].is_some() {
            let price = i128::from(prices[at]);
            bound += price * i128::from(if price >= 0 { floor } else { ceil });
        }
    }
    match bound == moves {
        true => Ok(u32::try_from(moves).unwrap_or(u32::MAX)),
        false => Err(VerifyError::NotMinimal {
            what: "moves",
            cost: moves,
            bound,
        }),
    }
}

/// An eligible node with its price and zone.
#[derive(Clone, Copy)]
struct Offer {
    node: usize,
    zone: usize,
    /// Cost of a new replica there. One that is there already costs one less.
    cost: i64,
}

/// Finds cheapest rows at fixed prices.
struct Market<'a> {
    rules: &'a Rules<'a>,
    prices: &'a [i32],
    /// The best offers of every zone, cheapest first: as many as a row could ever need.
    best: Vec<Vec<Offer>>,
    /// The same of all zones together.
    all: Vec<Offer>,
    any_least: bool,
    held: Vec<Offer>,
    /// The row for which a node was last marked as held or taken.
    mark: Vec<u32>,
    row: u32,
    count: Vec<u32>,
}

impl<'a> Market<'a> {
    fn new(rules: &'a Rules<'a>, prices: &'a [i32]) -> Self {
        let current = &rules.input.current;
        let longest = current.iter().map(<[u16]>::len).max().unwrap_or(0);
        let mut best: Vec<Vec<Offer>> = vec![Vec::new(); rules.zone_range.len()];
        for (node, zone) in rules.zone.iter().enumerate() {
            if let &Some(zone) = zone {
                let cost = 1 - i64::from(prices[node]);
                best[zone].push(Offer { node, zone, cost });
            }
        }
        for (zone, &(_, most)) in best.iter_mut().zip(&rules.zone_range) {
            zone.sort_unstable_by_key(|offer| (offer.cost, offer.node));
            zone.truncate(most as usize + longest);
        }
        let mut all: Vec<Offer> = best.iter().flatten().copied().collect();
        all.sort_unstable_by_key(|offer| (offer.cost, offer.node));
        Self {
            rules,
            prices,
            all,
            any_least: rules.zone_range.iter().any(|&(least, _)| least > 0),
            held: Vec::new(),
            mark: vec![0; rules.zone.len()],
            row: 0,
            count: vec![0; best.len()],
            best,
        }
    }

    /// Returns the cost of the cheapest valid row of a partition held by `current`.
    fn cheapest_row(&mut self, current: &[u16]) -> i64 {
        self.row += 1;
        self.held.clear();
        for &node in current {
            let at = usize::from(node);
            if let Some(&Some(zone)) = self.rules.zone.get(at)
                && self.mark[at] != self.row
            {
                self.mark[at] = self.row;
                let cost = -i64::from(self.prices[at]);
                self.held.push(Offer {
                    node: at,
                    zone,
                    cost,
                });
            }
        }
        self.held.sort_unstable_by_key(|offer| offer.cost);
        let (mut total, mut left) = (0, self.rules.width);
        self.count.fill(0);
        if self.any_least {
            for zone in 0..self.best.len() {
                for _ in 0..self.rules.zone_range[zone].0 {
                    total += self.take(Some(zone)).unwrap_or(0);
                    left -= 1;
                }
            }
        }
        for _ in 0..left {
            total += self.take(None).unwrap_or(0);
        }
        total
    }

    /// Takes the cheapest offer left, of one zone or of all that have room.
    fn take(&mut self, zone: Option<usize>) -> Option<i64> {
        let has_room = |offer: &Offer| match zone {
            Some(zone) => offer.zone == zone,
            None => self.count[offer.zone] < self.rules.zone_range[offer.zone].1,
        };
        let held = self.held.iter().position(has_room);
        let fresh = match zone {
            Some(zone) => &self.best[zone],
            None => &self.all,
        };
        let fresh = fresh
            .iter()
            .find(|offer| self.mark[offer.node] != self.row && has_room(offer))
            .copied();
        let offer = match (held.map(|at| self.held[at]), fresh) {
            (Some(held), Some(fresh)) if held.cost > fresh.cost => fresh,
            (Some(held), _) => held,
            (None, fresh) => fresh?,
        };
        match held.filter(|&at| self.held[at].node == offer.node) {
            Some(at) => {
                self.held.remove(at);
            }
            None => self.mark[offer.node] = self.row,
        }
        self.count[offer.zone] += 1;
        Some(offer.cost)
    }
}

/// Checks that the primaries cannot be better on these rows, and returns how many change and how
/// many partitions are led beyond the shares.
pub(super) fn check_primaries(
    rules: &Rules<'_>,
    rows: &Rows,
    shares: &[Range],
    prices: &[i64],
) -> Result<(u32, u32), VerifyError> {
    let mut led = vec![0u32; shares.len()];
    let mut leaders = Vec::new();
    let (mut changes, mut cost, mut bound) = (0, 0i128, 0i128);
    for partition in 0..rows.len() {
        let primary = rows.primary(partition);
        let changed = primary.is_some() && primary != rules.input.current.primary(partition);
        changes += u32::from(changed);
        let mut cheapest: Option<i128> = None;
        candidates(rules, rows, partition, &mut leaders);
        for &(node, price) in &leaders {
            let at = usize::from(node);
            if Some(node) == primary {
                cost += i128::from(price);
                led[at] += 1;
            }
            let net = i128::from(price) - i128::from(prices[at]);
            cheapest = Some(cheapest.map_or(net, |best| best.min(net)));
        }
        bound += cheapest.unwrap_or(0);
    }
    let mut violation = 0;
    for (at, &(floor, ceil)) in shares.iter().enumerate() {
        let beyond = |count: u32| floor.saturating_sub(count) + count.saturating_sub(ceil);
        let value = |count: u32| {
            i128::from(prices[at]) * i128::from(count)
                + i128::from(LEAD_VIOLATION_COST) * i128::from(beyond(count))
        };
        violation += beyond(led[at]);
        let turns = [0, floor, ceil, rules.input.partition_count];
        bound += turns.map(value).into_iter().min().unwrap_or(0);
    }
    cost += i128::from(LEAD_VIOLATION_COST) * i128::from(violation);
    match bound == cost {
        true => Ok((changes, violation)),
        false => Err(VerifyError::NotMinimal {
            what: "primaries",
            cost,
            bound,
        }),
    }
}

/// Lists who could lead a row and what that costs.
fn candidates(rules: &Rules<'_>, rows: &Rows, partition: usize, found: &mut Vec<(u16, i64)>) {
    let input = rules.input;
    found.clear();
    if let Some(pinned) = rules.pinned_primary(partition) {
        if rules.zone[usize::from(pinned)].is_some() {
            found.push((pinned, 0));
        }
        return;
    }
    let row = rows.row(partition);
    let holds = |node: u16| input.current.contains(partition, node);
    let data_at_hand = rules.leaders(row).any(holds);
    let (present, home) = (
        input.current.primary(partition),
        input.home.primary(partition),
    );
    found.extend(rules.leaders(row).map(|node| {
        let late = data_at_hand && !holds(node) && home != Some(node);
        let cost = match present == Some(node) {
            true => 0,
            false => LEAD_CHANGE_COST + i64::from(late),
        };
        (node, cost)
    }));
}
