//! A second opinion: shares by plain fractions and optima by a textbook minimum-cost flow.
//!
//! Slow, small and sharing nothing with the library but the input types. What is asserted with it
//! is in `properties`.

use std::collections::{BTreeMap, VecDeque};

use clusterkit_core::placement::{NO_NODE, PlacementInput, Rows, Standing};

/// A non-negative fraction in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fraction(pub(crate) i128, pub(crate) i128);

fn fraction(above: i128, below: i128) -> Fraction {
    let (mut a, mut b) = (above.abs().max(1), below);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    match above {
        0 => Fraction(0, 1),
        _ => Fraction(above / a, below / a),
    }
}

impl Fraction {
    fn plus(self, other: Self) -> Self {
        fraction(self.0 * other.1 + other.0 * self.1, self.1 * other.1)
    }
    fn minus(self, other: Self) -> Self {
        self.plus(Self(-other.0, other.1))
    }
    fn times(self, other: Self) -> Self {
        fraction(self.0 * other.0, self.1 * other.1)
    }
    fn over(self, other: Self) -> Self {
        fraction(self.0 * other.1, self.1 * other.0)
    }
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        (self.0 * other.1).cmp(&(other.0 * self.1))
    }
    fn least(self, other: Self) -> Self {
        if self.order(&other).is_lt() {
            self
        } else {
            other
        }
    }
    fn most(self, other: Self) -> Self {
        if self.order(&other).is_lt() {
            other
        } else {
            self
        }
    }
    fn floor(self) -> i128 {
        self.0.div_euclid(self.1)
    }
    fn ceil(self) -> i128 {
        -(-self.0).div_euclid(self.1)
    }
}

fn whole(value: usize) -> Fraction {
    Fraction(i128::try_from(value).unwrap(), 1)
}

/// The bounds of an input, worked out again.
#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) width: usize,
    pub(crate) zone: Vec<Option<usize>>,
    pub(crate) zone_range: Vec<(usize, usize)>,
    pub(crate) floor: Vec<i64>,
    pub(crate) ceil: Vec<i64>,
    pub(crate) lead_floor: Vec<i64>,
    pub(crate) lead_ceil: Vec<i64>,
    /// Whether no cap, zone bound or frozen row bends a share, so that primaries must fit.
    pub(crate) plain: bool,
}

/// Works out the bounds, with the policy's `max_per_zone` and `tolerance` honoured.
pub(crate) fn bounds(input: &PlacementInput) -> Bounds {
    let n = input.nodes.len();
    let eligible: Vec<usize> = (0..n)
        .filter(|&j| input.nodes[j].standing == Standing::Eligible && input.nodes[j].weight > 0)
        .collect();
    let width = eligible.len().min(input.replication_factor as usize);
    let name = |j: usize| match input.policy.ignore_zones {
        true => "",
        false => &*input.nodes[j].zone,
    };
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for &j in &eligible {
        groups.entry(name(j)).or_default().push(j);
    }
    let groups: Vec<Vec<usize>> = groups.into_values().collect();
    let mut zone = vec![None; n];
    for (z, group) in groups.iter().enumerate() {
        for &j in group {
            zone[j] = Some(z);
        }
    }
    let mut cap = 1;
    while groups.iter().map(|g| g.len().min(cap)).sum::<usize>() < width {
        cap += 1;
    }
    let wanted = input
        .policy
        .max_per_zone
        .map_or(cap, |k| cap.max(k as usize));
    let range = |g: &Vec<usize>| match (groups.len(), wanted == cap) {
        (1, _) => (0, width),
        (_, true) => (g.len().min(cap - 1), g.len().min(cap)),
        (_, false) => (0, g.len().min(wanted).min(width)),
    };
    let zone_range: Vec<(usize, usize)> = groups.iter().map(range).collect();
    let partitions = input.partition_count as usize;
    let free = (0..partitions).filter(|&p| !input.is_frozen(p)).count();
    let mut fixed = vec![0usize; n];
    for p in (0..partitions).filter(|&p| input.is_frozen(p)) {
        for j in distinct(input, p) {
            fixed[j] += 1;
        }
    }
    let weight = |j: usize| whole(input.nodes[j].weight as usize);
    let share = |j: usize, level: Fraction| {
        let risen = weight(j).times(level).minus(whole(fixed[j]));
        risen.most(whole(0)).least(whole(free))
    };
    let of_group =
        |g: &[usize], level: Fraction| g.iter().fold(whole(0), |sum, &j| sum.plus(share(j, level)));
    let turns = |g: &[usize]| -> Vec<Fraction> {
        g.iter()
            .flat_map(|&j| [whole(fixed[j]), whole(fixed[j] + free)].map(|v| v.over(weight(j))))
            .collect()
    };
    let own = |g: &[usize], bound: usize| reach(turns(g), whole(bound * free), &|l| of_group(g, l));
    let clamped = |z: usize, level: Fraction| {
        let (least, most) = zone_range[z];
        of_group(&groups[z], level)
            .most(whole(least * free))
            .least(whole(most * free))
    };
    let mut all = vec![];
    for (z, group) in groups.iter().enumerate() {
        all.extend(turns(group));
        all.push(own(group, zone_range[z].0));
        all.push(own(group, zone_range[z].1));
    }
    let total =
        |level: Fraction| (0..groups.len()).fold(whole(0), |sum, z| sum.plus(clamped(z, level)));
    let level = reach(all, whole(width * free), &total);
    let mut result = Bounds {
        width,
        zone,
        zone_range: zone_range.clone(),
        floor: vec![0; n],
        ceil: vec![0; n],
        lead_floor: vec![0; n],
        lead_ceil: vec![0; n],
        plain: input.frozen.is_empty() && input.nodes.iter().all(|node| node.may_lead),
    };
    let tolerance = i128::from(input.policy.tolerance_permille);
    let weights = eligible
        .iter()
        .fold(whole(0), |sum, &j| sum.plus(weight(j)));
    for (z, group) in groups.iter().enumerate() {
        let held = of_group(group, level);
        let level = if held.order(&whole(zone_range[z].0 * free)).is_lt() {
            own(group, zone_range[z].0)
        } else if held.order(&whole(zone_range[z].1 * free)).is_gt() {
            own(group, zone_range[z].1)
        } else {
            level
        };
        for &j in group {
            let x = share(j, level);
            let fair = whole(partitions * width).times(weight(j)).over(weights);
            result.plain &= x == fair;
            let lower = x.times(fraction(1_000 - tolerance, 1_000));
            let upper = x.times(fraction(1_000 + tolerance, 1_000));
            result.floor[j] = i64::try_from(lower.floor()).unwrap();
            result.ceil[j] = i64::try_from(upper.ceil())
                .unwrap()
                .min(i64::try_from(free).unwrap());
        }
    }
    let leaders: Vec<usize> = eligible
        .into_iter()
        .filter(|&j| input.nodes[j].may_lead)
        .collect();
    let weights = leaders.iter().fold(whole(0), |sum, &j| sum.plus(weight(j)));
    for j in leaders {
        let x = whole(partitions).times(weight(j)).over(weights);
        result.lead_floor[j] = i64::try_from(x.floor()).unwrap();
        result.lead_ceil[j] = i64::try_from(x.ceil()).unwrap();
    }
    result
}

