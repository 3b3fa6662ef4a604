//! A laboratory of members in this process: channels between them, each on a disk of its own.
//!
//! Scenarios stand in `cluster.rs`. Nothing here waits for time to pass: conditions are looked at
//! until they hold or their limit is over.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::command::{Applied, Command, Expected};
use clusterkit_core::config::ClusterConfig;
use clusterkit_core::control::{ControlPlane, ProposeError, View};
use clusterkit_core::event::LeaveReason;
use clusterkit_core::id::{ClusterId, DiskId, NodeId, RaftId};
use clusterkit_core::node::NodeSpec;
use clusterkit_core::time::UnixMillis;
use clusterkit_raft::channel::ChannelNetwork;
use clusterkit_raft::storage::RedbStorage;
use clusterkit_raft::{OpenError, RaftControlPlane, RaftOptions};
use tempfile::TempDir;

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Lab {
    pub(crate) network: ChannelNetwork,
    pub(crate) members: BTreeMap<RaftId, RaftControlPlane>,
    tune: fn(&mut RaftOptions),
    directory: TempDir,
    names: BTreeMap<RaftId, String>,
}

pub(crate) fn cluster_id() -> ClusterId {
    ClusterId::from_bytes([0xc1; 16])
}

pub(crate) fn address(name: &str) -> String {
    format!("{name}:1")
}

pub(crate) fn disk(name: &str) -> DiskId {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    DiskId::from_bytes(bytes)
}

pub(crate) fn spec(name: &str) -> NodeSpec {
    NodeSpec::new(NodeId::new(name).unwrap(), disk(name), &address(name))
}

/// Waits until `probe` finds something.
pub(crate) async fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    let looking = async {
        loop {
            looks.tick().await;
            if let Some(found) = probe() {
                return found;
            }
        }
    };
    match tokio::time::timeout(LIMIT, looking).await {
        Ok(found) => found,
        Err(_) => panic!("{what}: not within {LIMIT:?}"),
    }
}

impl Lab {
    /// Forms a cluster of one.
    pub(crate) async fn form(tune: fn(&mut RaftOptions)) -> Self {
        let mut lab = Self {
            network: ChannelNetwork::new(),
            members: BTreeMap::new(),
            tune,
            directory: tempfile::tempdir().unwrap(),
            names: BTreeMap::new(),
        };
        let id = RaftId::BOOTSTRAP;
        lab.names.insert(id, String::from("n1"));
        lab.start(id).await;
        let config = ClusterConfig {
            partition_count: 8,
            ..ClusterConfig::default()
        };
        let formed = lab.members[&id].initialize(config, spec("n1"), UnixMillis(1));
        formed.await.unwrap();
        lab
    }

    /// Forms a cluster of `count` whose voters are in place.
    pub(crate) async fn of(count: usize, tune: fn(&mut RaftOptions)) -> Self {
        let mut lab = Self::form(tune).await;
        for n in 2..=count {
            lab.join(&format!("n{n}")).await;
        }
        let voters = if count < 3 { 1 } else { 3 };
        lab.until_voters(voters).await;
        lab
    }

    pub(crate) fn path(&self, id: RaftId) -> PathBuf {
        self.directory.path().join(&self.names[&id])
    }

    pub(crate) fn options(&self, id: RaftId) -> RaftOptions {
        let name = &self.names[&id];
        let mut options = RaftOptions::new(cluster_id(), id, disk(name), address(name));
        (self.tune)(&mut options);
        options
    }

    pub(crate) async fn open(&self, options: RaftOptions) -> Result<RaftControlPlane, OpenError> {
        let path = self.path(options.raft_id);
        let storage = RedbStorage::open(path).map_err(OpenError::Storage)?;
        let transport = Arc::new(self.network.transport(options.address.clone()));
        RaftControlPlane::open(Arc::new(storage), transport, options).await
    }

    pub(crate) async fn start(&mut self, id: RaftId) {
        let options = self.options(id);
        let address = options.address.clone();
        let member = self.open(options).await.unwrap();
        self.network.listen(address, Arc::new(member.clone()));
        self.members.insert(id, member);
    }

    pub(crate) async fn stop(&mut self, id: RaftId) {
        let member = self.members.remove(&id).unwrap();
        self.network.hang_up(&address(&self.names[&id]));
        member.shutdown().await;
    }

    pub(crate) async fn join(&mut self, name: &str) -> RaftId {
        let id = self.admit(name).await;
        self.start(id).await;
        id
    }

    /// Admits `name` without starting it.
    pub(crate) async fn admit(&mut self, name: &str) -> RaftId {
        let command = Command::Join {
            node: spec(name),
            replaces: None,
            at: UnixMillis(2),
        };
        let applied = self.any().propose(command).await.unwrap();
        let id = applied.node.unwrap();
        self.names.insert(id, name.to_string());
        id
    }

    pub(crate) async fn remove(&self, id: RaftId) -> Applied {
        let command = Command::Remove {
            node: id,
            reason: LeaveReason::Removed,
            force: true,
            at: UnixMillis(3),
        };
        self.any().propose(command).await.unwrap()
    }

    pub(crate) fn any(&self) -> &RaftControlPlane {
        self.members.values().next().unwrap()
    }

    pub(crate) fn address(&self, id: RaftId) -> String {
        address(&self.names[&id])
    }

    /// Waits until a running member calls itself the leader and every running one follows it.
    pub(crate) async fn until_leader(&self) -> RaftId {
        until("one leader for all", || {
            let views: Vec<Arc<View>> = self.members.values().map(ControlPlane::view).collect();
            let leader = views.first()?.leadership.leader?;
            let agreed = views
                .iter()
                .all(|view| view.leadership.leader == Some(leader));
            let leads = self.members.get(&leader)?.view().leadership.is_leader;
            (agreed && leads).then_some(leader)
        })
        .await
    }

    pub(crate) async fn until_voters(&self, count: usize) -> Vec<RaftId> {
        until("the number of voters", || {
            let stats: Vec<_> = self.members.values().map(ControlPlane::stats).collect();
            let first = stats.first()?.voters.clone();
            let agreed = stats.iter().all(|stats| stats.voters == first);
            (agreed && first.len() == count).then_some(first)
        })
        .await
    }

    /// Waits until every running member has the same state, and returns it.
    pub(crate) async fn until_alike(&self) -> Arc<View> {
        until("the same state everywhere", || {
            let views: Vec<Arc<View>> = self.members.values().map(ControlPlane::view).collect();
            let first = views.first()?;
            let alike = views.iter().all(|view| view.state == first.state);
            alike.then(|| Arc::clone(first))
        })
        .await
    }

    pub(crate) async fn shutdown(mut self) {
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.stop(id).await;
        }
    }
}

pub(crate) fn set(key: impl ToString, value: impl ToString) -> Command {
    Command::SetData {
        key: key.to_string(),
        value: Arc::from(value.to_string().as_bytes()),
        expected: Expected::Any,
    }
}

pub(crate) async fn put(member: &RaftControlPlane, key: impl ToString) -> Applied {
    put_result(member, key).await.unwrap()
}

pub(crate) async fn put_result(
    member: &RaftControlPlane,
    key: impl ToString,
) -> Result<Applied, ProposeError> {
    member.propose(set(key.to_string(), key)).await
}

#[track_caller]
pub(crate) fn has(member: &RaftControlPlane, key: impl ToString + Debug) {
    let view = member.view();
    let entry = view.state.data(&key.to_string());
    let value = entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap());
    assert_eq!(value, Some(key.to_string()), "{member:?}");
}
