//! What is going to happen when, in virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use clusterkit_core::command::{Applied, Rejected};
use clusterkit_core::id::{Incarnation, LogIndex, PartitionId, RaftId, StageId};
use clusterkit_core::lease::{LeaseGrant, LeaseRequest};
use clusterkit_core::pause::Work;

use super::mesh::Sighting;
use crate::run::nanos;

/// A process by its number in the run, from 1.
pub(super) type Slot = u32;

/// Something that happens in the world.
#[derive(Debug)]
pub(super) enum Event {
    FaultBegins(usize),
    FaultEnds(usize),
    /// A process starts on the disk of this slot.
    Boot(Slot),
    /// Something happens to one process, if it is still the one meant.
    Process {
        slot: Slot,
        life: u32,
        what: What,
    },
    /// A proposal reaches the end of the log.
    Append(u64),
    /// Somebody may be elected.
    Elect {
        term: u64,
    },
    /// A leader that cannot lead gives up.
    StepDown {
        term: u64,
    },
    /// An operator looks whether this is resumed.
    Resume(Work),
    /// Clients write.
    Write,
    /// Is everything as it must be by now?
    Settled,
}

/// Something that happens to one process.
#[derive(Debug)]
pub(super) enum What {
    /// Time to report to the leader.
    Pulse,
    /// The report of another one arrives.
    Heartbeat {
        from: Slot,
        node: RaftId,
        incarnation: Incarnation,
        applied: LogIndex,
        lease: LeaseRequest,
        sightings: Vec<Sighting>,
    },
    /// The leader renews its lease.
    Granted(LeaseGrant),
    /// The leader says that the node it reported as is no member any more.
    Removed { node: RaftId },
    /// Its loop of decisions goes on.
    Lead,
    /// It learns that it leads.
    Elected { term: u64 },
    /// It learns that it does not lead any more.
    Deposed { term: u64 },
    /// It applies what was committed.
    CatchUp,
    /// It asks for admission, or announces its start.
    Ask,
    /// Another process asks it to be admitted.
    Asked { from: Slot },
    /// A proposal of it has a result, or none.
    Answer { purpose: Purpose, result: Answer },
    /// A hook of it has come to its end.
    Hook {
        partition: PartitionId,
        stage: StageId,
    },
    /// It sends the answers of its hooks.
    Acks,
}

/// What a proposal was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A decision of the leader.
    Decision,
    /// The dead holder of an id is declared down, so that it can be replaced.
    Bury,
    /// A start was announced, or a join asked for, on behalf of this slot.
    Admission(Slot),
    /// Nobody waits for the result.
    None,
}

/// What became of a proposal.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Applied(Box<Applied>),
    Rejected(Box<Rejected>),
    /// It was handed to nobody.
    NoLeader,
    /// It may or may not be applied, now or later.
    Unknown,
}

/// Events in the order of their times, those at the same time in the order they were planned in.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// When, in nanoseconds, in which order planned, and where the event is kept.
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    slots: Vec<Option<Event>>,
    free: Vec<u32>,
    planned: u64,
}

impl Agenda {
    pub(super) fn plan(&mut self, at: Duration, event: Event) {
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place as usize] = Some(event);
                place
            }
            None => {
                self.slots.push(Some(event));
                u32::try_from(self.slots.len() - 1).expect("invariant: memory ends before that")
            }
        };
        self.planned += 1;
        self.heap.push(Reverse((nanos(at), self.planned, place)));
    }

    pub(super) fn next(&mut self) -> Option<(Duration, Event)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        let event = self.slots[place as usize].take();
        event.map(|event| (Duration::from_nanos(at), event))
    }
}
