//! `GET /metrics` as Prometheus text: gauges read from the view at every scrape.

use clusterkit_core::control::{ControlStats, View};
use clusterkit_core::node::NodeStatus;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::ClusterApi;
use crate::backend::{Figure, NodeInfo};
use crate::server::Response;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every status a member can have, so that a series does not vanish when its count reaches zero.
const STATUSES: [NodeStatus; 4] = [
    NodeStatus::Joining,
    NodeStatus::Active,
    NodeStatus::Draining,
    NodeStatus::Down,
];

pub(super) fn render(
    api: &ClusterApi,
    info: &NodeInfo,
    figures: &[Figure],
    view: Option<&View>,
    stats: Option<&ControlStats>,
) -> Response {
    let mut registry = Registry::with_prefix("clusterkit");
    registry.register(
        "requests",
        "HTTP requests answered, peers included",
        ConstCounter::new(api.request_count()),
    );
    registry.register(
        "request_errors",
        "HTTP requests answered with status 400 or above",
        ConstCounter::new(api.error_count()),
    );
    gauge(
        &mut registry,
        "watchers",
        "Open watches",
        api.watcher_count(),
    );
    registry.register(
        "uptime_seconds",
        "How long the process has run",
        ConstGauge::new(info.uptime.as_secs_f64()),
    );
    gauge(
        &mut registry,
        "last_sync_timestamp_milliseconds",
        "When the state last changed here or the leader was heard from, since 1970",
        info.last_sync.value(),
    );
    for figure in figures {
        registry.register(figure.name, figure.help, ConstCounter::new(figure.value));
    }
    if let Some(stats) = stats {
        log_figures(&mut registry, stats);
    }
    if let Some(view) = view {
        cluster_figures(&mut registry, view);
    }
    let mut text = String::new();
    if encode(&mut text, &registry).is_err() {
        return Response::empty(500);
    }
    Response::typed(200, CONTENT_TYPE, text.into())
}

fn log_figures(registry: &mut Registry, stats: &ControlStats) {
    gauge(registry, "raft_term", "The current term", stats.term);
    gauge(
        registry,
        "raft_last_log_index",
        "The last entry of the local log",
        stats.last_log_index,
    );
    gauge(
        registry,
        "raft_commit_index",
        "The last entry known to be committed",
        stats.commit_index,
    );
    gauge(
        registry,
        "raft_applied_index",
        "The last entry applied",
        stats.applied_index,
    );
    gauge(
        registry,
        "raft_voters",
        "Members that vote",
        stats.voters.len(),
    );
    gauge(
        registry,
        "raft_learners",
        "Members that only follow",
        stats.learners.len(),
    );
}

fn cluster_figures(registry: &mut Registry, view: &View) {
    let state = &view.state;
    let topology = &view.topology;
    let nodes = Family::<Vec<(String, String)>, Gauge>::default();
    for status in STATUSES {
        let count = state.nodes().filter(|node| node.status == status).count();
        let label = vec![(String::from("status"), status.to_string())];
        nodes.get_or_create(&label).set(clamped(count));
    }
    registry.register("nodes", "Members by status", nodes);
    gauge(
        registry,
        "is_leader",
        "1 on the Raft leader",
        u64::from(view.leadership.is_leader),
    );
    gauge(
        registry,
        "has_leader",
        "1 while a leader is known",
        u64::from(view.leadership.leader.is_some()),
    );
    gauge(
        registry,
        "epoch",
        "The version of the topology",
        topology.epoch().value(),
    );
    let partitions = state.partitions();
    gauge(
        registry,
        "partitions",
        "Partitions of the cluster",
        partitions.len(),
    );
    gauge(
        registry,
        "partitions_without_primary",
        "Partitions nobody serves",
        partitions.iter().filter(|p| p.primary.is_none()).count(),
    );
    let wanted = state.config().replication_factor as usize;
    gauge(
        registry,
        "partitions_under_replicated",
        "Partitions with fewer in-sync copies than the replication factor",
        partitions
            .iter()
            .filter(|p| p.in_sync().count() < wanted)
            .count(),
    );
    gauge(
        registry,
        "moves_in_flight",
        "Partitions between two sets of members",
        state.moves_in_flight(),
    );
    gauge(
        registry,
        "partitions_primary",
        "Partitions this node is primary of",
        topology
            .partitions()
            .filter(|&p| topology.is_primary(p))
            .count(),
    );
    gauge(
        registry,
        "partitions_replica",
        "Partitions this node is another member of",
        topology
            .partitions()
            .filter(|&p| topology.is_replica(p))
            .count(),
    );
    gauge(
        registry,
        "events",
        "Events of the cluster so far",
        state.last_event().value(),
    );
}

fn gauge<T: TryInto<i64>>(registry: &mut Registry, name: &str, help: &str, value: T) {
    registry.register(name, help, ConstGauge::new(clamped(value)));
}

fn clamped<T: TryInto<i64>>(value: T) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
