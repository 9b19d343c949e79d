//! Resolvers that are asked, and asked again: one task, a book of targets, lookups beside it.
//!
//! 1. Lookups run as tasks of the `LocalSet`, so a slow one holds up nobody else's.
//! 2. What is told, kept and forgotten is the book's to decide (`resolve::book`).

use super::dns::Dns;
use super::sqlite::Sqlite;
use super::{Command, Publish, SCOPE};
use crate::identity::Target;
use crate::resolve::book::{Book, Looked, News};
use std::rc::Rc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Who is asked.
#[derive(Clone)]
pub enum Backend {
    Dns(Rc<Dns>),
    Sqlite(Sqlite),
}

impl Backend {
    async fn look(&self, target: &Target) -> Looked {
        match self {
            Self::Dns(dns) => dns.look(target).await,
            Self::Sqlite(table) => table.look(target).await,
        }
    }
}

pub struct Polled {
    backend: Backend,
    book: Book,
    lookups: JoinSet<(Target, Looked)>,
    publish: Publish,
}

impl Polled {
    pub fn new(backend: Backend, publish: Publish) -> Self {
        Self { backend, book: Book::default(), lookups: JoinSet::new(), publish }
    }

    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        // Ends with this task.
        let mut keeping = JoinSet::new();
        if let Backend::Sqlite(table) = &self.backend {
            keeping.spawn_local(table.clone().keep());
        }
        let closed = loop {
            let wake = self.book.next_wake().map(Instant::from_std);
            let idle = Instant::now();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Resolve(target)) => self.resolve(&target),
                    Some(Command::Close(done)) => break Some(done),
                    None => break None,
                },
                Some(done) = self.lookups.join_next() => {
                    if let Ok((target, looked)) = done {
                        self.looked(&target, looked);
                    }
                }
                () = sleep_until(wake.unwrap_or(idle)), if wake.is_some() => {}
            }
            self.go_on();
        };
        keeping.shutdown().await;
        if let Backend::Sqlite(table) = &self.backend {
            table.close().await;
        }
        if let Some(done) = closed {
            let _ = done.send(());
        }
    }

    fn resolve(&mut self, target: &Target) {
        if let Some(resolution) = self.book.ask(target, Instant::now().into_std()) {
            (self.publish)(resolution);
        }
    }

    fn looked(&mut self, target: &Target, looked: Looked) {
        let (told, news) = self.book.looked(target, looked, Instant::now().into_std());
        match news {
            None => {}
            Some(News::Stale { endpoints, error }) => tracing::warn!(
                target: SCOPE,
                "{error}; the {endpoints} known endpoints of {target} stay in use"
            ),
            Some(News::Fresh) => {
                tracing::info!(target: SCOPE, "{target} is resolved again");
            }
        }
        if let Some(resolution) = told {
            (self.publish)(resolution);
        }
    }

    /// Lookups that are due, answers that are overdue.
    fn go_on(&mut self) {
        let now = Instant::now().into_std();
        while let Some(target) = self.book.poll_lookup(now) {
            let backend = self.backend.clone();
            self.lookups.spawn_local(async move {
                let looked = backend.look(&target).await;
                (target, looked)
            });
        }
        while let Some(resolution) = self.book.poll_overdue(now) {
            (self.publish)(resolution);
        }
    }
}
