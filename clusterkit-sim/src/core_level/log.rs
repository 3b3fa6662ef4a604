//! The idealised log: one total order of commands, and who may append to it.
//!
//! A leader needs more than half of the members that live as far as the log knows, awake and
//! within reach. Proposals take time; when the leader changes meanwhile, some are lost and some
//! come through late. Commands on which nodes agree are applied once for all and, as a second
//! opinion, by a replica that lags behind and must come to the same.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::command::{Applied, Command, Rejected};
use clusterkit_core::id::{DiskId, LogIndex, RaftId};
use clusterkit_core::node::NodeStatus;
use clusterkit_core::state::ClusterState;

use super::event::{Answer, Event, Purpose, Slot, What};
use super::judge::Step;
use super::process::Phase;
use super::world::{Check, World, ensure};
use crate::Rng;

/// How long a leader that cannot reach a majority still counts as the leader.
const PATIENCE: Duration = Duration::from_millis(600);

/// How long a proposer waits for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How many of a thousand proposals that are handed on arrive much later.
const LATE_PERMILLE: u32 = 25;

/// The most entries of one run. Beyond it somebody decides the same thing for ever.
const ENTRIES_MAX: u64 = 200_000;

/// A command on its way.
#[derive(Debug)]
struct Proposal {
    from: Slot,
    life: u32,
    command: Command,
    purpose: Purpose,
    term: u64,
    /// How often it found nobody to append it.
    tries: u32,
}

/// The log and what it came to.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) rng: Rng,
    /// The state after the last entry.
    pub(super) state: Arc<ClusterState>,
    pub(super) index: LogIndex,
    pub(super) term: u64,
    pub(super) leader: Option<Slot>,
    /// Nobody is elected before.
    pub(super) headless_until: Duration,
    /// Every member there ever was: its slot, and the disk it has.
    pub(super) members: BTreeMap<RaftId, (Slot, DiskId)>,
    /// Who takes over next if possible, because the last leader wished so.
    pub(super) heirs: Vec<Slot>,
    pub(super) last_entry_at: Duration,
    /// When last an entry was made, or a leader.
    pub(super) last_change_at: Duration,
    /// By how much the disk of a slot slows it down.
    pub(super) slow: BTreeMap<Slot, Duration>,
    proposals: BTreeMap<u64, Proposal>,
    proposed: u64,
    second: ClusterState,
    ahead: VecDeque<(LogIndex, Command, Result<Applied, Rejected>)>,
    catch_ups: u32,
    /// Whose vote counts, as far as the log knows and the disks still exist.
    voters: Vec<Slot>,
}

impl Log {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            rng,
            state: Arc::default(),
            // The first entry is the formation of the log itself.
            index: LogIndex(1),
            term: 1,
            leader: None,
            headless_until: Duration::ZERO,
            members: BTreeMap::new(),
            heirs: Vec::new(),
            last_entry_at: Duration::ZERO,
            last_change_at: Duration::ZERO,
            slow: BTreeMap::new(),
            proposals: BTreeMap::new(),
            proposed: 0,
            second: ClusterState::new(),
            ahead: VecDeque::new(),
            catch_ups: 0,
            voters: Vec::new(),
        }
    }

    /// Tells whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.proposals.is_empty()
    }

    /// Lets the second replica apply what it has not, and compares.
    pub(super) fn agree(&mut self, whole: bool) -> Check {
        while let Some((index, command, expected)) = self.ahead.pop_front() {
            let outcome = self.second.apply(index, &command);
            ensure(outcome == expected, "replicas-agree", || {
                format!("entry {index} {command:?}: {expected:?} on one, {outcome:?} on another")
            })?;
        }
        self.catch_ups += 1;
        if whole || self.catch_ups.is_multiple_of(64) {
            ensure(self.second == *self.state, "replicas-agree", || {
                format!("two replicas at {} differ", self.index)
            })?;
        }
        Ok(())
    }
}

