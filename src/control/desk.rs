//! Control's desk: where the workers' mail is read and answered.
//!
//! 1. A message is answered at once or handed to who answers later; nothing waits here.
//! 2. So many messages are taken in one go that the loop's other tasks are not kept waiting.

use super::publish::Workers;
use super::resolver::Resolver;
use super::state::{Shutdown, State, count};
use crate::mailbox::{Mailbox, ToControl};
use std::io;
use std::rc::Rc;

/// Messages between two looks at everything else.
const MESSAGES_PER_TURN: usize = 64;

pub struct Desk {
    pub state: Rc<State>,
    pub workers: Rc<Workers>,
    pub resolver: Rc<Resolver>,
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

    fn take(&self, message: ToControl) {
        match message {
            ToControl::Resolve(target) => {
                count(&self.state.counters.lookups);
                self.resolver.resolve(target);
            }
            ToControl::Cells { worker, increment, busy } => {
                self.state.cells_arrived(worker, &increment, busy);
            }
            ToControl::Drained { worker } => self.workers.has_drained(worker),
            ToControl::Shutdown { force } => self.state.request_shutdown(Shutdown { force }),
            ToControl::SetMetadata { key, value } => {
                if let Err(error) = self.state.set_metadata(key, value) {
                    tracing::warn!("metadata is full, a value was not taken: {error:?}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
                let desk =
                    Desk { state: Rc::clone(&state), workers: Rc::clone(&workers), resolver };
                let target = Target::parse("b", &snapshot().config.namespace).unwrap();
                control.send(ToControl::Resolve(target)).unwrap();
                let (key, value) = ("k".to_owned(), "v".to_owned());
                control.send(ToControl::SetMetadata { key, value }).unwrap();
                control.send(ToControl::Shutdown { force: true }).unwrap();
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
    }
}