/// Returns the smallest level at which the rising function `held`, straight between `turns`,
/// reaches `wanted`.
fn reach(
    mut turns: Vec<Fraction>,
    wanted: Fraction,
    held: &dyn Fn(Fraction) -> Fraction,
) -> Fraction {
    turns.push(whole(0));
    turns.sort_by(Fraction::order);
    let mut before = turns[0];
    for at in turns {
        let (low, high) = (held(before), held(at));
        if !high.order(&wanted).is_lt() {
            if high == low || high == wanted && at == before {
                return at;
            }
            let part = wanted.minus(low).over(high.minus(low));
            return before.plus(at.minus(before).times(part));
        }
        before = at;
    }
    before
}

/// Returns the distinct eligible members of the current row.
pub(crate) fn distinct(input: &PlacementInput, partition: usize) -> Vec<usize> {
    let mut members = vec![];
    for node in input.current.members(partition).map(usize::from) {
        let eligible = input
            .nodes
            .get(node)
            .is_some_and(|record| record.is_eligible());
        if eligible && !members.contains(&node) {
            members.push(node);
        }
    }
    members
}

/// A textbook minimum-cost flow: successive shortest paths by queue-based relaxation.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    arcs: Vec<(usize, i64, i64)>,
    out: Vec<Vec<usize>>,
}

impl Flow {
    pub(crate) fn arc(&mut self, from: usize, to: usize, capacity: i64, cost: i64) {
        self.out
            .resize(self.out.len().max(from + 1).max(to + 1), vec![]);
        self.out[from].push(self.arcs.len());
        self.arcs.push((to, capacity, cost));
        self.out[to].push(self.arcs.len());
        self.arcs.push((from, 0, -cost));
    }