impl World {
    /// Sends `command` of `slot` to the log.
    pub(super) fn propose(&mut self, slot: Slot, command: Command, purpose: Purpose) {
        let life = self.process(slot).life;
        let believes = self.process(slot).leads;
        let id = self.log.proposed;
        let (way, lost) = match (believes, self.log.leader) {
            (Some(term), Some(leader)) if leader == slot && term == self.log.term => {
                (Duration::ZERO, false)
            }
            (Some(_), _) => {
                // It does not lead any more: lost with its log, or handed on late.
                let late = self
                    .log
                    .rng
                    .duration(Duration::ZERO..=Duration::from_secs(3));
                (late, self.log.rng.chance(600))
            }
            (None, Some(leader)) if self.reaches(slot, leader) => match self.net.deliver() {
                // Some lie in a buffer until nobody expects them any more.
                (Some(way), _) if self.log.rng.chance(LATE_PERMILLE) => {
                    let late = Duration::ZERO..=Duration::from_secs(4);
                    (way + self.log.rng.duration(late), false)
                }
                (Some(way), _) => (way, false),
                (None, _) => (Duration::ZERO, true),
            },
            (None, _) => {
                let pause = self
                    .log
                    .rng
                    .duration(Duration::from_millis(50)..=Duration::from_millis(500));
                let result = Answer::NoLeader;
                self.plan(slot, pause, What::Answer { purpose, result });
                return;
            }
        };
        if lost {
            let result = Answer::Unknown;
            self.plan(slot, ANSWER_MAX, What::Answer { purpose, result });
            return;
        }
        self.log.proposed += 1;
        let proposal = Proposal {
            from: slot,
            life,
            command,
            purpose,
            term: self.log.term,
            tries: 0,
        };
        self.log.proposals.insert(id, proposal);
        let commit = self.commit_time();
        self.agenda.plan(self.now + way + commit, Event::Append(id));
    }

    fn commit_time(&mut self) -> Duration {
        let disk = self
            .log
            .leader
            .and_then(|leader| self.log.slow.get(&leader));
        let disk = disk.copied().unwrap_or_default();
        disk + self
            .log
            .rng
            .duration(Duration::from_micros(500)..=Duration::from_millis(8))
    }

    /// Commits a proposal that has reached the end of the log, if somebody can.
    pub(super) fn append(&mut self, id: u64) -> Check {
        let term = self.log.term;
        let able = self.log.leader.is_some_and(|leader| self.can_lead(leader));
        let Some(proposal) = self.log.proposals.get_mut(&id) else {
            return Ok(());
        };
        let overtaken = proposal.term != term;
        if !able {
            proposal.tries += 1;
            let gives_up = proposal.tries > 20 || self.log.rng.chance(150);
            if gives_up {
                self.drop_proposal(id);
            } else {
                let wait = Duration::from_millis(100)..=Duration::from_millis(600);
                let at = self.now + self.log.rng.duration(wait);
                self.agenda.plan(at, Event::Append(id));
            }
            return Ok(());
        }
        let lost = self.log.proposals.get(&id);
        let lost = lost.is_some_and(|proposal| self.leaves_no_log(&proposal.command));
        // The new leader may or may not have had it.
        if lost || overtaken && self.log.rng.chance(500) {
            self.drop_proposal(id);
            return Ok(());
        }
        let Some(proposal) = self.log.proposals.remove(&id) else {
            return Ok(());
        };
        let outcome = self.commit(&proposal.command)?;
        let result = match outcome {
            Ok(applied) => Answer::Applied(Box::new(applied)),
            Err(rejected) => Answer::Rejected(Box::new(rejected)),
        };
        self.give_answer(&proposal, result);
        Ok(())
    }

    /// Tells whether `command` removes the last member whose disk still exists. A real log cannot
    /// commit that: those who stay would have to agree.
    fn leaves_no_log(&self, command: &Command) -> bool {
        let Command::Remove { node, .. } = command else {
            return false;
        };
        let mut others = self.log.state.nodes().map(|other| other.raft_id);
        self.log.state.nodes().len() > 1
            && !others.any(|other| other != *node && self.home_of(other).is_some())
    }

    fn drop_proposal(&mut self, id: u64) {
        if let Some(proposal) = self.log.proposals.remove(&id) {
            self.give_answer(&proposal, Answer::Unknown);
        }
    }

    fn give_answer(&mut self, proposal: &Proposal, result: Answer) {
        let from = proposal.from;
        let heard = self
            .log
            .leader
            .is_some_and(|leader| self.reaches(leader, from));
        let (result, after) = if heard && !matches!(result, Answer::Unknown) {
            (result, Duration::from_millis(2))
        } else {
            (Answer::Unknown, ANSWER_MAX)
        };
        let purpose = proposal.purpose;
        let what = What::Answer { purpose, result };
        let (slot, life) = (from, proposal.life);
        self.agenda
            .plan(self.now + after, Event::Process { slot, life, what });
    }

