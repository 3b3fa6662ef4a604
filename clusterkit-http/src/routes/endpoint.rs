//! Which paths there are, and which methods each of them takes.

use clusterkit_core::id::NodeId;
use clusterkit_core::pause::Work;
use clusterkit_raft::transport::RpcKind;
use percent_encoding::percent_decode_str;

use crate::Method;
use crate::api::Problem;
use crate::transport::PEER_PATH;

/// A path that exists, with what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Health,
    HealthDetailed,
    Ready,
    Metrics,
    Cluster,
    Partitions,
    PartitionStats,
    PartitionKey,
    Nodes,
    Leader,
    ConsensusStats,
    Join,
    Topology,
    Watch,
    Events,
    Node(NodeId),
    Drain(NodeId),
    Remove(NodeId),
    Handover(NodeId),
    RestartIntent(NodeId),
    Rebalance,
    Explain,
    Plans,
    Config,
    Pauses,
    MayStop,
    Operations,
    Operation(String),
    Pause(Work),
    DataList,
    Data(String),
    Peer(RpcKind),
}

const READ: &[Method] = &[Method::Get, Method::Head];

impl Endpoint {
    /// Finds the endpoint of `path`; a slash at its end is ignored, as the old releases did.
    ///
    /// # Errors
    /// A [`Problem`] when the path names a node id or a key that cannot be.
    pub(super) fn resolve(path: &str) -> Result<Option<Self>, Problem> {
        if let Some(kind) = path.strip_prefix(PEER_PATH) {
            return Ok(RpcKind::parse(kind).map(Self::Peer));
        }
        if let Some(key) = path.strip_prefix("/v1/data/")
            && !key.is_empty()
        {
            return Ok(Some(Self::Data(decode("key", key)?)));
        }
        if let Some(id) = path.strip_prefix("/v1/operations/")
            && !id.is_empty()
        {
            return Ok(Some(Self::Operation(decode("id", id)?)));
        }
        if let Some(work) = path
            .strip_prefix("/v1/pauses/")
            .map(|it| it.trim_end_matches('/'))
            && !work.is_empty()
        {
            return Ok(Some(Self::Pause(decode("work", work)?.parse::<Work>()?)));
        }
        if let Some(rest) = path.strip_prefix("/v1/nodes/") {
            let mut segments = rest.trim_end_matches('/').split('/');
            let id = segments.next().unwrap_or_default();
            let verb: fn(NodeId) -> Self = match (segments.next(), segments.next()) {
                (None, _) => Self::Node,
                (Some("drain"), None) => Self::Drain,
                (Some("remove"), None) => Self::Remove,
                (Some("handover"), None) => Self::Handover,
                (Some("restart-intent"), None) => Self::RestartIntent,
                _ => return Ok(None),
            };
            if id.is_empty() {
                return Ok(None);
            }
            return Ok(Some(verb(NodeId::new(decode("node_id", id)?)?)));
        }
        let found = match path.trim_end_matches('/') {
            "/health" => Self::Health,
            "/health/detailed" => Self::HealthDetailed,
            "/ready" => Self::Ready,
            "/metrics" => Self::Metrics,
            "/cluster" => Self::Cluster,
            "/partitions" => Self::Partitions,
            "/partitions/stats" => Self::PartitionStats,
            "/partitions/key" => Self::PartitionKey,
            "/nodes" => Self::Nodes,
            "/consensus/leader" => Self::Leader,
            "/consensus/stats" => Self::ConsensusStats,
            "/join" => Self::Join,
            "/v1/topology" => Self::Topology,
            "/v1/watch" => Self::Watch,
            "/v1/events" => Self::Events,
            "/v1/rebalance" => Self::Rebalance,
            "/v1/explain" => Self::Explain,
            "/v1/plans" => Self::Plans,
            "/v1/config" => Self::Config,
            "/v1/operations" => Self::Operations,
            "/v1/may-stop" => Self::MayStop,
            "/v1/pauses" => Self::Pauses,
            "/v1/data" => Self::DataList,
            _ => return Ok(None),
        };
        Ok(Some(found))
    }

    /// Returns the methods it takes.
    pub(super) const fn allowed(&self) -> &'static [Method] {
        match self {
            Self::Health
            | Self::HealthDetailed
            | Self::Ready
            | Self::Metrics
            | Self::Cluster
            | Self::Partitions
            | Self::PartitionStats
            | Self::PartitionKey
            | Self::Nodes
            | Self::Leader
            | Self::ConsensusStats
            | Self::Topology
            | Self::Events
            | Self::Explain
            | Self::Plans
            | Self::Pauses
            | Self::MayStop
            | Self::Operations
            | Self::DataList => READ,
            Self::Node(_) | Self::Config => &[Method::Get, Method::Head, Method::Post],
            Self::Watch => &[Method::Get],
            Self::Join | Self::Remove(_) | Self::Rebalance | Self::Peer(_) => &[Method::Post],
            Self::Drain(_) | Self::Handover(_) | Self::RestartIntent(_) => {
                &[Method::Post, Method::Delete]
            }
            Self::Operation(_) => &[Method::Get, Method::Head, Method::Delete],
            Self::Pause(_) => &[Method::Put, Method::Post, Method::Delete],
            Self::Data(_) => &[Method::Get, Method::Head, Method::Put, Method::Delete],
        }
    }
}

fn decode(field: &str, segment: &str) -> Result<String, Problem> {
    percent_decode_str(segment)
        .decode_utf8()
        .map(String::from)
        .map_err(|_| Problem::invalid(field, segment, "UTF-8 when unescaped"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_resolve_with_what_they_name() {
        let check = |path: &str, expected: Option<Endpoint>| {
            assert_eq!(Endpoint::resolve(path).unwrap(), expected, "{path}");
        };
        let id = |id: &str| NodeId::new(id).unwrap();
        check("/cluster", Some(Endpoint::Cluster));
        check("/cluster/", Some(Endpoint::Cluster));
        check("/", None);
        check("/clusters", None);
        check("/v1/nodes/a%2Fb", Some(Endpoint::Node(id("a/b"))));
        check("/v1/nodes/n/drain", Some(Endpoint::Drain(id("n"))));
        check("/v1/nodes/n/handover", Some(Endpoint::Handover(id("n"))));
        let restart = Endpoint::RestartIntent(id("n"));
        check("/v1/nodes/n/restart-intent", Some(restart));
        check("/v1/nodes/n/drain/x", None);
        check("/v1/nodes/", None);
        check("/v1/operations/", Some(Endpoint::Operations));
        check(
            "/v1/operations/drain-a%2Fb",
            Some(Endpoint::Operation("drain-a/b".into())),
        );
        check("/v1/pauses/", Some(Endpoint::Pauses));
        check("/v1/pauses/drain", Some(Endpoint::Pause(Work::Drain)));
        assert!(Endpoint::resolve("/v1/pauses/all").is_err());
        check("/v1/data", Some(Endpoint::DataList));
        check("/v1/data/", Some(Endpoint::DataList));
        check("/v1/data/a/b%20c", Some(Endpoint::Data("a/b c".into())));
        check("/peer/v1/vote", Some(Endpoint::Peer(RpcKind::Vote)));
        check("/peer/v1/nonsense", None);
        assert!(Endpoint::resolve("/v1/data/%ff").is_err());
        assert!(Endpoint::resolve("/v1/nodes/a%20b").is_err());
    }
}
