//! The stream of events: order, late readers, the end.

use clusterkit_core::command::Rejected;
use clusterkit_core::config::EVENTS_KEPT;
use clusterkit_core::control::{ControlPlane, ControlStats, ProposeError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::hooks::{ClusterEvent, EventStream};

/// A control plane of one process: a command is applied when it is proposed.
struct Local {
    cluster: Mutex<Cluster>,
    views: watch::Sender<Arc<View>>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Local")
    }
}

impl Local {
    fn new(mut cluster: Cluster) -> Arc<Self> {
        let views = watch::Sender::new(cluster.view(RaftId::BOOTSTRAP));
        let cluster = Mutex::new(cluster);
        Arc::new(Self { cluster, views })
    }

    fn change(&self, change: impl FnOnce(&mut Cluster)) {
        let mut cluster = self.cluster.lock().unwrap();
        change(&mut cluster);
        self.views.send_replace(cluster.view(RaftId::BOOTSTRAP));
    }
}

#[async_trait::async_trait]
impl ControlPlane for Local {
    async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        let mut applied = Err(Rejected::NotFormed);
        self.change(|cluster| {
            cluster.index += 1;
            applied = cluster.state.apply(LogIndex(cluster.index), &command);
        });
        applied.map_err(ProposeError::Rejected)
    }

    fn view(&self) -> Arc<View> {
        self.views.borrow().clone()
    }

    async fn changed(&self, after: u64) -> Arc<View> {
        let mut views = self.views.subscribe();
        let newer = views.wait_for(|view| view.version > after).await;
        newer.map(|view| view.clone()).unwrap()
    }

    async fn read_barrier(&self) -> Result<(), ProposeError> {
        Ok(())
    }

    fn stats(&self) -> ControlStats {
        ControlStats::default()
    }

    async fn transfer_leadership(&self) -> Result<(), ProposeError> {
        Ok(())
    }

    async fn shutdown(&self) {}
}

fn line(event: &ClusterEvent) -> String {
    match event {
        ClusterEvent::PartitionChanged(change) => describe(change),
        ClusterEvent::NodeJoined(joined) => format!("join {}", joined.node.id),
        ClusterEvent::NodeLeft(left) => format!("leave {}", left.node.id),
        ClusterEvent::HealthChanged(change) => format!("health {:?}", change.status),
        ClusterEvent::Missed(missed) => format!("missed {} to {}", missed.from, missed.to),
        other => format!("{other:?}")
            .chars()
            .take_while(|c| *c != '(')
            .collect(),
    }
}

/// Reads what is there now.
async fn read(stream: &mut EventStream) -> Vec<String> {
    let mut lines = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(1), stream.next()).await {
        lines.push(line(&event));
    }
    lines
}

#[tokio::test(start_paused = true)]
async fn every_reader_sees_every_event_in_order_from_where_it_began() {
    let local = Local::new(Cluster::of(1, 1));
    let control = Arc::clone(&local) as Arc<dyn ControlPlane>;
    let stop = CancellationToken::new();
    let from = |after| EventStream::new(control.clone(), RaftId(1), EventSeq(after), stop.clone());
    let (mut early, mut late) = (from(0), from(1));
    assert_eq!(read(&mut early).await, ["join n1"]);
    assert_eq!(read(&mut late).await, [""; 0]);

    local.change(Cluster::join);
    local.change(|cluster| cluster.place(&[1, 2]));
    local.change(|cluster| cluster.down(2));
    let news = [
        "join n2",
        "p0 Switched Primary n1 from=n2 none>n1 Manual local",
        "p0 Switched Replica n2 from=n1 none>n1 Manual",
        "leave n2",
        "health Degraded",
    ];
    assert_eq!(read(&mut early).await, news);
    assert_eq!(read(&mut late).await, news);
    assert_eq!((early.cursor(), late.cursor()), (EventSeq(6), EventSeq(6)));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_reader_is_woken_by_the_event_itself() {
    let local = Local::new(Cluster::of(1, 1));
    let control = Arc::clone(&local) as Arc<dyn ControlPlane>;
    let mut stream = EventStream::new(control, RaftId(1), EventSeq(1), CancellationToken::new());
    let (event, ()) = tokio::join!(stream.next(), async {
        // A view without an event does not end the wait.
        local.change(|_| {});
        tokio::task::yield_now().await;
        local.change(Cluster::join);
    });
    assert_eq!(line(&event.unwrap()), "join n2");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_falls_behind_is_told_what_it_missed() {
    let local = Local::new(Cluster::of(2, 1));
    let control = Arc::clone(&local) as Arc<dyn ControlPlane>;
    let mut stream = EventStream::new(control, RaftId(1), EventSeq(0), CancellationToken::new());
    assert_eq!(line(&stream.next().await.unwrap()), "join n1");
    local.change(|cluster| {
        while cluster.state.last_event().0 < 2 * EVENTS_KEPT as u64 {
            cluster.down(2);
            cluster.up(2);
        }
    });
    let last = local.view().state.last_event().0;
    // What it had taken before it fell behind comes first: both events of the formation.
    let rest = read(&mut stream).await;
    let oldest = last - EVENTS_KEPT as u64 + 1;
    assert_eq!(rest[0], "join n2");
    assert_eq!(rest[1], format!("missed 3 to {}", oldest - 1));
    assert_eq!(rest.len(), EVENTS_KEPT + 2);
    assert_eq!(stream.cursor(), EventSeq(last));
}

#[tokio::test(start_paused = true)]
async fn the_stream_ends_at_shutdown_after_what_it_knew() {
    let local = Local::new(Cluster::of(3, 1));
    let control = Arc::clone(&local) as Arc<dyn ControlPlane>;
    let stop = CancellationToken::new();
    let mut stream = EventStream::new(control, RaftId(1), EventSeq(0), stop.clone());
    stop.cancel();
    let mut lines = Vec::new();
    while let Some(event) = stream.next().await {
        lines.push(line(&event));
    }
    lines.retain(|line| line.starts_with("join"));
    assert_eq!(lines, ["join n1", "join n2", "join n3"]);
}