    /// Puts `command` at the end of the log.
    pub(super) fn commit(
        &mut self,
        command: &Command,
    ) -> Result<Result<Applied, Rejected>, super::world::Broken> {
        let before = Arc::clone(&self.log.state);
        let index = LogIndex(self.log.index.0 + 1);
        let outcome = Arc::make_mut(&mut self.log.state).apply(index, command);
        self.log.index = index;
        self.log.last_entry_at = self.now;
        self.log.last_change_at = self.now;
        let after = Arc::clone(&self.log.state);
        let numbers = [
            index.0,
            after.epoch().0,
            after.last_event().0,
            u64::from(outcome.is_ok()),
        ];
        self.trace.step(self.now, "entry", &numbers, || {
            let told = match &outcome {
                Ok(applied) => format!("epoch {}, {} events", applied.epoch, applied.events.len()),
                Err(rejected) => format!("rejected: {rejected}"),
            };
            format!("{index} {command:?}: {told}")
        });
        if let (Command::Join { node, .. } | Command::Bootstrap { node, .. }, Ok(applied)) =
            (command, &outcome)
            && let Some(raft_id) = applied.node
        {
            let slot = node
                .id
                .as_str()
                .trim_start_matches('n')
                .parse()
                .unwrap_or(1);
            self.judge.admitted(raft_id, node.disk, index)?;
            self.log.members.insert(raft_id, (slot, node.disk));
        }
        if !before.nodes().eq(after.nodes()) {
            self.count_voters();
        }
        self.log
            .ahead
            .push_back((index, command.clone(), outcome.clone()));
        if self.log.rng.chance(200) {
            self.log.agree(false)?;
        }
        self.judge_step(&Step {
            before: &before,
            command,
            outcome: &outcome,
            after: &after,
        })?;
        ensure(index.0 < ENTRIES_MAX, "every-operation-ends", || {
            format!("entry {index}, and still more is decided: {command:?}")
        })?;
        self.spread();
        if takes_away(command) {
            self.doubt_leader();
        }
        Ok(outcome)
    }

    /// Lets every member that lags behind and can hear of it catch up soon.
    pub(super) fn spread(&mut self) {
        for slot in 1..=self.processes.len() {
            let slot = Slot::try_from(slot).unwrap_or(Slot::MAX);
            self.spread_to(slot);
        }
    }

    pub(super) fn spread_to(&mut self, slot: Slot) {
        let Some(leader) = self.log.leader else {
            return;
        };
        let process = self.process(slot);
        let lags = process.running
            && !process.catching_up
            && process.disk.raft_id.is_some()
            && process.phase != Phase::Left
            && process.view.applied() < self.log.index;
        if !lags || !self.reaches(leader, slot) {
            return;
        }
        let after = if leader == slot {
            Duration::from_micros(500)
        } else {
            let slow = self.log.slow.get(&slot).copied().unwrap_or_default();
            let usual = Duration::from_millis(1)..=Duration::from_millis(30);
            match self.net.deliver().0 {
                Some(way) => way + slow + self.log.rng.duration(usual),
                // Lost, and sent again.
                None => self
                    .log
                    .rng
                    .duration(Duration::from_millis(100)..=Duration::from_millis(400)),
            }
        };
        self.process_mut(slot).catching_up = true;
        self.plan(slot, after, What::CatchUp);
    }

    /// Applies at `slot` what was committed, if it can hear of it.
    pub(super) fn catch_up(&mut self, slot: Slot) -> Check {
        self.process_mut(slot).catching_up = false;
        let heard = self
            .log
            .leader
            .is_some_and(|leader| self.reaches(leader, slot));
        if !heard {
            return Ok(());
        }
        let state = Arc::clone(&self.log.state);
        let process = self.process_mut(slot);
        let news = process.view.epoch() != state.epoch();
        process.view = state;
        if let Some(lease) = &mut process.lease {
            lease.observe(&process.view);
        }
        if news {
            self.hurry_pulse(slot);
            self.check_tokens_soon()?;
        }
        let process = self.process(slot);
        let removed = process
            .disk
            .raft_id
            .is_some_and(|me| process.view.node(me).is_none() && process.view.applied().0 >= me.0);
        self.feed(slot)?;
        if removed {
            self.leave(slot);
            return Ok(());
        }
        if self.process(slot).phase == Phase::Announcing && self.process(slot).is_known() {
            self.become_member(slot);
        }
        self.wake_leader(slot);
        Ok(())
    }

