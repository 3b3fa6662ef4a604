//! Bugs that can be planted on purpose, to show that the simulator finds them.
//!
//! Without the feature `planted` every question answers "no" at compile time, so that nothing of
//! it remains in a build that ships. With it, a process plants at most one bug, once. What each
//! bug breaks and within how many seeds it must be found stands in `clusterkit-sim`.

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Bug {
            $($(#[$doc])* $name,)*
        }

        impl Bug {
            /// Every bug there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns its name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

bugs! {
    /// A primary is chosen among all live members, in sync or not.
    PromoteOutOfSync = "promote-out-of-sync",
    /// A move switches although a joining node has not reported that it is in sync.
    SwitchBeforeSynced = "switch-before-synced",
    /// A new leader does not wait until the leases of its predecessors are over.
    SkipLeaseWait = "skip-lease-wait",
    /// A node counts its lease from the arrival of a grant, not from its request.
    RenewAfterExpiry = "renew-after-expiry",
    /// A leader waits for the lease alone, as if all clocks ran equally fast.
    ForgetMargin = "forget-margin",
    /// A leader grants leases without proof that it still leads.
    GrantOnDeposedLeader = "grant-on-deposed-leader",
    /// A token is made before everybody is known to have let go.
    IgnoreFence = "ignore-fence",
    /// A new leader leaves the plan alone that it finds in force.
    ForgetPlan = "forget-plan",
    /// A node whose disk was wiped gets the internal id of the member it replaces.
    ReuseRaftId = "reuse-raft-id",
    /// An answer about an earlier stage counts for the present one.
    AcceptLateAnswer = "accept-late-answer",
    /// A move whose copying node has died is not called off.
    NeverRevert = "never-revert",
    /// A move that is called off leaves the partition's epoch as it was.
    RevertKeepsEpoch = "revert-keeps-epoch",
    /// Members that a move replaces are asked to let go when it begins.
    ReleaseBeforeSwitch = "release-before-switch",
    /// The first event after a cursor is left out.
    SkipEventOnResume = "skip-event-on-resume",
    /// A plan counts on whatever epoch it was made.
    PlanOnAnyEpoch = "plan-on-any-epoch",
    /// However many nodes are down, data is copied.
    CopyWhileProtected = "copy-while-protected",
    /// One node more than allowed may be down before copies are withheld.
    MaxDownOffByOne = "max-down-off-by-one",
    /// A change of the topology that no event tells of leaves the epoch as it was, so that no watcher
    /// asks for it.
    EpochStandsStill = "epoch-stands-still",
    /// Moves that are held back by a pause begin all the same.
    IgnorePause = "ignore-pause",
    /// What a command does depends on what else the process has done.
    ApplyDependsOnProcess = "apply-depends-on-process",
    /// A node that returns is told that all its copies are current.
    RejoinIsCurrent = "rejoin-is-current",
    /// A failover leaves the partition's epoch as it was.
    FailoverKeepsEpoch = "failover-keeps-epoch",
    /// A node is declared down although it was heard within its lease.
    CondemnTheHeard = "condemn-the-heard",
    /// A node that the leader does not hear is declared down although others see it.
    CondemnDespiteSighting = "condemn-despite-sighting",
    /// The log's file is never synced: what is acknowledged is lost with the power.
    SkipFsync = "skip-fsync",
    /// The name of a new log is not synced: a node that was admitted returns as a new one.
    SkipDirectorySync = "skip-directory-sync",
    /// The log is acknowledged before it is written, let alone synced.
    AckBeforeFsync = "ack-before-fsync",
    /// A node that starts applies what stands in its log, committed or not.
    ApplyUncommitted = "apply-uncommitted",
    /// A read that must be current answers from what is applied here.
    StaleRead = "stale-read",
    /// Any node that hears of no cluster forms one, as if it were the first of its list.
    TwoBootstraps = "two-bootstraps",
    /// A leader counts a member that it cannot reach as one that has the log: its majority is one
    /// too small.
    QuorumOffByOne = "quorum-off-by-one",
    /// The entity tag of the topology never changes.
    EtagNeverChanges = "etag-never-changes",
    /// The key-value primary answers reads without proof that it still is one.
    KvReadUnproven = "kv-read-unproven",
    /// The key-value store acknowledges a write before the disk has it.
    KvAckBeforeDisk = "kv-ack-before-disk",
    /// The key-value primary acknowledges a write before the copies have it.
    KvAckBeforeCopies = "kv-ack-before-copies",
}

impl Bug {
    /// Returns the bug called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

/// Tells whether `bug` is planted in this process.
#[cfg(not(feature = "planted"))]
#[must_use]
#[inline(always)]
pub const fn is_on(_bug: Bug) -> bool {
    false
}

/// Tells something about this process that no command says. For one bug only.
#[cfg(not(feature = "planted"))]
#[must_use]
#[inline(always)]
pub const fn parity_of_process() -> bool {
    false
}

#[cfg(feature = "planted")]
pub use switch::{is_on, parity_of_process, plant};

#[cfg(feature = "planted")]
mod switch {
    use core::sync::atomic::{AtomicU32, Ordering};

    use super::Bug;

    /// One more than the discriminant of the planted bug; 0 while there is none.
    static PLANTED: AtomicU32 = AtomicU32::new(0);

    /// How often [`parity_of_process`] was asked.
    static ASKED: AtomicU32 = AtomicU32::new(0);

    /// Tells something about this process that no command says. For one bug only.
    #[must_use]
    pub fn parity_of_process() -> bool {
        ASKED.fetch_add(1, Ordering::Relaxed).is_multiple_of(2)
    }

    /// Tells whether `bug` is planted in this process.
    #[must_use]
    #[inline]
    pub fn is_on(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as u32 + 1
    }

    /// Plants `bug` in this process, in place of any planted before.
    pub fn plant(bug: Bug) {
        PLANTED.store(bug as u32 + 1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_is_found_by_its_own_name() {
        for &bug in Bug::ALL {
            assert_eq!(Bug::from_name(bug.name()), Some(bug));
        }
        assert_eq!(Bug::from_name("none"), None);
    }
}
