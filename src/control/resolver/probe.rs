//! One question, for somebody who wants to know whether names are found here.
//!
//! Nothing is announced, registered, written, or kept.

use super::dns::Dns;
use super::mdns::Mdns;
use super::{Command, Publish, Source, sqlite, static_file};
use crate::identity::Target;
use crate::resolve::Resolution;
use crate::resolve::book::Looked;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Takes as long as a lookup may: some seconds. The files are read by whoever asks.
pub async fn probe(source: Source, target: &Target) -> Looked {
    match source {
        Source::Mdns(_) => by_mdns(target).await,
        Source::Static(path) => static_file::look(&path, target),
        Source::Dns(names) => Dns::new(names).look(target).await,
        Source::Sqlite(settings, _) => sqlite::peek(&settings, target.app_id.as_str()),
    }
}

async fn by_mdns(target: &Target) -> Looked {
    let (told, mut heard) = mpsc::channel::<Resolution>(1);
    // What comes after the first answer is not waited for.
    let publish: Publish = Rc::new(move |resolution| drop(told.try_send(resolution)));
    let mdns = match Mdns::silent(publish) {
        Ok(mdns) => mdns,
        Err(error) => return Looked::Failed(format!("UDP port 5353: {error}")),
    };
    if mdns.is_deaf() {
        return Looked::Failed("no network interface takes multicast".to_owned());
    }
    let (commands, queue) = mpsc::channel(1);
    // The queue is empty, and its end is here.
    let _ = commands.try_send(Command::Resolve(target.clone()));
    let answer = tokio::select! {
        answer = heard.recv() => answer,
        () = mdns.run(queue) => None,
    };
    match answer.map(|resolution| resolution.result) {
        Some(Ok(endpoints)) => {
            Looked::Found { endpoints: endpoints.to_vec(), again_in: Duration::ZERO }
        }
        Some(Err(error)) => Looked::Absent(error.to_string()),
        None => Looked::Failed("it has ended".to_owned()),
    }
}
