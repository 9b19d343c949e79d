//! The socket's manners, without workers that answer.

use super::*;
use crate::config::{Environment, Flags, Settings};
use crate::control::state::tests::options;
use crate::snapshot::Snapshot;
use std::sync::Arc;

struct Knob;

impl LogLevel for Knob {
    fn level(&self) -> Severity {
        Severity::Info
    }

    fn set_level(&self, _: Severity) {}
}

pub(crate) fn console(workers: &Rc<Workers>) -> Rc<Console> {
    let state = State::new(options());
    Console::new(state, Rc::clone(workers), Box::new(Knob), json!({ "log": {}, "app": {} }))
}

fn nobody() -> Rc<Workers> {
    let flags = Flags { app_id: "a".into(), ..Flags::default() };
    let settings = Settings::new(&flags, &Environment::default()).unwrap();
    Workers::new(Vec::new(), Arc::new(Snapshot::new(Arc::new(settings.config))))
}

/// What one who asks in these octets is told.
async fn told(asked: Vec<u8>) -> (io::Result<()>, String) {
    let (mut near, far) = UnixStream::pair().unwrap();
    let console = console(&nobody());
    let asking = async move {
        let _ = near.write_all(&asked).await;
        let mut answer = String::new();
        let _ = near.read_to_string(&mut answer).await;
        answer
    };
    tokio::join!(attend(&console, far), asking)
}

#[test]
fn only_root_and_the_sidecars_user_may_ask() {
    assert!(may_ask(0, 1000) && may_ask(1000, 1000));
    assert!(!may_ask(1001, 1000) && !may_ask(1000, 0));
}

#[tokio::test]
async fn a_line_is_asked_and_a_line_answered() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let (_, answer) = told(b"level\r\nand more".to_vec()).await;
            assert_eq!(answer, "{\"level\":\"info\"}\n");
            let (_, answer) = told(b"conf\n".to_vec()).await;
            assert!(answer.contains("\"error\":\"\\\"conf\\\" is none of config"), "{answer}");
            let (ended, answer) = told(vec![b'x'; LINE_OCTETS_MAX + 1024]).await;
            assert!(ended.is_err() && answer.is_empty());
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_nothing_is_cut() {
    let (near, far) = UnixStream::pair().unwrap();
    let ended = attend(&console(&nobody()), far).await;
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    drop(near);
}
