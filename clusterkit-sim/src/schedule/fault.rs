//! Everything that can go wrong, each as one readable line that parses back.
//!
//! A fault says what happens and for how long; that it ends is part of it, so that a schedule from
//! which others are struck out still makes sense. Nodes are named by their number in the run.

use std::fmt;
use std::time::Duration;

use clusterkit_core::pause::Work;

use super::MalformedSchedule;

/// One end of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "what a network is cut by")]
pub enum Side {
    /// The node of this number.
    Node(u32),
    /// All nodes of this zone.
    Zone(u32),
}

/// What a crash does to writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "what disks do")]
pub enum Unsynced {
    /// They survive: the process died, the machine did not.
    Kept,
    /// Some are lost, in any combination.
    Lost,
    /// Some are lost, and one is written in part.
    Torn,
}

/// A field of a fault as text.
trait Field: Sized {
    fn write(&self) -> String;
    fn read(text: &str) -> Option<Self>;
}

macro_rules! plain_fields {
    ($($kind:ty),*) => {
        $(impl Field for $kind {
            fn write(&self) -> String {
                self.to_string()
            }

            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        })*
    };
}

plain_fields!(u32, u64, i32, bool);

impl Field for Duration {
    fn write(&self) -> String {
        let (seconds, micros) = (self.as_secs(), self.subsec_micros());
        let text = format!("{seconds}.{micros:06}");
        let short = text.trim_end_matches('0').trim_end_matches('.');
        format!("{short}s")
    }

    fn read(text: &str) -> Option<Self> {
        let text = text.strip_suffix('s')?;
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if fraction.len() > 6 || !is_digits(fraction) || !is_digits(seconds) {
            return None;
        }
        let micros: u32 = format!("{fraction:0<6}").parse().ok()?;
        Some(Self::new(seconds.parse().ok()?, micros * 1_000))
    }
}

impl Field for Side {
    fn write(&self) -> String {
        match self {
            Self::Node(number) => format!("n{number}"),
            Self::Zone(number) => format!("z{number}"),
        }
    }

    fn read(text: &str) -> Option<Self> {
        match text.split_at_checked(1)? {
            ("n", number) => Some(Self::Node(number.parse().ok()?)),
            ("z", number) => Some(Self::Zone(number.parse().ok()?)),
            _ => None,
        }
    }
}

impl Field for Work {
    fn write(&self) -> String {
        self.to_string()
    }

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Field for Unsynced {
    fn write(&self) -> String {
        let text = match self {
            Self::Kept => "kept",
            Self::Lost => "lost",
            Self::Torn => "torn",
        };
        String::from(text)
    }

    fn read(text: &str) -> Option<Self> {
        match text {
            "kept" => Some(Self::Kept),
            "lost" => Some(Self::Lost),
            "torn" => Some(Self::Torn),
            _ => None,
        }
    }
}

/// Numbers of nodes, `1,4,7`.
impl Field for Vec<u32> {
    fn write(&self) -> String {
        let numbers: Vec<String> = self.iter().map(ToString::to_string).collect();
        numbers.join(",")
    }

