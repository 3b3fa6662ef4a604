//! Narrated scenarios and properties of the failure detector.

use alloc::format;
use alloc::string::{String, ToString};

use proptest::prelude::*;

use super::*;

mod sightings;

const ME: RaftId = RaftId(1);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// A leader that tracks itself and `others`, and hears from nobody unless told.
struct Scene {
    detector: Detector,
}

impl Scene {
    fn new(others: &[u64]) -> Self {
        let mut detector = Detector::new(DetectorConfig::default()).unwrap();
        detector.lead(ME, at(0));
        for id in others.iter().chain([&ME.0]) {
            detector.track(RaftId(*id), false, at(0));
        }
        Self { detector }
    }

    fn hear(&mut self, millis: u64, nodes: &[u64]) {
        for id in nodes {
            let heard = self
                .detector
                .handle_heartbeat(RaftId(*id), Incarnation(1), at(millis));
            assert_eq!(heard, Heard::Counted);
        }
    }

    /// Polls and checks the answer, written as `down:7 up:8 suspect:7,9 protected next:1350`.
    fn poll(&mut self, millis: u64, expected: &str) {
        let verdicts = self.detector.poll(at(millis));
        assert!(verdicts.next > at(millis), "a poll must not ask for itself");
        assert_eq!(shown(&verdicts), expected, "at {millis} ms");
    }

    fn log_says(&mut self, millis: u64, node: u64, down: bool) {
        self.detector.track(RaftId(node), down, at(millis));
    }
}

fn shown(verdicts: &Verdicts) -> String {
    let mut shown = String::new();
    for (name, list) in [
        ("down", &verdicts.down),
        ("up", &verdicts.up),
        ("suspect", &verdicts.suspect),
    ] {
        if !list.is_empty() {
            let ids: Vec<String> = list.iter().map(ToString::to_string).collect();
            shown += &format!("{name}:{} ", ids.join(","));
        }
    }
    if verdicts.protected {
        shown += "protected ";
    }
    let next = match verdicts.next {
        Instant::FAR_FUTURE => "never".to_string(),
        next => (next.as_nanos() / 1_000_000).to_string(),
    };
    shown + "next:" + &next
}

#[test]
fn a_silent_node_is_suspected_then_condemned_one_window_later() {
    let mut scene = Scene::new(&[2, 3]);
    scene.poll(0, "next:1050");
    scene.hear(900, &[2, 3]);
    scene.hear(1_000, &[2]);
    scene.poll(1_050, "next:1950");
    scene.hear(1_900, &[2]);
    scene.poll(1_950, "suspect:3 next:2250");
    scene.hear(2_200, &[2]);
    scene.poll(2_250, "down:3 suspect:3 next:3250");
    // The log takes the verdict: it is not suspect any more, it is down.
    scene.log_says(2_260, 3, true);
    assert_eq!(
        scene.detector.liveness(RaftId(3), at(2_260)),
        Some(Liveness::Down)
    );
    scene.poll(2_270, "next:3250");
}

#[test]
fn a_suspect_that_speaks_within_the_window_is_up_again() {
    let mut scene = Scene::new(&[2]);
    scene.poll(1_050, "suspect:2 next:1350");
    scene.hear(1_349, &[2]);
    scene.poll(1_350, "next:2399");
    assert_eq!(
        scene.detector.liveness(RaftId(2), at(1_350)),
        Some(Liveness::Up)
    );
}

#[test]
fn rule_05_nodes_that_die_together_go_in_one_cut_and_too_many_are_protected() {
    // Their last heartbeats straddle 200 ms; six of nine go.
    let mut scene = Scene::new(&[2, 3, 4, 5, 6, 7, 8, 9]);
    scene.hear(100, &[2, 3, 4]);
    scene.hear(300, &[5, 6, 7]);
    scene.hear(1_000, &[8, 9]);
    scene.poll(1_150, "suspect:2,3,4 next:1350");
    scene.poll(1_350, "suspect:2,3,4,5,6,7 next:1450");
    scene.hear(1_400, &[8, 9]);
    scene.poll(
        1_450,
        "down:2,3,4,5,6,7 suspect:2,3,4,5,6,7 protected next:2450",
    );
}

