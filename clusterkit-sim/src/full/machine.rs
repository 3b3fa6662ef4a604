//! One simulated machine: a process with a runtime and a clock of its own, which the world drives.
//!
//! Every process runs on a single-threaded tokio runtime whose time stands still unless the world
//! lets it run: a machine whose clock drifts is given more or less time than has passed, one that
//! is paused is given none and finds out afterwards. A crash drops the runtime with everything in
//! it; disk and network are told before, so that what is dropped late changes nothing.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::{Builder, EnterGuard, Runtime};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::clock;
use crate::Rng;

/// A machine, with or without a process.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    process: Option<Process>,
    /// By how many millionths its clock is too fast.
    ppm: i32,
    paused: bool,
    /// How much time it has not noticed yet.
    owed: Duration,
    /// Until when the world has driven it.
    driven: Duration,
}

#[derive(Debug)]
struct Process {
    runtime: Runtime,
    task: JoinHandle<()>,
    base: Instant,
    /// How long its clock has run.
    local: Duration,
}

impl Machine {
    /// Starts a process at `now`; `program` is called within its runtime.
    pub(crate) fn start<F>(&mut self, now: Duration, rng: &mut Rng, program: impl FnOnce() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = runtime(rng);
        let entered = runtime.enter();
        let base = clock::now();
        let task = runtime.spawn(program());
        drop(entered);
        self.paused = false;
        self.owed = Duration::ZERO;
        self.driven = now;
        self.process = Some(Process {
            runtime,
            task,
            base,
            local: Duration::ZERO,
        });
    }

    /// Lets it run until `now`.
    pub(crate) fn drive(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.driven);
        self.driven = now;
        let millionths = u32::try_from(1_000_000 + self.ppm.max(-999_999)).unwrap_or(1);
        let passed = passed * millionths / 1_000_000;
        if self.paused {
            self.owed += passed;
            return;
        }
        let Some(process) = &mut self.process else {
            return;
        };
        process.local += passed;
        let until = process.base + whole(process.local);
        // Made within the runtime, whose timer it is.
        let turn = async { tokio::time::sleep_until(until).await };
        process.runtime.block_on(turn);
    }

    /// Runs `work` beside the program.
    pub(crate) fn also(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(process) = &self.process {
            drop(process.runtime.spawn(work));
        }
    }

    /// Enters the process, so that whoever asks it for something is told by its clock.
    pub(crate) fn enter(&self) -> Option<EnterGuard<'_>> {
        let process = self.process.as_ref()?;
        Some(process.runtime.enter())
    }

    /// Returns how long the clock of its process has run.
    pub(crate) fn local(&self) -> Duration {
        let process = self.process.as_ref();
        process.map_or(Duration::ZERO, |process| whole(process.local))
    }

    /// Returns by how many millionths its clock is too fast.
    pub(crate) const fn ppm(&self) -> i32 {
        self.ppm
    }

    pub(crate) const fn is_paused(&self) -> bool {
        self.paused
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Tells whether its program has come to its end.
    pub(crate) fn has_ended(&self) -> bool {
        let process = self.process.as_ref();
        process.is_some_and(|process| process.task.is_finished())
    }

    /// Stops it where it stands.
    pub(crate) fn pause(&mut self) {
        self.paused = true;
    }

    /// Lets it go on: it finds that time has passed and all its timers are late.
    pub(crate) fn resume(&mut self) {
        self.paused = false;
        let owed = std::mem::take(&mut self.owed);
        let Some(process) = &mut self.process else {
            return;
        };
        let before = whole(process.local);
        process.local += owed;
        let jump = whole(process.local) - before;
        process
            .runtime
            .block_on(async { tokio::time::advance(jump).await });
    }

    pub(crate) fn drift(&mut self, ppm: i32) {
        self.ppm = ppm;
    }

    /// Ends the process at once.
    pub(crate) fn kill(&mut self) {
        self.process = None;
        self.paused = false;
        self.owed = Duration::ZERO;
    }
}

/// Returns the whole milliseconds of `time`: timers know no less.
fn whole(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn runtime(rng: &mut Rng) -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    let mut seed = [0; 32];
    rng.fill(&mut seed);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed));
    builder
        .build()
        .expect("invariant: a runtime without IO needs nothing of the system")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Notes when each turn of 100 ms came, by its own clock.
    fn ticking(machine: &mut Machine) -> Arc<Mutex<Vec<u128>>> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        machine.start(Duration::ZERO, &mut Rng::new(1), || async move {
            let start = clock::now();
            let mut turns = tokio::time::interval(Duration::from_millis(100));
            turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                turns.tick().await;
                noted.lock().unwrap().push(start.elapsed().as_millis());
            }
        });
        seen
    }

    #[test]
    fn a_clock_that_drifts_takes_its_timers_along() {
        let mut machine = Machine::default();
        machine.drift(500_000);
        let seen = ticking(&mut machine);
        for step in 1..=201 {
            machine.drive(Duration::from_millis(step * 2));
        }
        assert_eq!(*seen.lock().unwrap(), [0, 100, 200, 300, 400, 500, 600]);
    }

    #[test]
    fn who_was_paused_finds_all_timers_late() {
        let mut machine = Machine::default();
        let seen = ticking(&mut machine);
        machine.drive(Duration::from_millis(150));
        machine.pause();
        machine.drive(Duration::from_millis(950));
        assert_eq!(seen.lock().unwrap().len(), 2);
        machine.resume();
        machine.drive(Duration::from_millis(1_060));
        assert_eq!(*seen.lock().unwrap(), [0, 100, 950, 1_050]);
    }

    #[test]
    fn what_is_killed_is_gone() {
        let mut machine = Machine::default();
        let seen = ticking(&mut machine);
        machine.drive(Duration::from_millis(50));
        assert_eq!(Arc::strong_count(&seen), 2);
        machine.kill();
        assert_eq!(Arc::strong_count(&seen), 1);
        machine.drive(Duration::from_millis(500));
        assert_eq!(seen.lock().unwrap().len(), 1);
    }
}