    fn read(text: &str) -> Option<Self> {
        text.split(',').map(|number| number.parse().ok()).collect()
    }
}

macro_rules! faults {
    ($($(#[$doc:meta])* $kind:ident = $verb:literal {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    })*) => {
        /// Something that goes wrong, or that an operator does meanwhile.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Fault {
            $($(#[$doc])* $kind { $($(#[$field_doc])* $field: $type,)* },)*
        }

        /// The kinds of [`Fault`], without their particulars.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum FaultKind {
            $($(#[$doc])* $kind,)*
        }

        impl FaultKind {
            /// Every kind there is.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// Returns its word in a schedule.
            #[must_use]
            pub const fn verb(self) -> &'static str {
                match self {
                    $(Self::$kind => $verb,)*
                }
            }
        }

        impl Fault {
            /// Returns its kind.
            #[must_use]
            pub const fn kind(&self) -> FaultKind {
                match self {
                    $(Self::$kind { .. } => FaultKind::$kind,)*
                }
            }

            /// Returns its particulars, name and text each.
            fn fields(&self) -> Vec<(&'static str, String)> {
                match self {
                    $(Self::$kind { $($field,)* } => {
                        vec![$((stringify!($field), Field::write($field)),)*]
                    })*
                }
            }

            /// Puts a fault together from its particulars. None when one of them is missing or
            /// cannot be read.
            fn of(verb: &str, text: impl Fn(&str) -> Option<String>) -> Option<Self> {
                // A kind without particulars asks for none.
                let _ = &text;
                match verb {
                    $($verb => Some(Self::$kind {
                        $($field: Field::read(&text(stringify!($field))?)?,)*
                    }),)*
                    _ => None,
                }
            }
        }
    };
}

faults! {
    /// Messages get lost anywhere in the network.
    Loss = "loss" {
        /// How many of a thousand.
        permille: u32,
        /// For how long.
        lasts: Duration,
    }
    /// Messages take longer anywhere in the network.
    Delay = "delay" {
        /// Up to how much longer, each its own share.
        extra: Duration,
        /// For how long.
        lasts: Duration,
    }
    /// Messages overtake each other.
    Reorder = "reorder" {
        /// How many of a thousand are held back.
        permille: u32,
        /// For how long.
        lasts: Duration,
    }
    /// Messages arrive twice.
    Duplicate = "duplicate" {
        /// How many of a thousand.
        permille: u32,
        /// For how long.
        lasts: Duration,
    }
    /// Nothing gets through from one side to the other.
    Cut = "cut" {
        /// The side that sends.
        from: Side,
        /// The side that receives.
        to: Side,
        /// Whether nothing gets through the other way either.
        both: bool,
        /// For how long.
        lasts: Duration,
    }
    /// A process dies and starts again on its disk.
    Crash = "crash" {
        /// Whose.
        node: u32,
        /// What happens to writes not yet synced.
        unsynced: Unsynced,
        /// 0 for at once, else in the course of this disk operation from now on.
        operation: u64,
        /// How long until it starts again.
        lasts: Duration,
    }
    /// Many processes die at once and start again.
    CrashMany = "crash-many" {
        /// Whose.
        nodes: Vec<u32>,
        /// How long until they start again.
        lasts: Duration,
    }
    /// A process is stopped in good order and started again.
    Restart = "restart" {
        /// Whose.
        node: u32,
        /// Whether the program that starts is of an older feature level.
        older: bool,
        /// How long until it starts again.
        lasts: Duration,
    }
    /// A process dies and its disk is lost; it starts again on an empty one.
    Wipe = "wipe" {
        /// Whose.
        node: u32,
        /// How long until it starts again.
        lasts: Duration,
    }
    /// Every operation of a disk takes longer.
    SlowDisk = "slow-disk" {
        /// Whose.
        node: u32,
        /// By how much.
        extra: Duration,
        /// For how long.
        lasts: Duration,
    }
    /// A disk has no room left.
    FullDisk = "full-disk" {
        /// Whose.
        node: u32,
        /// For how long.
        lasts: Duration,
    }
    /// A process stands still and then goes on as if nothing had happened.
    Pause = "pause" {
        /// Whose.
        node: u32,
        /// For how long.
        lasts: Duration,
    }
    /// A monotonic clock runs too fast, or too slow when below zero.
    Drift = "drift" {
        /// Whose.
        node: u32,
        /// By how many millionths.
        ppm: i32,
        /// For how long.
        lasts: Duration,
    }
    /// The leader gives leadership away, or loses it.
    Depose = "depose" {
        /// For how long nobody leads after it.
        lasts: Duration,
    }
    /// A new node joins.
    Join = "join" {
        /// Its number, used by nobody before.
        node: u32,
    }
    /// An operator drains a node, or calls that off.
    Drain = "drain" {
        /// Which.
        node: u32,
        /// Begins when true, ends when false.
        on: bool,
        /// Whether it leaves once it is empty.
        leave: bool,
    }
    /// An operator removes a node.
    Remove = "remove" {
        /// Which.
        node: u32,
        /// Although it may hold data.
        force: bool,
    }
    /// An operator changes the share of a node.
    Weight = "weight" {
        /// Which.
        node: u32,
        /// The new share.
        weight: u32,
    }
    /// An operator moves a node to another zone.
    Zone = "zone" {
        /// Which.
        node: u32,
        /// The new zone.
        zone: u32,
    }
    /// An operator changes how many copies there should be.
    Factor = "factor" {
        /// How many.
        copies: u32,
    }
    /// An operator pauses what moves serve, and resumes it.
    PauseMoves = "pause-moves" {
        /// What.
        work: Work,
        /// For how long.
        lasts: Duration,
    }
    /// An operator asks for a rebalance.
    Rebalance = "rebalance" {}
}

impl Fault {
    /// Returns for how long it lasts, none when it is over at once.
    #[must_use]
    pub fn lasts(&self) -> Option<Duration> {
        let fields = self.fields();
        let lasts = fields.iter().find(|(name, _)| *name == "lasts");
        lasts.and_then(|(_, text)| Field::read(text))
    }

    /// Returns the same fault lasting `lasts`. One that is over at once is returned as it is.
    #[must_use]
    pub fn lasting(&self, lasts: Duration) -> Self {
        let fields = self.fields();
        let changed = Self::of(self.kind().verb(), |name| {
            if name == "lasts" {
                return Some(lasts.write());
            }
            let field = fields.iter().find(|(known, _)| *known == name);
            field.map(|(_, text)| text.clone())
        });
        changed.unwrap_or_else(|| self.clone())
    }

    /// Reads what [`fmt::Display`] wrote.
    pub(super) fn read(line: &str) -> Result<Self, MalformedSchedule> {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let fields: Vec<(&str, &str)> = words.filter_map(|word| word.split_once('=')).collect();
        let read = Self::of(verb, |name| {
            let field = fields.iter().find(|(known, _)| *known == name);
            field.map(|(_, text)| String::from(*text))
        });
        match read {
            Some(fault)
                if fault.to_string() == line.split_whitespace().collect::<Vec<_>>().join(" ") =>
            {
                Ok(fault)
            }
            _ => Err(MalformedSchedule::new(line)),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().verb())?;
        for (name, text) in self.fields() {
            write!(f, " {name}={text}")?;
        }
        Ok(())
    }
}

/// Writes a duration as faults do.
pub(super) fn write_time(time: Duration) -> String {
    time.write()
}

/// Reads a duration as faults write it.
pub(super) fn read_time(text: &str) -> Option<Duration> {
    Field::read(text)
}