#[test]
fn one_of_three_is_not_protected_and_two_of_five_are() {
    let mut scene = Scene::new(&[2, 3]);
    scene.hear(900, &[2]);
    scene.poll(1_050, "suspect:3 next:1350");
    scene.hear(1_340, &[2]);
    scene.poll(1_350, "down:3 suspect:3 next:2350");

    let mut scene = Scene::new(&[2, 3, 4, 5]);
    scene.hear(900, &[2, 3]);
    scene.poll(1_050, "suspect:4,5 next:1350");
    scene.hear(1_340, &[2, 3]);
    scene.poll(1_350, "down:4,5 suspect:4,5 protected next:2350");
}

#[test]
fn a_second_cut_soon_after_the_first_counts_as_one_event() {
    let mut scene = Scene::new(&[2, 3, 4, 5, 6]);
    scene.hear(800, &[2, 3, 4, 5]);
    scene.poll(1_050, "suspect:6 next:1350");
    scene.poll(1_350, "down:6 suspect:6 next:1850");
    scene.log_says(1_360, 6, true);
    scene.hear(1_800, &[2, 3]);
    scene.poll(1_850, "suspect:4,5 next:2150");
    // Two of six alone would pass; with the one condemned 800 ms ago it is half the cluster.
    scene.poll(2_150, "down:4,5 suspect:4,5 protected next:2850");
}

#[test]
fn a_fresh_leader_waits_one_full_lease() {
    let mut scene = Scene::new(&[2]);
    scene.detector.follow();
    scene.poll(60_000, "next:never");
    scene.detector.lead(ME, at(100_000));
    scene.poll(100_000, "next:101050");
    scene.poll(101_049, "next:101050");
    scene.poll(101_050, "suspect:2 next:101350");
    scene.poll(101_350, "down:2 suspect:2 next:102350");
}

#[test]
fn a_late_leader_reads_its_heartbeats_before_it_condemns() {
    let mut scene = Scene::new(&[2, 3]);
    scene.hear(600, &[2]);
    scene.poll(1_050, "suspect:3 next:1350");
    // The leader is paused for ten seconds; heartbeats of node 2 wait in the socket.
    scene.poll(11_050, "suspect:2,3 next:11350");
    scene.hear(11_060, &[2]);
    scene.poll(11_350, "down:3 suspect:3 next:12110");
}

#[test]
fn a_leader_that_is_always_late_condemns_in_the_end() {
    let mut scene = Scene::new(&[2]);
    scene.poll(0, "next:1050");
    let mut polls = 0;
    let mut now = 0;
    while scene.detector.poll(at(now)).down.is_empty() {
        now += 2_000;
        polls += 1;
        assert!(polls < 8, "never condemned");
    }
    assert!(polls > 4, "condemned at {now} ms");
}

#[test]
fn a_verdict_the_log_never_took_is_issued_again() {
    let mut scene = Scene::new(&[2]);
    scene.poll(1_050, "suspect:2 next:1350");
    scene.poll(1_350, "down:2 suspect:2 next:2350");
    scene.poll(1_400, "suspect:2 next:2350");
    scene.poll(2_350, "suspect:2 next:2650");
    scene.poll(2_650, "down:2 suspect:2 next:3650");
}

#[test]
fn a_node_that_returns_is_up_at_once_and_one_that_flaps_must_prove_itself() {
    let mut scene = Scene::new(&[2]);
    scene.log_says(1_000, 2, true);
    scene.hear(1_100, &[2]);
    scene.poll(1_100, "up:2 next:2100");
    scene.log_says(1_110, 2, false);
    // The second failure within a minute: one window of steady heartbeats.
    scene.log_says(10_000, 2, true);
    scene.hear(10_100, &[2]);
    scene.poll(10_100, "next:10400");
    scene.hear(10_300, &[2]);
    scene.poll(10_400, "up:2 next:11300");
    scene.log_says(10_410, 2, false);
    assert_eq!(scene.detector.strikes(RaftId(2), at(10_410)), 2);
    // The third: two windows, and a gap starts them again.
    scene.log_says(20_000, 2, true);
    scene.hear(20_100, &[2]);
    scene.hear(21_200, &[2]);
    scene.poll(21_200, "next:21800");
    scene.hear(21_700, &[2]);
    scene.poll(21_800, "up:2 next:22700");
    scene.log_says(21_810, 2, false);
    // Strikes fade, one a minute.
    assert_eq!(scene.detector.strikes(RaftId(2), at(80_100)), 2);
    assert_eq!(scene.detector.strikes(RaftId(2), at(200_001)), 0);
}

