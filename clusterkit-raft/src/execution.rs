//! Where work that blocks is done: on threads, or in the task that asks for it.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::panics::panic_text;
use crate::tasks;

/// Where work that blocks, or computes for long, is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Execution {
    /// On threads beside the async runtime, so that it holds up nothing else.
    #[default]
    Threads,
    /// In the task that asks for it. For simulations, where disks do not block and a thread would
    /// make no two runs alike. A node on real disks stalls with it.
    Inline,
}

impl Execution {
    /// Starts `work` at once and returns a future of what it returned; dropping that does not stop
    /// the work. Must be called within a tokio runtime. An error is what a panic said.
    pub fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, String>> + Send {
        let begun = match self {
            Self::Threads => Begun::Elsewhere(tasks::blocking(work)),
            Self::Inline => {
                let done = catch_unwind(AssertUnwindSafe(work));
                Begun::Done(done.map_err(|panic| panic_text(panic.as_ref())))
            }
        };
        async move {
            match begun {
                Begun::Done(done) => done,
                Begun::Elsewhere(task) => match task.await {
                    Ok(value) => Ok(value),
                    Err(error) => Err(match error.try_into_panic() {
                        Ok(panic) => panic_text(panic.as_ref()),
                        Err(_) => String::from("the runtime is shutting down"),
                    }),
                },
            }
        }
    }
}

enum Begun<T> {
    Done(Result<T, String>),
    Elsewhere(tokio::task::JoinHandle<T>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_ways_answer_alike() {
        for execution in [Execution::Threads, Execution::Inline] {
            assert_eq!(execution.run(|| 7).await, Ok(7));
            let panicked = execution.run(|| panic!("seven")).await;
            assert_eq!(panicked, Err::<(), _>(String::from("seven")));
        }
        let here = std::thread::current().id();
        let there = |execution: Execution| execution.run(|| std::thread::current().id());
        assert_eq!(there(Execution::Inline).await, Ok(here));
        assert_ne!(there(Execution::Threads).await, Ok(here));
    }
}
