//! Ownership that can be proven: leases, the fence, and the tokens that follow from both.
//!
//! Sans-IO, both ends. A node's [`Lease`] asks and is granted; the leader's [`LeaseBook`] grants
//! and remembers until when whatever was granted may live. Who carries the messages, and when, is
//! the embedding node's; who is silent for too long is [`crate::detector`]'s.
//!
//! # What is promised
//! At no moment do two processes hold a live token ([`Lease::token`]) of one partition.
//!
//! # Clocks
//! Every clock is monotonic and its rate is within `1 - r ..= 1 + r` of true time; `r` is
//! [`LeaseTiming::tolerated_drift_ppm`]. Nothing is assumed about delays, losses or the order of
//! messages, nor about how long a process stands still, as long as its clock does not.
//!
//! # A lease runs out before the leader counts on it
//! A node counts its lease `L` from the moment it *sent* the request that a grant answers, so it is
//! over, in true time, `L / (1 - r)` after that at the latest. The leader counts from the moment it
//! *received* the request, which is later, and waits `W` by a clock that may run fast: at least
//! `W / (1 + r)`. With `W = L + margin` it waits long enough if
//! `margin >= L * 2r / (1 - r)`, that is, `r <= margin / (2L + margin)`.
//!
//! # A leader that is none any more
//! A grant needs a [`LeadershipProof`]: a majority confirmed, in a round *begun* at or after the
//! moment the request was received, that this process leads. Whoever leads next was elected after
//! that round began, so the request was sent before its leadership. What a predecessor granted is
//! therefore over once a new leader has waited `W` from the beginning of its own leadership, however
//! late the predecessor noticed.
//!
//! # The fence
//! A lease alone says that a process is not given up; its view of who owns what may be old. So a
//! token is made only for ownership that began at or before the *fence*: an epoch of which the
//! leader says that every process whose lease may be live has applied it. Three rules make that
//! true for good, whatever is granted later and by whom:
//! 1. the fence is the lowest epoch that any process with a possibly live lease has reported, and
//!    there is none before the leases of predecessors are over;
//! 2. a lease is granted only to a process that has applied the highest fence ever said, and for
//!    that a new leader takes the epoch at which its leadership began: no predecessor can have said
//!    a higher one, because what it had applied was committed before;
//! 3. a fence is never beyond what the leader had applied when a round began that proved its
//!    leadership: what a deposed leader applies after that may be its successor's.
//!
//! Suppose two live tokens of one partition at one moment, of processes P and Q. The log gives the
//! ownerships of a partition distinct, rising epochs; let Q's be the later one. Q's fence is not
//! below it, so P, whose lease is live, has applied it. But then P knows that its own ownership is
//! over, and [`Lease::token`] refuses. Hence there are no two.
//!
//! A process that lags behind the log for longer than its lease gets no further grant, so that it
//! cannot hold the fence back for longer than its lease lasts.

mod book;
mod holder;
#[cfg(test)]
mod tests;
mod timing;

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, Incarnation, RaftId};
use crate::time::Instant;

pub use book::{LeaseBook, LeaseRefused};
pub use holder::{Lease, NoToken, OwnershipToken};
pub use timing::LeaseTiming;

/// A process asks for its lease to be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    clippy::exhaustive_structs,
    reason = "a message of a versioned protocol"
)]
pub struct LeaseRequest {
    /// The node.
    pub node: RaftId,
    /// Its process.
    pub incarnation: Incarnation,
    /// Counts the requests of the process.
    pub number: u64,
    /// The epoch it has applied: what it owned before and does not own in it, it has let go.
    pub released: Epoch,
}

/// The leader's answer: the lease is renewed from the moment one of the requests was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    clippy::exhaustive_structs,
    reason = "a message of a versioned protocol"
)]
pub struct LeaseGrant {
    /// The process it is for.
    pub incarnation: Incarnation,
    /// The number of the request it answers, not necessarily the last one.
    pub number: u64,
    /// Every process with a possibly live lease has applied this epoch, and whoever is granted one
    /// later will have.
    pub fence: Epoch,
}

/// A majority has confirmed that this process leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a fact about one moment")]
pub struct LeadershipProof {
    /// In which term.
    pub term: u64,
    /// When the confirmed round *began*, by this process's clock: it led then.
    pub begun_at: Instant,
}
