//! What a crash leaves of what was not synced.

use std::fmt;

use crate::Rng;

/// How one loss of power treats what was not synced. A system writes back in an order of its own,
/// so that each of these is seen in the field.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Nothing had been written back.
    AllLost,
    /// All had been written back, and nobody knows.
    AllKept,
    /// It was written back in order, up to one write; `torn` in the middle of it.
    Prefix { permille: u32, torn: bool },
    /// Any of it, each write whole or not at all.
    Scattered { permille: u32 },
    /// Any of it, down to single sectors.
    Torn { permille: u32 },
}

/// Decides about one crash.
#[derive(Debug)]
pub(super) struct Fate<'a> {
    rng: &'a mut Rng,
    manner: Manner,
}

/// What becomes of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Survives {
    Wholly,
    Partly,
    Not,
}

impl Survives {
    pub(super) fn wholly(self) -> bool {
        self == Self::Wholly
    }

    pub(super) fn partly(self) -> bool {
        self == Self::Partly
    }
}

impl<'a> Fate<'a> {
    /// Draws how a loss of power treats everything; `torn` lets writes survive in part.
    pub(super) fn new(rng: &'a mut Rng, torn: bool) -> Self {
        let kind = rng.below(10);
        let permille = u32::try_from(rng.within(50..=950)).unwrap_or(500);
        let manner = match kind {
            0 | 1 => Manner::AllLost,
            2 => Manner::AllKept,
            3..=5 => Manner::Prefix { permille, torn },
            _ if torn => Manner::Torn { permille },
            _ => Manner::Scattered { permille },
        };
        Self { rng, manner }
    }

    /// Decides about the change at `position` of `count`.
    pub(super) fn of(&mut self, position: usize, count: usize) -> Survives {
        let survives = |kept| {
            if kept {
                Survives::Wholly
            } else {
                Survives::Not
            }
        };
        match self.manner {
            Manner::AllLost => Survives::Not,
            Manner::AllKept => Survives::Wholly,
            Manner::Prefix { permille, torn } => {
                let cut = count as u64 * u64::from(permille) / 1_000;
                match (position as u64).cmp(&cut) {
                    std::cmp::Ordering::Less => Survives::Wholly,
                    std::cmp::Ordering::Equal if torn => Survives::Partly,
                    std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => Survives::Not,
                }
            }
            Manner::Scattered { permille } => survives(self.rng.chance(permille)),
            Manner::Torn { permille } => {
                if self.rng.chance(permille) {
                    Survives::Partly
                } else {
                    survives(self.rng.chance(permille))
                }
            }
        }
    }

    /// Decides about one sector of a change that survives partly.
    pub(super) fn sector(&mut self) -> bool {
        self.rng.chance(500)
    }

    /// Returns how many of `count` changes of names were written back. A system journals names:
    /// what comes later never survives without what came before.
    pub(super) fn names(&mut self, count: usize) -> usize {
        match self.manner {
            Manner::AllLost => 0,
            Manner::AllKept => count,
            Manner::Prefix { .. } | Manner::Scattered { .. } | Manner::Torn { .. } => {
                self.rng.index(count + 1)
            }
        }
    }
}

/// What a crash took, for the trace. Counted in parts of pages that were written, changes of
/// length and changes of names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CrashReport {
    /// Not synced, and there all the same.
    pub kept: u64,
    /// Not synced, and there in part.
    pub torn: u64,
    /// Not synced, and gone.
    pub lost: u64,
    /// Files created, renamed or removed without it being durable, and undone.
    pub names_undone: u64,
}

impl CrashReport {
    pub(super) const fn count(&mut self, survives: Survives) {
        match survives {
            Survives::Wholly => self.kept += 1,
            Survives::Partly => self.torn += 1,
            Survives::Not => self.lost += 1,
        }
    }
}

impl fmt::Display for CrashReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unsynced writes {} kept, {} torn, {} lost; {} changes of names undone",
            self.kept, self.torn, self.lost, self.names_undone
        )
    }
}
