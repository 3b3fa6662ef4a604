//! The check refuses what is not valid, not balanced or not minimal, and never panics on nonsense.

use clusterkit_core::placement::{
    Certificate, MinimalMove, Placement, PlacementInput, PlacementStrategy, Rendezvous, Rows,
    Standing, VerifyError, verify,
};
use proptest::prelude::*;

use super::properties::{check, place};
use super::scenario::{Dice, config, even_cluster, freeze_some, random};

/// A settled cluster of three zones that one node joins.
fn joined() -> (PlacementInput, Placement) {
    let mut input = even_cluster(64, 7, 3);
    let newcomer = input.nodes.pop().unwrap();
    input.current = place(&input).rows;
    input.nodes.push(newcomer);
    let placement = place(&input);
    verify(&input, &placement).unwrap();
    (input, placement)
}

/// A rule and a change of a row that breaks it.
type Breach = (&'static str, fn(&mut Vec<u16>));

fn with_row(rows: &Rows, partition: usize, change: impl Fn(&mut Vec<u16>)) -> Rows {
    let row = |(at, row): (usize, &[u16])| {
        let mut row = row.to_vec();
        if at == partition {
            change(&mut row);
        }
        row
    };
    rows.iter().enumerate().map(row).collect()
}

#[test]
fn broken_rows_are_refused() {
    let (input, placement) = joined();
    let changes: [Breach; 6] = [
        ("a member does not exist", |row| row[1] = 99),
        ("a member is listed twice", |row| row[1] = row[0]),
        ("the number of replicas is wrong", |row| row.truncate(2)),
        ("only the primary may be missing", |row| row[2] = u16::MAX),
        ("the primary must be a member that may lead", |row| {
            row[0] = u16::MAX
        }),
        ("a zone holds too few or too many replicas", |row| {
            // Another node of the primary's zone takes the place of the last member.
            row[2] = if row[0] < 3 { row[0] + 3 } else { row[0] - 3 };
        }),
    ];
    for (expected, change) in changes {
        let mut other = placement.clone();
        other.rows = with_row(&placement.rows, 5, change);
        match verify(&input, &other) {
            Err(VerifyError::Row { partition: 5, rule }) => assert_eq!(rule, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    let mut short = placement;
    short.rows = short.rows.iter().take(63).collect();
    assert!(matches!(
        verify(&input, &short),
        Err(VerifyError::Row { .. })
    ));
}

#[test]
fn a_frozen_row_that_changed_is_refused() {
    let (mut input, placement) = joined();
    let moved = (0..64)
        .find(|&p| placement.rows.row(p) != input.current.row(p))
        .unwrap();
    input.frozen = vec![false; 64];
    input.frozen[moved] = true;
    let refused = verify(&input, &placement).unwrap_err().to_string();
    assert!(refused.contains("frozen"), "{refused}");
}

#[test]
fn more_moves_than_needed_are_refused() {
    // Everything moved around in a circle of equal nodes is as balanced as before.
    let mut input = even_cluster(60, 6, 1);
    input.current = place(&input).rows;
    let mut placement = place(&input);
    assert_eq!(placement.moves, 0);
    let turned = |row: &[u16]| row.iter().map(|node| (node + 1) % 6).collect::<Vec<_>>();
    placement.rows = placement.rows.iter().map(turned).collect();
    let refused = verify(&input, &placement).unwrap_err();
    assert!(matches!(
        refused,
        VerifyError::NotMinimal {
            what: "moves",
            bound: 0,
            ..
        }
    ));
}

#[test]
fn more_primary_changes_than_needed_are_refused() {
    let mut input = even_cluster(60, 6, 1);
    input.current = place(&input).rows;
    let mut placement = place(&input);
    placement.rows = placement
        .rows
        .iter()
        .map(|row| [row[1], row[2], row[0]])
        .collect();
    let refused = verify(&input, &placement).unwrap_err();
    assert!(
        matches!(
            refused,
            VerifyError::NotMinimal {
                what: "primaries",
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn a_forged_certificate_proves_nothing() {
    let (input, placement) = joined();
    let forged = |change: &dyn Fn(&mut Certificate)| {
        let mut other = placement.clone();
        change(other.certificate.as_mut().unwrap());
        verify(&input, &other).unwrap_err()
    };
    assert!(matches!(
        forged(&|c| c.per_zone = 2),
        VerifyError::ZoneCap { per_zone: 2 }
    ));
    assert!(matches!(
        forged(&|c| c.level.0 += 1),
        VerifyError::Level { .. }
    ));
    assert!(matches!(
        forged(&|c| c.level = (1, 0)),
        VerifyError::Level { .. }
    ));
    assert!(matches!(
        forged(&|c| c.level = (u128::MAX, u128::MAX)),
        VerifyError::Level { .. }
    ));
    assert!(matches!(
        forged(&|c| c.zone_levels.clear()),
        VerifyError::Level { .. }
    ));
    assert!(matches!(
        forged(&|c| c.replica_prices.truncate(3)),
        VerifyError::NoCertificate { .. }
    ));
    assert!(matches!(
        forged(&|c| c.replica_prices.fill(9)),
        VerifyError::NotMinimal { .. }
    ));
    assert!(matches!(
        forged(&|c| c.primary_prices.fill(i64::MAX)),
        VerifyError::NotMinimal { .. }
    ));
    let mut other = placement.clone();
    other.moves -= 1;
    assert!(matches!(
        verify(&input, &other),
        Err(VerifyError::Count { what: "moves", .. })
    ));
    other.certificate = None;
    assert!(matches!(
        verify(&input, &other),
        Err(VerifyError::NoCertificate { .. })
    ));
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn no_prices_prove_more_than_the_truth(seed: u64) {
        // Weak duality: whatever the prices, what passes has as many moves as the solver's.
        let mut dice = Dice::new(seed);
        let input = random(&mut dice, 10, 16);
        let input = if dice.chance(30) { freeze_some(input, &mut dice) } else { input };
        let best = place(&input);
        let mut other = Rendezvous::new().place(&input).unwrap();
        let mut forged = best.certificate.clone().unwrap();
        for price in &mut forged.replica_prices {
            *price += i32::try_from(dice.roll(5)).unwrap() - 2;
        }
        other.certificate = Some(forged.clone());
        if let Ok(verdict) = verify(&input, &other) {
            prop_assert_eq!(verdict.moves, best.moves);
        }
        let mut same = best.clone();
        same.certificate = Some(forged);
        if let Ok(verdict) = verify(&input, &same) {
            prop_assert_eq!(verdict.moves, best.moves);
        }
    }

    #[test]
    fn an_overload_limit_trades_spread_for_balance(seed: u64) {
        let mut dice = Dice::new(seed);
        let mut input = even_cluster(48, 3 + dice.roll(8), 3);
        input.nodes.truncate(12);
        for node in &mut input.nodes {
            node.zone = ["a", "a", "b", "c"][dice.roll(4)].into();
        }
        let strict = check(&input);
        let limit = 1_000 + u32::try_from(dice.roll(1_500)).unwrap();
        input.policy.overload_limit_permille = Some(limit);
        let limited = place(&input);
        prop_assert!(verify(&input, &limited).is_ok());
        prop_assert!(limited.flags.per_zone >= strict.flags.per_zone);
        let count = |placement: &Placement| {
            let mut loads = vec![0u32; input.nodes.len()];
            placement.rows.iter().flatten().for_each(|&node| loads[usize::from(node)] += 1);
            loads.into_iter().max().unwrap()
        };
        let live = input.nodes.iter().filter(|node| node.standing == Standing::Eligible).count();
        let fair = 48 * 3u32 / u32::try_from(live).unwrap();
        if !limited.flags.overloaded {
            prop_assert!(count(&limited) <= (fair + 1) * limit / 1_000 + 1);
        }
        prop_assert!(count(&limited) <= count(&strict));
    }
}

#[test]
fn inputs_and_answers_survive_being_recorded() {
    let (input, placement) = joined();
    let text = serde_json::to_string(&(&input, &placement)).unwrap();
    let (again, answer): (PlacementInput, Placement) = serde_json::from_str(&text).unwrap();
    assert_eq!((&again, &answer), (&input, &placement));
    assert_eq!(MinimalMove::new().place(&again).unwrap(), placement);
}