    /// Sends as much as possible at the least cost and returns `(amount, cost)`.
    pub(crate) fn run(&mut self, source: usize, sink: usize) -> (i64, i64) {
        let (mut amount, mut total) = (0, 0);
        loop {
            let mut distance = vec![i64::MAX; self.out.len()];
            let mut via = vec![usize::MAX; self.out.len()];
            let mut queued = vec![false; self.out.len()];
            let mut queue = VecDeque::from([source]);
            distance[source] = 0;
            while let Some(v) = queue.pop_front() {
                queued[v] = false;
                for &arc in &self.out[v] {
                    let (to, capacity, cost) = self.arcs[arc];
                    if capacity > 0 && distance[v] + cost < distance[to] {
                        distance[to] = distance[v] + cost;
                        via[to] = arc;
                        if !queued[to] {
                            queued[to] = true;
                            queue.push_back(to);
                        }
                    }
                }
            }
            if distance[sink] == i64::MAX {
                return (amount, total);
            }
            let mut at = sink;
            while at != source {
                let arc = via[at];
                self.arcs[arc].1 -= 1;
                self.arcs[arc ^ 1].1 += 1;
                at = self.arcs[arc ^ 1].0;
            }
            amount += 1;
            total += distance[sink];
        }
    }
}

/// Makes using the first `least` units of an arc so attractive that it happens if it can.
const MUST: i64 = 1 << 30;

fn ranged(flow: &mut Flow, from: usize, to: usize, least: i64, most: i64) {
    flow.arc(from, to, least, -MUST);
    flow.arc(from, to, most - least, 0);
}

/// Returns the fewest copies of any placement within the bounds.
pub(crate) fn fewest_moves(input: &PlacementInput, bounds: &Bounds) -> i64 {
    let (n, zones) = (input.nodes.len(), bounds.zone_range.len());
    let mut flow = Flow::default();
    let (source, sink, first) = (0, 1, 2 + n);
    let (mut wanted, mut musts) = (0, 0);
    for p in (0..input.partition_count as usize).filter(|&p| !input.is_frozen(p)) {
        let row = first + p * (zones + 1);
        let width = i64::try_from(bounds.width).unwrap();
        flow.arc(source, row, width, 0);
        wanted += width;
        let held = distinct(input, p);
        for (z, &(least, most)) in bounds.zone_range.iter().enumerate() {
            let (least, most) = (i64::try_from(least).unwrap(), i64::try_from(most).unwrap());
            ranged(&mut flow, row, row + 1 + z, least, most);
            musts += least;
        }
        for j in 0..n {
            if let Some(z) = bounds.zone[j] {
                flow.arc(row + 1 + z, 2 + j, 1, i64::from(!held.contains(&j)));
            }
        }
    }
    for j in (0..n).filter(|&j| bounds.zone[j].is_some()) {
        ranged(&mut flow, 2 + j, sink, bounds.floor[j], bounds.ceil[j]);
        musts += bounds.floor[j];
    }
    flow.arc(
        source,
        source + 2 + n + input.partition_count as usize * (zones + 1),
        0,
        0,
    );
    let (amount, cost) = flow.run(source, sink);
    assert_eq!(amount, wanted, "the bounds allow no placement");
    let moves = cost + MUST * musts;
    assert!((0..MUST).contains(&moves), "a lower bound cannot be met");
    moves
}

/// Returns the least `(violation, changes, fresh)` of primaries on the given rows.
pub(crate) fn best_primaries(
    input: &PlacementInput,
    bounds: &Bounds,
    rows: &Rows,
) -> (i64, i64, i64) {
    const CHANGE: i64 = 1 << 12;
    const BEYOND: i64 = 1 << 26;
    let n = input.nodes.len();
    let mut flow = Flow::default();
    let mut floors = 0;
    for p in 0..rows.len() {
        let current = input.current.row(p);
        let primary = current.first().copied().filter(|&j| j != NO_NODE);
        let pinned = primary.filter(|&j| {
            let record = input.nodes.get(usize::from(j));
            input.is_frozen(p) && record.is_some_and(|r| r.standing != Standing::Excluded)
        });
        let may_lead = |j: &u16| {
            let record = &input.nodes[usize::from(*j)];
            match pinned {
                Some(pinned) => pinned == *j && record.is_eligible(),
                None => record.may_lead && record.is_eligible(),
            }
        };
        flow.arc(0, 2 + n + p, 1, 0);
        let home = input.home.primary(p);
        let any = rows
            .members(p)
            .filter(may_lead)
            .any(|j| current.contains(&j));
        for j in rows.members(p).filter(may_lead) {
            let fresh = any && !current.contains(&j) && home != Some(j);
            let cost = match primary == Some(j) {
                true => 0,
                false => CHANGE + i64::from(fresh),
            };
            flow.arc(2 + n + p, 2 + usize::from(j), 1, cost);
        }
    }
    for j in 0..n {
        let (floor, ceil) = (bounds.lead_floor[j], bounds.lead_ceil[j]);
        flow.arc(2 + j, 1, floor, -BEYOND);
        flow.arc(2 + j, 1, ceil - floor, 0);
        flow.arc(2 + j, 1, i64::from(input.partition_count), BEYOND);
        floors += floor;
    }
    let (_, cost) = flow.run(0, 1);
    let cost = cost + BEYOND * floors;
    (cost / BEYOND, cost % BEYOND / CHANGE, cost % CHANGE)
}