#[test]
fn the_return_delay_is_capped() {
    let mut scene = Scene::new(&[2]);
    for round in 0..40 {
        scene.log_says(1_000 + round, 2, true);
        scene.log_says(1_000 + round, 2, false);
    }
    scene.log_says(2_000, 2, true);
    let mut now = 2_000;
    while scene.detector.poll(at(now)).up.is_empty() {
        scene.hear(now, &[2]);
        now += 100;
        assert!(now < 40_000, "never up again");
    }
    assert!(now >= 32_000, "up after {now} ms");
}

#[test]
fn a_heartbeat_of_an_earlier_process_does_not_count() {
    let mut scene = Scene::new(&[2]);
    let mut hear = |incarnation| {
        scene
            .detector
            .handle_heartbeat(RaftId(2), Incarnation(incarnation), at(500))
    };
    assert_eq!(hear(4), Heard::Counted);
    assert_eq!(hear(3), Heard::Stale);
    assert_eq!(
        scene
            .detector
            .handle_heartbeat(RaftId(9), Incarnation(1), at(500)),
        Heard::Unknown
    );
    assert_eq!(scene.detector.last_heard(RaftId(2)), Some(at(500)));
}

#[test]
fn the_leader_never_condemns_itself_and_marks_itself_up() {
    let mut scene = Scene::new(&[2]);
    scene.log_says(10, 1, true);
    scene.hear(9_990, &[2]);
    scene.poll(10_000, "up:1 next:11000");
    scene.log_says(10_010, 1, false);
    scene.hear(10_900, &[2]);
    scene.poll(11_000, "next:11950");
}

