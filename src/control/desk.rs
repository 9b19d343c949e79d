//! Control's desk: where the workers' mail is read and answered.
//!
//! 1. A message is answered at once or handed to who answers later; nothing waits here.
//! 2. So many messages are taken in one go that the loop's other tasks are not kept waiting.

use super::console::Console;
use super::dapr_api::{self, Reflection};
use super::publish::Workers;
use super::resolver::Resolver;
use super::spans::Spans;
use super::state::{State, count};
use crate::mailbox::{Mailbox, ToControl, ToWorker};
use bytes::Bytes;
use std::io;
use std::rc::Rc;

/// Messages between two looks at everything else.
const MESSAGES_PER_TURN: usize = 64;

pub struct Desk {
    pub state: Rc<State>,
    pub workers: Rc<Workers>,
    pub resolver: Rc<Resolver>,
    pub console: Rc<Console>,
    pub reflection: Reflection,
    pub spans: Rc<Spans>,
}

impl Desk {
    /// Reads mail until every worker is gone; inside a `LocalSet`.
    pub async fn serve(&self, mail: &Mailbox<ToControl>) -> io::Result<()> {
        let bell = tokio::net::UnixStream::from_std(mail.bell.try_clone()?)?;
        let mut rung = [0; 64];
        loop {
            let mut taken = 0;
            while let Some(message) = mail.try_recv() {
                self.take(message);
                taken += 1;
                if taken % MESSAGES_PER_TURN == 0 {
                    tokio::task::yield_now().await;
                }
            }
            bell.readable().await?;
            match bell.try_read(&mut rung) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn answer(&self, worker: usize, call: u64, answer: Result<Bytes, &'static str>) {
        self.workers.tell_one(worker, ToWorker::Answered { call, answer });
    }

    fn take(&self, message: ToControl) {
        match message {
            ToControl::Resolve(target) => {
                count(&self.state.counters.lookups);
                self.resolver.resolve(target);
            }
            ToControl::Cells { worker, increment, pace } => {
                self.state.cells_arrived(worker, increment, *pace);
            }
            ToControl::Report { worker, report } => self.console.reported(worker, report),
            ToControl::Drained { worker } => self.workers.has_drained(worker),
            ToControl::Spans { spans, lost } => {
                self.spans.take(spans, lost, &self.state.counters);
            }
            ToControl::Metadata { worker, call } => {
                self.answer(worker, call, Ok(dapr_api::metadata(&self.state)));
            }
            ToControl::SetMetadata { worker, call, key, value } => {
                self.answer(worker, call, dapr_api::set_metadata(&self.state, key, value));
            }
            ToControl::Shutdown { worker, call, force } => {
                // Before the drain that follows, so that the caller hears of it.
                self.answer(worker, call, Ok(Bytes::new()));
                self.state.shut_down_by_api(force);
            }
            ToControl::Reflection { worker, call, question } => {
                self.answer(worker, call, Ok(self.reflection.answer(question)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::console::tests::console;
    use crate::control::state::tests::options;
    use crate::identity::Target;
    use crate::mailbox::{ToWorker, mailbox};
    use crate::snapshot::Snapshot;
    use std::sync::Arc;

    fn snapshot() -> Arc<Snapshot> {
        use crate::config::{Environment, Flags, Settings};
        let flags = Flags { app_id: "a".into(), ..Flags::default() };
        let settings = Settings::new(&flags, &Environment::default()).unwrap();
        Arc::new(Snapshot::new(Arc::new(settings.config)))
    }

    /// Every kind of message reaches who answers it; the desk ends with the last worker.
    #[tokio::test]
    async fn reads_everything_and_ends() {
        let (sender, inbox) = mailbox(8).unwrap();
        let (control, mail) = mailbox(8).unwrap();
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let workers = Workers::new(vec![sender], snapshot());
                let teller = Rc::clone(&workers);
                let resolver = Resolver::unavailable(Rc::new(move |resolution| {
                    teller.tell(|| ToWorker::Resolved(resolution.clone()));
                }));
                let state = State::new(options());
                let desk = Desk {
                    state: Rc::clone(&state),
                    workers: Rc::clone(&workers),
                    resolver,
                    console: console(&workers),
                    reflection: Reflection::default(),
                    spans: Rc::default(),
                };
                let target = Target::parse("b", &snapshot().config.namespace).unwrap();
                control.send(ToControl::Resolve(target)).unwrap();
                let (key, value) = ("k".to_owned(), "v".to_owned());
                let (worker, call) = (0, 7);
                control.send(ToControl::SetMetadata { worker, call, key, value }).unwrap();
                control.send(ToControl::Metadata { worker, call: 8 }).unwrap();
                let question = Bytes::new();
                control.send(ToControl::Reflection { worker, call: 9, question }).unwrap();
                control.send(ToControl::Shutdown { worker, call: 10, force: true }).unwrap();
                control.send(ToControl::Drained { worker: 0 }).unwrap();
                drop(control);
                desk.serve(&mail).await.unwrap();
                workers.all_drained().await;
                assert!(state.shutdown_requested().await.force);
                assert_eq!(state.extended().get("k").map(String::as_str), Some("v"));
            })
            .await;
        let Some(ToWorker::Resolved(resolution)) = inbox.try_recv() else { panic!("no answer") };
        assert_eq!(resolution.result.unwrap_err().as_ref(), "name resolver not initialized");
        for expected in 7..=10 {
            let Some(ToWorker::Answered { call, answer }) = inbox.try_recv() else {
                panic!("no answer to {expected}")
            };
            assert_eq!((call, answer.is_ok()), (expected, true));
        }
    }
}
