//! What one seed came to, as a value and as one line of text.
//!
//! Worker processes hand their outcomes to the runner as such lines.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How much of ClusterKit runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "the two levels of the simulator")]
pub enum Level {
    /// The pure rules over an idealised log.
    Core,
    /// Everything that ships, over a simulated network and simulated disks.
    Full,
}

impl Level {
    /// Returns its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Level {
    type Err = MalformedOutcome;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "core" => Ok(Self::Core),
            "full" => Ok(Self::Full),
            _ => Err(MalformedOutcome(format!(
                "level is `{text}`, must be core or full"
            ))),
        }
    }
}

/// A promise that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Which promise: a short name without spaces, the same for every seed that breaks it.
    pub rule: String,
    /// Who, where and what was seen, in one line.
    pub detail: String,
    /// When, in virtual time since the start of the run.
    pub at: Duration,
}

impl Violation {
    /// Returns the violation of `rule` seen at `at`. White space in either text becomes one space,
    /// and none in the rule.
    #[must_use]
    pub fn new(rule: &str, detail: impl fmt::Display, at: Duration) -> Self {
        let words = |text: &str, between: &str| {
            let words: Vec<&str> = text.split_whitespace().collect();
            words.join(between)
        };
        Self {
            rule: words(rule, "-"),
            detail: words(&detail.to_string(), " "),
            at,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.as_secs_f64();
        write!(f, "{} at {at:.6} s: {}", self.rule, self.detail)
    }
}

/// What one seed came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The level it ran at.
    pub level: Level,
    /// The first promise that did not hold.
    pub violation: Option<Violation>,
    /// How much virtual time passed.
    pub virtual_time: Duration,
    /// [`crate::Trace::hash`] at the end.
    pub trace_hash: u64,
}

impl Outcome {
    /// Returns the outcome of `seed` at `level`.
    #[must_use]
    pub const fn new(
        seed: u64,
        level: Level,
        violation: Option<Violation>,
        virtual_time: Duration,
        trace_hash: u64,
    ) -> Self {
        Self {
            seed,
            level,
            violation,
            virtual_time,
            trace_hash,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seed, level, hash) = (self.seed, self.level, self.trace_hash);
        let micros = self.virtual_time.as_micros();
        write!(f, "outcome {level} {seed} {micros} {hash:016x}")?;
        if let Some(violation) = &self.violation {
            let at = violation.at.as_micros();
            write!(f, " {} {at} {}", violation.rule, violation.detail)?;
        }
        Ok(())
    }
}

/// A line that is no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedOutcome(String);

impl fmt::Display for MalformedOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for MalformedOutcome {}

impl FromStr for Outcome {
    type Err = MalformedOutcome;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let malformed = || MalformedOutcome(format!("`{line}` is no outcome"));
        let mut words = line.splitn(8, ' ');
        let mut word = || words.next().ok_or_else(malformed);
        if word()? != "outcome" {
            return Err(malformed());
        }
        let level = word()?.parse()?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| malformed());
        let seed = number(word()?)?;
        let virtual_time = Duration::from_micros(number(word()?)?);
        let trace_hash = u64::from_str_radix(word()?, 16).map_err(|_| malformed())?;
        let violation = match words.next() {
            None => None,
            Some(rule) => {
                let at = Duration::from_micros(number(words.next().ok_or_else(malformed)?)?);
                Some(Violation::new(rule, words.next().unwrap_or_default(), at))
            }
        };
        Ok(Self::new(seed, level, violation, virtual_time, trace_hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_survives_its_line() {
        let at = Duration::from_millis(2_500);
        let violation = Violation::new("lost write", "p3:\n  12 of n1", at);
        assert_eq!(
            violation.to_string(),
            "lost-write at 2.500000 s: p3: 12 of n1"
        );
        for violation in [None, Some(violation)] {
            let outcome = Outcome::new(7, Level::Core, violation, at * 3, 0xabc);
            assert_eq!(outcome.to_string().parse(), Ok(outcome));
        }
        for bad in [
            "",
            "outcome",
            "outcome half 1 2 3",
            "outcome core 1 2 x",
            "said core 1 2 3",
        ] {
            assert!(bad.parse::<Outcome>().is_err(), "{bad}");
        }
    }
}
