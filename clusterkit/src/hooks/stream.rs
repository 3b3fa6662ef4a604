//! Committed events as a stream: the same news as hooks, without answers.
//!
//! Each stream has its own position and reads the replicated state, which keeps the last
//! [`EVENTS_KEPT`] events; nothing is queued for it elsewhere.
//!
//! [`EVENTS_KEPT`]: clusterkit_core::config::EVENTS_KEPT

use std::collections::VecDeque;
use std::sync::Arc;

use clusterkit_core::control::ControlPlane;
use clusterkit_core::event::Event;
use clusterkit_core::id::{EventSeq, RaftId};
use tokio_util::sync::CancellationToken;

use super::payload::{ClusterEvent, EventsMissed};

/// The committed events of the cluster, in order, from some point on.
///
/// A reader that falls behind by more than the cluster keeps is told by
/// [`ClusterEvent::Missed`] and goes on with the oldest event kept.
#[derive(Debug)]
pub struct EventStream {
    control: Arc<dyn ControlPlane>,
    me: RaftId,
    cursor: EventSeq,
    /// Events taken from one state, not yet returned. Never more than the state keeps.
    taken: VecDeque<Arc<Event>>,
    stop: CancellationToken,
}

impl EventStream {
    /// Returns the events after `after` as seen by the member `me`, until `stop` is cancelled.
    pub(crate) fn new(
        control: Arc<dyn ControlPlane>,
        me: RaftId,
        after: EventSeq,
        stop: CancellationToken,
    ) -> Self {
        Self {
            control,
            me,
            cursor: after,
            taken: VecDeque::new(),
            stop,
        }
    }

    /// Returns the number of the last event that [`Self::next`] has returned or passed over.
    #[must_use]
    pub const fn cursor(&self) -> EventSeq {
        self.cursor
    }

    /// Waits for the next event. None once this node is shut down and everything it knew is read.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<ClusterEvent> {
        loop {
            let view = self.control.view();
            while let Some(event) = self.taken.pop_front() {
                self.cursor = event.seq;
                if let Some(event) = ClusterEvent::resolve(&event, &view.state, self.me) {
                    return Some(event);
                }
            }
            let (events, missed) = view.state.events_after(self.cursor);
            if missed {
                let last = view.state.last_event();
                let to = events
                    .first()
                    .map_or(last, |event| EventSeq(event.seq.0 - 1));
                let from = EventSeq(self.cursor.0 + 1);
                self.cursor = to;
                return Some(ClusterEvent::Missed(EventsMissed { from, to }));
            }
            if events.is_empty() {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return None,
                    _ = self.control.changed(view.version) => {}
                }
            }
            self.taken = events.into();
        }
    }
}
