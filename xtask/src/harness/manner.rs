//! How the nodes of a cluster run: options of the command line that are handed to every process.

use std::time::Duration;

use clap::{Args, ValueEnum};

/// Where the `kv` program keeps its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    /// In memory: a restarted process has lost its records.
    Memory,
    /// In a redb file in the data directory.
    Redb,
}

/// How fast nodes notice and decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// One data centre: the default of the library.
    Lan,
    /// Quiet machines and a fast network.
    Fast,
    /// Several data centres.
    Wan,
}

/// How every node of a cluster runs.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Manner {
    /// Where the nodes keep records.
    #[arg(long, value_enum, default_value = "redb")]
    pub(crate) store: Store,
    /// How fast the nodes notice failures.
    #[arg(long, value_enum, default_value = "lan")]
    pub(crate) profile: Profile,
    /// How many partitions the cluster has [default: the demo 240, which three, four and five
    /// nodes can share evenly, elsewhere the library's].
    #[arg(long)]
    pub(crate) partitions: Option<u32>,
}

impl Manner {
    /// Returns the command line of a node.
    pub(super) fn args(self) -> [&'static str; 4] {
        [
            "--store",
            self.store.name(),
            "--profile",
            self.profile.name(),
        ]
    }

    /// Returns the options that differ from the defaults, to be repeated.
    pub(crate) fn shown(self) -> String {
        let mut shown = String::new();
        if self.store != Store::Redb {
            shown.push_str(&format!(" --store {}", self.store.name()));
        }
        if self.profile != Profile::Lan {
            shown.push_str(&format!(" --profile {}", self.profile.name()));
        }
        if let Some(partitions) = self.partitions {
            shown.push_str(&format!(" --partitions {partitions}"));
        }
        shown
    }
}

impl Store {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redb => "redb",
        }
    }
}

impl Profile {
    /// Returns how long after its last heartbeat a silent node is declared down: lease, margin and
    /// window of the library's profile of this name.
    pub(crate) const fn removal(self) -> Duration {
        Duration::from_millis(match self {
            Self::Lan => 1_350,
            Self::Fast => 220,
            Self::Wan => 6_250,
        })
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Fast => "fast",
            Self::Wan => "wan",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_repeated() {
        let usual = Manner {
            store: Store::Redb,
            profile: Profile::Lan,
            partitions: None,
        };
        assert_eq!(usual.shown(), "");
        let other = Manner {
            store: Store::Memory,
            profile: Profile::Fast,
            partitions: Some(64),
        };
        assert_eq!(
            other.shown(),
            " --store memory --profile fast --partitions 64"
        );
        assert_eq!(other.args(), ["--store", "memory", "--profile", "fast"]);
    }
}
