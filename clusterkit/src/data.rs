//! Custom data: small values that every node of the cluster agrees on.
//!
//! Writes work on any node and are ordered by the log; reads answer from what is applied here. For
//! configuration and coordination, not for the application's own data: at most 1 MiB a value and
//! 4,096 keys.

use std::sync::Arc;

use clusterkit_core::command::{Command, Expected, Rejected};
use clusterkit_core::control::{ControlPlane, ProposeError};
use clusterkit_core::id::LogIndex;

use crate::error::NodeError;
use crate::node::ClusterKit;

/// A value of custom data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DataValue {
    /// The value.
    pub value: Arc<[u8]>,
    /// What [`ClusterKit::compare_and_set`] compares: changes with every write of the key.
    pub version: LogIndex,
}

/// The outcome of a conditional write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "it was written or it was not")]
pub enum Cas {
    /// It was written, under this version.
    Written(LogIndex),
    /// Nothing was written: this version stands there, none when nothing does.
    Mismatch(Option<LogIndex>),
}

impl ClusterKit {
    /// Writes `value` under `key` and returns its version.
    ///
    /// # Errors
    /// [`NodeError::Propose`]: rejected with the field, value and limit when key or value are too
    /// large; `Unknown` when it may or may not be written.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn set_data(
        &self,
        key: impl Into<String>,
        value: impl Into<Arc<[u8]>>,
    ) -> Result<LogIndex, NodeError> {
        let (key, value) = (key.into(), value.into());
        let command = Command::SetData {
            key,
            value,
            expected: Expected::Any,
        };
        Ok(self.inner().member_control().propose(command).await?.index)
    }

    /// Writes `value` under `key` if the version there is `expected`; none means nothing is there.
    ///
    /// # Errors
    /// As [`set_data`](Self::set_data). That the versions differ is no error but an outcome.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn compare_and_set(
        &self,
        key: impl Into<String>,
        expected: Option<LogIndex>,
        value: impl Into<Arc<[u8]>>,
    ) -> Result<Cas, NodeError> {
        let expected = expected.map_or(Expected::Absent, Expected::Version);
        let command = Command::SetData {
            key: key.into(),
            value: value.into(),
            expected,
        };
        match self.inner().member_control().propose(command).await {
            Ok(applied) => Ok(Cas::Written(applied.index)),
            Err(ProposeError::Rejected(Rejected::DataMismatch { version, .. })) => {
                Ok(Cas::Mismatch(version))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes `key`. Removing what is not there does nothing.
    ///
    /// # Errors
    /// As [`set_data`](Self::set_data).
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    pub async fn delete_data(&self, key: impl Into<String>) -> Result<(), NodeError> {
        let command = Command::DeleteData {
            key: key.into(),
            expected: Expected::Any,
        };
        self.inner().member_control().propose(command).await?;
        Ok(())
    }

    /// Returns the value of `key` as applied on this node. For a value no older than the call, wait
    /// for [`read_barrier`](Self::read_barrier) first.
    #[must_use]
    pub fn get_data(&self, key: &str) -> Option<DataValue> {
        let view = self.inner().view();
        let entry = view.state.data(key)?;
        Some(DataValue {
            value: Arc::clone(&entry.value),
            version: entry.version,
        })
    }

    /// Returns the keys that begin with `prefix` and their versions, in key order.
    #[must_use]
    pub fn list_data(&self, prefix: &str) -> Vec<(String, LogIndex)> {
        let view = self.inner().view();
        let entries = view.state.data_with_prefix(prefix);
        entries
            .map(|(key, entry)| (key.to_owned(), entry.version))
            .collect()
    }
}
