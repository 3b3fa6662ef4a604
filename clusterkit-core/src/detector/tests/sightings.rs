//! What the sightings of others are worth.

use alloc::vec;

use super::*;

impl Scene {
    /// Node `by` reports that it asked `of` at `sent`, and was answered.
    fn see(&mut self, millis: u64, by: u64, of: u64, sent: u64) -> Heard {
        let age = Duration::from_millis(millis - sent);
        let (by, of) = (RaftId(by), RaftId(of));
        self.detector
            .handle_sighting(by, of, Incarnation(1), age, at(millis))
    }

    /// Polls and tells who is condemned, who is vouched for, and who hears them.
    fn judge(&mut self, millis: u64) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
        let verdicts = self.detector.poll(at(millis));
        let ids = |nodes: &[RaftId]| nodes.iter().map(|node| node.0).collect::<Vec<u64>>();
        (
            ids(&verdicts.down),
            ids(&verdicts.vouched),
            ids(&verdicts.hearers),
        )
    }

    /// Heartbeats of `nodes` every 100 ms from `from` to `to`, which see node 2 each time, and the
    /// first verdict in which somebody is condemned.
    fn seen_by(&mut self, nodes: &[u64], from: u64, to: u64) -> Option<(u64, Verdicts)> {
        for now in (from..=to).step_by(50) {
            if now % 100 == 0 {
                self.hear(now, nodes);
                for &by in nodes {
                    assert_eq!(self.see(now, by, 2, now - 50), Heard::Counted);
                }
            }
            let verdicts = self.detector.poll(at(now));
            if !verdicts.down.is_empty() {
                return Some((now, verdicts));
            }
        }
        None
    }
}

#[test]
fn a_leader_cut_off_from_one_node_cannot_remove_it() {
    let mut scene = Scene::new(&[2, 3, 4]);
    assert_eq!(scene.seen_by(&[3, 4], 100, 20_000), None);
    let (down, vouched, hearers) = scene.judge(20_000);
    assert_eq!((down, vouched, hearers), (vec![], vec![2], vec![3, 4]));
    assert_eq!(
        scene.detector.liveness(RaftId(2), at(20_000)),
        Some(Liveness::Suspect),
        "it is not heard here, and gets no lease"
    );
    // It is heard again: nobody speaks for it any more, because nobody has to.
    scene.hear(20_050, &[2, 3, 4]);
    assert_eq!(scene.judge(20_100), (vec![], vec![], vec![]));
}

#[test]
fn what_was_seen_before_a_node_died_costs_no_time() {
    // Node 2 dies at 1000, just after it answered; the leader heard it last at 905.
    let mut scene = Scene::new(&[2, 3]);
    scene.hear(905, &[2, 3]);
    scene.hear(1_001, &[3]);
    assert_eq!(scene.see(1_001, 3, 2, 999), Heard::Counted);
    scene.poll(1_955, "suspect:2 next:2049");
    scene.hear(2_000, &[3]);
    // The sighting ends at 2049; the cut comes when it would have come without one.
    scene.poll(2_049, "suspect:2 next:2255");
    scene.poll(2_255, "down:2 suspect:2 next:3050");
}

#[test]
fn a_node_that_dies_while_it_is_vouched_for_is_condemned_a_window_after_it_was_last_seen() {
    let mut scene = Scene::new(&[2, 3, 4]);
    assert_eq!(scene.seen_by(&[3, 4], 100, 5_000), None);
    let mut next = at(5_000);
    let mut condemned = None;
    while condemned.is_none() && next < at(10_000) {
        scene.hear(next.as_nanos() / 1_000_000, &[3, 4]);
        let verdicts = scene.detector.poll(next);
        condemned = (!verdicts.down.is_empty()).then_some(next);
        next = verdicts.next;
    }
    // Last asked at 4950.
    assert_eq!(condemned, Some(at(4_950 + 1_050 + 300)));
}

#[test]
fn only_who_is_up_vouches_and_only_for_the_present_process() {
    let mut scene = Scene::new(&[2, 3, 4]);
    scene.hear(900, &[2, 3, 4]);
    // Node 3 goes with node 2, and what it has said counts until it is silent itself.
    scene.hear(1_000, &[3]);
    assert_eq!(scene.see(1_000, 3, 2, 1_000), Heard::Counted);
    for now in [1_300, 1_900, 2_250] {
        scene.hear(now, &[4]);
    }
    scene.poll(1_950, "suspect:2 next:2050");
    scene.poll(2_050, "suspect:2,3 next:2250");
    scene.poll(2_250, "down:2,3 suspect:2,3 protected next:3250");

    let mut scene = Scene::new(&[2, 3]);
    let _ = scene
        .detector
        .handle_heartbeat(RaftId(2), Incarnation(5), at(100));
    assert_eq!(scene.see(200, 3, 2, 200), Heard::Stale);
    assert_eq!(scene.see(200, 3, 9, 200), Heard::Unknown);
    assert_eq!(scene.see(200, 9, 3, 200), Heard::Unknown);
    assert_eq!(scene.see(200, 2, 2, 200), Heard::Unknown);
}

#[test]
fn an_old_report_that_arrives_late_takes_nothing_back() {
    let mut scene = Scene::new(&[2, 3]);
    scene.hear(1_900, &[3]);
    assert_eq!(scene.see(1_900, 3, 2, 1_890), Heard::Counted);
    assert_eq!(scene.see(1_910, 3, 2, 1_000), Heard::Counted);
    scene.poll(1_920, "suspect:2 next:2220");
    scene.hear(2_200, &[3]);
    assert_eq!(scene.judge(2_220), (vec![], vec![2], vec![]));
}

#[test]
fn nobody_is_waited_for_beyond_the_limit_however_many_see_it() {
    let mut scene = Scene::new(&[2, 3, 4]);
    let (when, verdicts) = scene.seen_by(&[3, 4], 100, 60_000).unwrap();
    assert_eq!(verdicts.down, [RaftId(2)]);
    assert_eq!(verdicts.overruled, [RaftId(2)]);
    // 20 times the patience, and a window.
    assert!((21_300..=21_400).contains(&when), "at {when} ms");
}