    /// Finds out whose vote counts: members that live as far as the log knows and whose disks still
    /// exist; where there are none, all members whose disks do.
    pub(super) fn count_voters(&mut self) {
        let of = |test: &dyn Fn(NodeStatus) -> bool| -> Vec<Slot> {
            let nodes = self.log.state.nodes().filter(|node| test(node.status));
            nodes
                .filter_map(|node| self.home_of(node.raft_id))
                .collect()
        };
        let live = of(&|status| status.is_live() && status != NodeStatus::Joining);
        self.log.voters = if live.is_empty() { of(&|_| true) } else { live };
    }

    /// Tells whether `slot` can lead: it votes, or leads already, and a majority hears it.
    pub(super) fn can_lead(&self, slot: Slot) -> bool {
        let may = self.log.leader == Some(slot) || self.log.voters.contains(&slot);
        self.is_awake(slot) && may && self.reaches_majority(slot)
    }

    /// Tells whether `slot` can talk to more than half of the voters.
    pub(super) fn reaches_majority(&self, slot: Slot) -> bool {
        let voters = &self.log.voters;
        let with = voters
            .iter()
            .filter(|&&voter| self.is_awake(voter) && self.talks(slot, voter));
        with.count() * 2 > voters.len()
    }

    /// Looks whether the leader can still lead after something has changed.
    pub(super) fn doubt_leader(&mut self) {
        let Some(leader) = self.log.leader else {
            return;
        };
        if !self.can_lead(leader) {
            let term = self.log.term;
            let patience = PATIENCE + self.log.rng.duration(Duration::ZERO..=PATIENCE);
            self.agenda
                .plan(self.now + patience, Event::StepDown { term });
        }
    }

    pub(super) fn step_down(&mut self, term: u64) {
        let Some(leader) = self.log.leader.filter(|_| self.log.term == term) else {
            return;
        };
        if !self.can_lead(leader) {
            self.depose(Duration::ZERO);
        }
    }

    /// Takes leadership away; nobody leads for `headless` at least.
    pub(super) fn depose(&mut self, headless: Duration) {
        let Some(leader) = self.log.leader.take() else {
            return;
        };
        let term = self.log.term;
        self.log.headless_until = self.now + headless;
        let learns = self
            .log
            .rng
            .duration(Duration::from_millis(1)..=Duration::from_secs(2));
        self.trace
            .step(self.now, "deposed", &[u64::from(leader), term], || {
                format!("n{leader}")
            });
        self.plan(leader, learns, What::Deposed { term });
        self.call_election();
    }

    pub(super) fn call_election(&mut self) {
        // Leadership that is handed over passes at once, one that was lost after a while.
        let quick = self.log.rng.chance(400);
        let (least, most) = if quick { (5, 50) } else { (150, 900) };
        let wait = Duration::from_millis(least)..=Duration::from_millis(most);
        let wait = self.log.rng.duration(wait);
        let at = self.log.headless_until.max(self.now) + wait;
        let term = self.log.term;
        self.agenda.plan(at, Event::Elect { term });
    }

    /// Elects somebody who can lead, or tries again later.
    pub(super) fn elect(&mut self, term: u64) {
        if self.log.leader.is_some() || self.log.term != term {
            return;
        }
        let mut able = self.log.voters.clone();
        able.retain(|&slot| self.can_lead(slot));
        let heirs = std::mem::take(&mut self.log.heirs);
        if able.iter().any(|slot| heirs.contains(slot)) {
            able.retain(|slot| heirs.contains(slot));
        }
        let Some(&leader) = self.log.rng.pick(&able) else {
            self.call_election();
            return;
        };
        self.log.term += 1;
        let term = self.log.term;
        self.log.leader = Some(leader);
        self.log.last_change_at = self.now;
        self.trace
            .step(self.now, "elected", &[u64::from(leader), term], || {
                format!("n{leader} in term {term}")
            });
        let learns = self
            .log
            .rng
            .duration(Duration::from_millis(1)..=Duration::from_millis(100));
        self.plan(leader, learns, What::Elected { term });
        self.spread();
    }
}

/// Tells whether the command may change whose vote counts.
const fn takes_away(command: &Command) -> bool {
    matches!(
        command,
        Command::MarkDown { .. }
            | Command::MarkUp { .. }
            | Command::Remove { .. }
            | Command::Join { .. }
    )
}
