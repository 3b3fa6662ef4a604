//! Random scripts of outcomes under virtual time: what must hold of every call, whatever happens.
//!
//! No socket: the topology comes from a source of the test's own, which is slow, wrong or silent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use clusterkit_client::{
    CallError, CallFailure, CallOutcome, Client, ReadFrom, SourceError, TopologyFeed,
    TopologySource,
};
use clusterkit_core::id::Epoch;
use clusterkit_core::topology::Topology;

use crate::node::{Cluster, virtual_now};

/// A small deterministic generator (xorshift).
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn millis(&mut self, limit: u64) -> Duration {
        Duration::from_millis(self.below(limit))
    }
}

/// The latency of a scripted answer, on the paused clock: nothing is waited for with it.
async fn takes(latency: Duration) {
    tokio::time::sleep_until(virtual_now() + latency).await;
}

/// A source whose cluster changes under the call.
#[derive(Debug)]
struct Moody {
    random: Mutex<Random>,
    cluster: Mutex<Cluster>,
}

#[async_trait]
impl TopologySource for Moody {
    async fn fetch(
        &self,
        address: &str,
        known: Option<&Arc<Topology>>,
    ) -> Result<Option<Arc<Topology>>, SourceError> {
        let (mood, delay) = {
            let mut random = self.random.lock().unwrap();
            (random.below(8), random.millis(400))
        };
        let Some(known) = known else {
            return Ok(Some(Arc::new(self.cluster.lock().unwrap().topology())));
        };
        takes(delay).await;
        match mood {
            0 => std::future::pending().await,
            1 | 2 => Err(SourceError::Unavailable {
                address: address.to_owned(),
                message: "moody".to_owned(),
            }),
            3 | 4 => {
                let mut cluster = self.cluster.lock().unwrap();
                let next = 1 + self.random.lock().unwrap().below(3);
                if mood == 3 {
                    cluster.promote(next);
                } else {
                    cluster.epoch += 1;
                    cluster.primary = None;
                }
                Ok(Some(Arc::new(cluster.topology())))
            }
            _ => {
                let topology = self.cluster.lock().unwrap().topology();
                Ok((topology.epoch() > known.epoch()).then(|| Arc::new(topology)))
            }
        }
    }

    async fn watch(
        &self,
        address: &str,
        _: Arc<Topology>,
    ) -> Result<Box<dyn TopologyFeed>, SourceError> {
        Err(SourceError::Unsupported {
            address: address.to_owned(),
            message: "moody".to_owned(),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Fine,
    Fails(CallOutcome),
    Hangs,
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?}")]
struct Failure(CallOutcome);

impl CallFailure for Failure {
    fn outcome(&self) -> CallOutcome {
        self.0
    }
}

fn answer(random: &mut Random) -> Answer {
    let epoch = Some(Epoch(random.below(10))).filter(|epoch| epoch.value() > 0);
    match random.below(20) {
        0 => Answer::Fine,
        1 => Answer::Fails(CallOutcome::Fatal),
        2 => Answer::Hangs,
        3..=5 => Answer::Fails(CallOutcome::Unknown),
        6..=11 => Answer::Fails(CallOutcome::Moved { epoch }),
        _ => Answer::Fails(CallOutcome::Unavailable),
    }
}

async fn check(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    random.below(2);
    let addresses = (1..=3).map(|port| format!("10.0.0.1:{port}")).collect();
    let source = Moody {
        random: Mutex::new(Random(random.below(u64::MAX) | 1)),
        cluster: Mutex::new(Cluster::at(addresses)),
    };
    let builder = Client::builder(["10.0.0.1:1"]).source(source);
    let client = builder.connect().await.unwrap();

    let idempotent = random.below(2) == 0;
    let deadline = Duration::from_millis(1) + random.millis(4_000);
    let read_from = [
        ReadFrom::Primary,
        ReadFrom::PrimaryFirst,
        ReadFrom::AnyInSync,
    ][usize::try_from(random.below(3)).unwrap()];
    let call = client
        .call(b"key")
        .idempotent(idempotent)
        .deadline(deadline)
        .attempt_timeout(Duration::from_millis(1) + random.millis(500))
        .read_from(read_from);
    // An attempt that is cut off stays in the list as what it would have been: unknown.
    let given: Mutex<Vec<Answer>> = Mutex::default();
    let started = virtual_now();
    let result = call
        .send(|_| {
            let (answer, delay) = (answer(&mut random), random.millis(120));
            given.lock().unwrap().push(Answer::Hangs);
            let given = &given;
            async move {
                takes(delay).await;
                if answer == Answer::Hangs {
                    std::future::pending::<()>().await;
                }
                *given.lock().unwrap().last_mut().unwrap() = answer;
                match answer {
                    Answer::Fails(outcome) => Err(Failure(outcome)),
                    Answer::Fine | Answer::Hangs => Ok(()),
                }
            }
        })
        .await;
    let took = virtual_now() - started;
    let given = given.into_inner().unwrap();
    let context = format!("seed {seed}, deadline {deadline:?}, {given:?}: {result:?}");

    assert!(
        took <= deadline + Duration::from_millis(5),
        "{took:?}, {context}"
    );
    let is_unknown =
        |answer: &Answer| matches!(answer, Answer::Hangs | Answer::Fails(CallOutcome::Unknown));
    let is_final =
        |answer: &Answer| matches!(answer, Answer::Fine | Answer::Fails(CallOutcome::Fatal));
    for (i, answer) in given.iter().enumerate() {
        let is_last = i + 1 == given.len();
        assert!(is_last || !is_final(answer), "{context}");
        assert!(is_last || idempotent || !is_unknown(answer), "{context}");
    }
    match &result {
        Ok(()) => assert_eq!(given.last(), Some(&Answer::Fine), "{context}"),
        Err(CallError::Refused { .. }) => {
            assert_eq!(
                given.last(),
                Some(&Answer::Fails(CallOutcome::Fatal)),
                "{context}"
            );
        }
        Err(CallError::Unknown { attempts, .. }) => {
            assert_eq!(*attempts as usize, given.len(), "{context}");
            assert!(given.iter().any(is_unknown), "{context}");
        }
        Err(CallError::Unserved { attempts, .. }) => {
            assert_eq!(*attempts as usize, given.len(), "{context}");
            assert!(
                !given.iter().any(is_unknown) && !given.is_empty(),
                "{context}"
            );
        }
        Err(CallError::NoTarget { .. }) => assert!(given.is_empty(), "{context}"),
        Err(other) => panic!("{other:?}, {context}"),
    }
}

#[tokio::test(start_paused = true)]
async fn no_script_breaks_the_rules_of_a_call() {
    for seed in 0..1_500 {
        check(seed).await;
    }
}
