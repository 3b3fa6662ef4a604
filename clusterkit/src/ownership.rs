//! The lease of this node on the wire, and the tokens made from it.
//!
//! Requests travel with the pulses of `pulse.rs`, grants with the answers of `peer.rs`; the rules
//! of both ends, and why two tokens never overlap, are in `clusterkit_core::lease`.

use std::sync::{MutexGuard, PoisonError};

use clusterkit_core::control::{ControlPlane, View};
use clusterkit_core::health::Health;
use clusterkit_core::id::{PartitionId, RaftId};
use clusterkit_core::lease::{
    LeadershipProof, Lease, LeaseGrant, LeaseRequest, NoToken, OwnershipToken,
};

use crate::inner::Inner;

impl Inner {
    fn lease(&self) -> MutexGuard<'_, Option<Lease>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a request to renew the lease of this node `me`, to be sent at once.
    pub(crate) fn request_lease(&self, view: &View, me: RaftId) -> LeaseRequest {
        let (incarnation, lasts) = (self.spec.incarnation, self.settings.timing.leases.lease);
        let mut lease = self.lease();
        let lease = lease.get_or_insert_with(|| Lease::new(me, incarnation, lasts));
        lease.observe(&view.state);
        lease.request(self.clock.now())
    }

    pub(crate) fn take_grant(&self, grant: Option<LeaseGrant>) {
        let now = self.clock.now();
        if let (Some(lease), Some(grant)) = (self.lease().as_mut(), grant) {
            lease.handle_grant(grant, now);
        }
    }

    /// Tells whether this node waits for the token of something it is primary of.
    pub(crate) fn awaits_fence(&self, view: &View) -> bool {
        let mut lease = self.lease();
        lease.as_mut().is_some_and(|lease| {
            lease.observe(&view.state);
            lease.awaits_fence()
        })
    }

    /// Renews the lease of this node, which leads.
    pub(crate) fn renew_own(&self, view: &View, me: RaftId) {
        let request = self.request_lease(view, me);
        self.take_grant(self.renew(view, &request));
    }

    /// Answers a request as the leader: with the newest grant that is proven by now.
    pub(crate) fn renew(&self, view: &View, request: &LeaseRequest) -> Option<LeaseGrant> {
        // Read before the age of the confirmation: a round must not seem to have begun later.
        let now = self.clock.now();
        let confirmed = self.member_control().confirmed();
        let mut coordinator = self.coordinator();
        let leases = coordinator.leases();
        if let Some(confirmed) = confirmed {
            leases.handle_proof(LeadershipProof {
                term: confirmed.term,
                begun_at: now - confirmed.begun_ago,
            });
        }
        if let Err(refused) = leases.handle_request(request, &view.state, now) {
            tracing::debug!(%refused, node = %request.node, "no lease");
            return None;
        }
        leases.grant(request.node, request.incarnation, now)
    }

    /// Refuses to prove anything while the application says that this node is down.
    fn refuse_if_down(&self) -> Result<(), NoToken> {
        match self.health.borrow().health {
            Health::Down => Err(NoToken::LeaseOver),
            Health::Healthy | Health::Unhealthy => Ok(()),
        }
    }

    /// Returns the token of `partition`, made from what is applied now.
    pub(crate) fn ownership(&self, partition: PartitionId) -> Result<OwnershipToken, NoToken> {
        self.refuse_if_down()?;
        let view = self.view();
        let mut lease = self.lease();
        let lease = lease.as_mut().ok_or(NoToken::LeaseOver)?;
        lease.observe(&view.state);
        lease.token(partition, self.clock.now())
    }

    /// Returns a newer token of the ownership that `token` proves. A later ownership has a later
    /// epoch, and whoever has a live lease has applied what others were given tokens for: so the
    /// same epoch proves that there was nobody in between.
    pub(crate) fn renew_ownership(
        &self,
        token: &OwnershipToken,
    ) -> Result<OwnershipToken, NoToken> {
        let newer = self.ownership(token.partition())?;
        if newer.epoch() == token.epoch() {
            return Ok(newer);
        }
        Err(NoToken::Superseded {
            partition: token.partition(),
            given: token.epoch(),
            current: newer.epoch(),
        })
    }

    /// Checks that `token` is still good, by what is applied now.
    pub(crate) fn check_ownership(&self, token: &OwnershipToken) -> Result<(), NoToken> {
        self.refuse_if_down()?;
        let view = self.view();
        let mut lease = self.lease();
        let lease = lease.as_mut().ok_or(NoToken::LeaseOver)?;
        lease.observe(&view.state);
        lease.check(token, self.clock.now())
    }
}