#[test]
fn forgotten_nodes_are_not_judged() {
    let mut scene = Scene::new(&[2, 3]);
    scene.detector.forget(RaftId(2));
    scene.detector.retain(|node| node == ME);
    scene.poll(60_000, "next:never");
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let check = |change: fn(&mut DetectorConfig), expected: &str| {
        let mut config = DetectorConfig::default();
        change(&mut config);
        assert_eq!(config.validate().unwrap_err().to_string(), expected);
    };
    assert_eq!(DetectorConfig::default().validate(), Ok(()));
    check(
        |c| c.lease = Duration::ZERO,
        "detector.lease is `0ns`, must be 10ms to 600s",
    );
    check(
        |c| c.drift_margin = Duration::from_secs(2),
        "detector.drift_margin is `2s`, must be 2ms to 1s",
    );
    check(
        |c| c.drift_margin = Duration::ZERO,
        "detector.drift_margin is `0ns`, must be 2ms to 1s",
    );
    check(
        |c| c.window = Duration::from_secs(61),
        "detector.window is `61s`, must be 1ms to 60s",
    );
    check(
        |c| c.max_down_permille = 0,
        "detector.max_down_permille is `0`, must be 1 to 1000",
    );
    check(
        |c| c.vouched_limit = Duration::from_secs(2),
        "detector.vouched_limit is `2s`, must be 2.1s to 86400s",
    );
    check(
        |c| c.strike_memory = Duration::ZERO,
        "detector.strike_memory is `0ns`, must be 1s to 86400s",
    );
    check(
        |c| c.return_delay_max = Duration::ZERO,
        "detector.return_delay_max is `0ns`, must be 300ms to 86400s",
    );
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Hear(u64),
    See(u64, u64, u64),
    Poll,
    Log(u64, bool),
    Lead,
    Follow,
    Forget(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = 2_u64..7;
    let step = prop_oneof![
        6 => (0_u64..900).prop_map(Step::Wait),
        8 => node.clone().prop_map(Step::Hear),
        6 => (node.clone(), node.clone(), 0_u64..1_500)
            .prop_map(|(by, of, age)| Step::See(by, of, age)),
        6 => Just(Step::Poll),
        2 => (node.clone(), any::<bool>()).prop_map(|(node, down)| Step::Log(node, down)),
        1 => Just(Step::Lead),
        1 => Just(Step::Follow),
        1 => node.prop_map(Step::Forget),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn a_node_heard_within_the_lease_or_seen_by_others_is_never_condemned(steps in steps()) {
        let mut detector = Detector::new(DetectorConfig::default()).unwrap();
        let mut twin = detector.clone();
        let mut heard: BTreeMap<u64, u64> = BTreeMap::new();
        let mut down: BTreeMap<u64, bool> = BTreeMap::new();
        let mut seen: BTreeMap<(u64, u64), Instant> = BTreeMap::new();
        let (mut now, mut leading_since) = (0, None);
        for step in steps {
            match step {
                Step::Wait(millis) => now += millis,
                Step::Hear(node) => {
                    let result = detector.handle_heartbeat(RaftId(node), Incarnation(1), at(now));
                    let _ = twin.handle_heartbeat(RaftId(node), Incarnation(1), at(now));
                    prop_assert_eq!(result == Heard::Counted, down.contains_key(&node));
                    heard.insert(node, now);
                }
                Step::See(by, of, age) => {
                    let (by, of, age) = (RaftId(by), RaftId(of), Duration::from_millis(age));
                    let one = Incarnation(1);
                    let result = detector.handle_sighting(by, of, one, age, at(now));
                    let _ = twin.handle_sighting(by, of, one, age, at(now));
                    let known = by != of && down.contains_key(&by.0) && down.contains_key(&of.0);
                    prop_assert_eq!(result == Heard::Counted, known);
                    if known {
                        let sent = at(now) - age;
                        let newest = seen.entry((by.0, of.0)).or_insert(sent);
                        *newest = sent.max(*newest);
                    }
                }
                Step::Log(node, is_down) => {
                    detector.track(RaftId(node), is_down, at(now));
                    twin.track(RaftId(node), is_down, at(now));
                    down.insert(node, is_down);
                }
                Step::Forget(node) => {
                    detector.forget(RaftId(node));
                    twin.forget(RaftId(node));
                    down.remove(&node);
                    seen.retain(|&(by, of), _| by != node && of != node);
                }
                Step::Lead => {
                    detector.lead(ME, at(now));
                    twin.lead(ME, at(now));
                    leading_since = Some(now);
                }
                Step::Follow => {
                    detector.follow();
                    twin.follow();
                    leading_since = None;
                }
                Step::Poll => {
                    let verdicts = detector.poll(at(now));
                    prop_assert_eq!(&verdicts, &twin.poll(at(now)));
                    prop_assert!(verdicts.next > at(now));
                    for node in &verdicts.down {
                        let last = heard.get(&node.0).copied().unwrap_or(0);
                        prop_assert!(now - last >= 1_000);
                        prop_assert!(now - leading_since.unwrap() >= 1_000);
                        prop_assert_eq!(down.get(&node.0), Some(&false));
                        prop_assert!(verdicts.suspect.contains(node));
                        let live = |by: u64| {
                            let last = heard.get(&by).copied().unwrap_or(0);
                            down.get(&by) == Some(&false) && now - last < 1_000
                        };
                        let patient = verdicts.overruled.contains(node);
                        let sees = seen.iter().find(|&(&(by, of), &sent)| {
                            of == node.0 && live(by) && at(now) < sent + Duration::from_secs(1)
                        });
                        prop_assert!(patient || sees.is_none(), "{} is seen: {:?}", node, sees);
                    }
                    for node in &verdicts.up {
                        prop_assert!(now - heard[&node.0] <= 1_000);
                        prop_assert_eq!(down.get(&node.0), Some(&true));
                    }
                }
            }
        }
        // Whatever came before: a leader that polls when asked condemns who stays silent.
        if leading_since.is_some() {
            let mut condemned = Vec::new();
            let end = at(now) + Duration::from_secs(5);
            let mut next = at(now);
            while next < end {
                let verdicts = detector.poll(next);
                condemned.extend(verdicts.down);
                next = verdicts.next;
            }
            for (node, _) in down.iter().filter(|(_, down)| !**down) {
                prop_assert!(condemned.contains(&RaftId(*node)), "{} lives on", node);
            }
        }
    }
}
