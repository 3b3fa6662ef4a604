//! The documents about what goes on: pause switches.

use clusterkit_core::pause::{Pause, Work};
use clusterkit_core::state::ClusterState;
use serde::{Deserialize, Serialize};

use super::text::rfc3339;

/// A switch that is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PauseDocument {
    /// What is paused.
    pub work: Work,
    /// Since when, RFC 3339.
    pub since: String,
    /// Why, as the operator put it; empty when nothing was said.
    pub reason: String,
}

impl From<&Pause> for PauseDocument {
    fn from(pause: &Pause) -> Self {
        Self {
            work: pause.work,
            since: rfc3339(pause.since),
            reason: pause.reason.to_string(),
        }
    }
}

/// `GET /v1/pauses`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PausesDocument {
    /// The switches that are on.
    pub paused: Vec<PauseDocument>,
}

impl From<&ClusterState> for PausesDocument {
    fn from(state: &ClusterState) -> Self {
        let paused = state.pauses().iter().map(PauseDocument::from).collect();
        Self { paused }
    }
}

/// The body of `PUT /v1/pauses/{work}`, which may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct PauseRequest {
    /// Why, at most 256 bytes.
    pub reason: String,
}
