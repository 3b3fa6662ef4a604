//! Parameters, conditional headers and JSON bodies, refused by name.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use clusterkit_core::id::Epoch;
use clusterkit_core::planted::{self, Bug};
use serde::de::DeserializeOwned;

use crate::api::{Problem, ProblemCode};
use crate::server::{Request, Response};

/// Returns the number called `name`, `default` when it is not given.
pub(super) fn number<T>(
    request: &Request,
    name: &str,
    default: T,
    range: &RangeInclusive<T>,
) -> Result<T, Problem>
where
    T: FromStr + PartialOrd + Display,
{
    let Some(text) = request.query().text(name) else {
        return Ok(default);
    };
    text.parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            let limit = format!("a whole number from {} to {}", range.start(), range.end());
            Problem::invalid(name, &text, limit)
        })
}

/// Returns the switch called `name`, off when it is not given.
pub(super) fn flag(request: &Request, name: &str) -> Result<bool, Problem> {
    match request.query().text(name).as_deref() {
        None | Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(other) => Err(Problem::invalid(name, other, "true or false")),
    }
}

/// Reads the body as JSON; the refusal names the position.
pub(super) fn json<T: DeserializeOwned>(request: &Request) -> Result<T, Problem> {
    serde_json::from_slice(request.body()).map_err(|error| {
        // The message ends with "at line L column C".
        Problem::new(
            ProblemCode::BadJson,
            format!("the body is not the JSON document expected: {error}"),
        )
    })
}

/// Tells whether the caller prefers `kind` by naming it in `Accept`.
pub(super) fn accepts(request: &Request, kind: &str) -> bool {
    request
        .header("accept")
        .is_some_and(|accepted| accepted.to_ascii_lowercase().contains(kind))
}

/// The entity tag of `epoch`.
pub(super) fn etag(epoch: Epoch) -> String {
    // Planted bug: whoever has asked once is told for ever that nothing is new.
    if planted::is_on(Bug::EtagNeverChanges) {
        return String::from("\"1\"");
    }
    format!("\"{epoch}\"")
}

/// Tells whether the caller already has `etag`.
pub(super) fn none_match(request: &Request, etag: &str) -> bool {
    request
        .header("if-none-match")
        .is_some_and(|known| known.split(',').any(|one| matches(one, etag)))
}

/// Compares one entry of a conditional header; the weak mark and missing quotes are forgiven.
fn matches(given: &str, etag: &str) -> bool {
    let given = given.trim();
    let bare = given.strip_prefix("W/").unwrap_or(given).trim_matches('"');
    bare == "*" || bare == etag.trim_matches('"')
}

/// The 304 that `etag` still holds.
pub(super) fn not_modified(etag: &str) -> Response {
    Response::empty(304).header("etag", etag)
}
