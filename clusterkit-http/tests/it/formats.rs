//! The tables of docs/formats.md name every code, reason and limit there is, and no other.

use std::collections::BTreeSet;

use clusterkit_http::api::ProblemCode;

const FORMATS: &str = include_str!("../../../docs/formats.md");
const PROBLEM: &str = include_str!("../../src/api/problem.rs");
const REASON: &str = include_str!("../../../clusterkit-core/src/explain/reason.rs");
const BLOCKER: &str = include_str!("../../../clusterkit-core/src/operation/blocker.rs");
const OPERATION: &str = include_str!("../../../clusterkit-core/src/operation/mod.rs");
const MAY_STOP: &str = include_str!("../../../clusterkit-core/src/adjust/may_stop.rs");
const PREVIEW: &str = include_str!("../../../clusterkit-core/src/explain/preview.rs");

/// Returns the cells of each line of the table whose first column is called `name`.
fn table(name: &str) -> Vec<Vec<String>> {
    let head = format!("| {name} |");
    let lines = FORMATS.lines().skip_while(|line| !line.starts_with(&head));
    let body = lines.skip(2).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim_matches('|').split('|');
        inner.map(|cell| cell.trim().to_owned()).collect()
    };
    body.map(cells).collect()
}

/// Returns the variants of the enum `name` in `source`, as JSON names them.
fn variants(source: &str, name: &str) -> BTreeSet<String> {
    let start = source.find(&format!("pub enum {name} {{")).unwrap();
    let body = &source[start..];
    let body = &body[..body.find("\n}").unwrap()];
    let variant = |line: &str| {
        let text = line.strip_prefix("    ")?;
        let name = text.split([' ', ',']).next()?;
        text.starts_with(|c: char| c.is_ascii_uppercase())
            .then(|| snake(name))
    };
    body.lines().filter_map(variant).collect()
}

fn snake(name: &str) -> String {
    let mut text = String::new();
    for (at, letter) in name.chars().enumerate() {
        if letter.is_ascii_uppercase() && at > 0 {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

fn named(rows: &[Vec<String>]) -> BTreeSet<String> {
    rows.iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect()
}

#[test]
fn every_problem_code_is_listed_with_its_status() {
    let rows = table("code");
    assert_eq!(named(&rows), variants(PROBLEM, "ProblemCode"));
    for row in rows {
        let text = row[0].trim_matches('`');
        let code: ProblemCode = serde_json::from_value(text.into()).unwrap();
        assert_eq!(code.as_str(), text);
        assert_eq!(row[1], code.status().to_string(), "{text}");
        assert_eq!(row[2] == "yes", code.is_retryable(), "{text}");
        assert!(!row[3].is_empty(), "{text}");
    }
}

#[test]
fn every_reason_limit_blocker_and_kind_of_operation_is_listed() {
    assert_eq!(named(&table("reason")), variants(REASON, "Reason"));
    assert_eq!(named(&table("limit")), variants(PREVIEW, "Limit"));
    assert_eq!(named(&table("blocker")), variants(BLOCKER, "Blocker"));
    assert_eq!(named(&table("risk")), variants(MAY_STOP, "StopRisk"));
    assert_eq!(named(&table("kind")), variants(OPERATION, "OperationKind"));
}
