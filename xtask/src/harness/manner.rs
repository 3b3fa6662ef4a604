//! How the nodes of a cluster run: options of the command line that are handed to every process.

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
    fn name(self) -> &'static str {
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
        };
        assert_eq!(usual.shown(), "");
        let other = Manner {
            store: Store::Memory,
            profile: Profile::Fast,
        };
        assert_eq!(other.shown(), " --store memory --profile fast");
        assert_eq!(other.args(), ["--store", "memory", "--profile", "fast"]);
    }
}
