//! The table in files of the test's own, and what other programs do to it.

use super::*;
use crate::config::naming::{Naming, naming};
use crate::config::spec::NameResolution;
use crate::identity::AppId;
use serde_json::json;
use std::path::PathBuf;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("ringside-sqlite-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn settings(&self) -> Settings {
        let configuration = json!({"connectionString": self.0.join("nr.db"), "tableName": "t"});
        let (component, version) = ("sqlite".to_owned(), "v1".to_owned());
        match naming(None, Some(&NameResolution { component, version, configuration })) {
            Naming::Sqlite(settings) => settings,
            other => panic!("{other:?}"),
        }
    }

    fn table(&self, app_id: &str, port: u16) -> Table {
        Table::open(self.settings(), &announced(app_id, port)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn announced(app_id: &str, internal_port: u16) -> Announced {
    Announced {
        app_id: AppId::new(app_id).unwrap(),
        address: Ipv4Addr::LOCALHOST.into(),
        internal_port,
        host: "host".to_owned(),
    }
}

fn ports(table: &mut Table, app_id: &str) -> Vec<u16> {
    let mut ports: Vec<u16> =
        table.look(app_id).unwrap().iter().map(|endpoint| endpoint.0.port()).collect();
    ports.sort();
    ports
}

/// Makes every row so many seconds older.
fn age(table: &Table, seconds: i64) {
    let sql = "UPDATE t SET last_update = last_update - ?";
    table.connection.execute(sql, params![seconds]).unwrap();
}

#[test]
fn sidecars_share_a_table() {
    let folder = Folder::new("share");
    let (mut one, mut two) = (folder.table("a", 1), folder.table("a", 2));
    let mut other = folder.table("b", 3);
    assert_eq!(ports(&mut other, "a"), [1, 2]);
    assert_eq!(ports(&mut one, "b"), [3]);
    assert!(ports(&mut one, "c").is_empty());
    age(&other, 5);
    assert!(ports(&mut other, "a").is_empty(), "as old as the interval is too old");
    assert_eq!(one.renew().unwrap(), Renewal::Renewed);
    assert_eq!(ports(&mut other, "a"), [1]);
    two.renew().unwrap();
    two.deregister().unwrap();
    assert_eq!(ports(&mut other, "a"), [1]);
    let rows: Vec<(String, String)> = one
        .connection
        .prepare("SELECT address, namespace FROM t ORDER BY address")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let row = |port| (format!("127.0.0.1:{port}"), String::new());
    assert_eq!(rows, [row(1), row(3)]);
}

#[test]
fn a_row_that_is_gone_is_made_anew_and_a_taken_one_is_not() {
    let folder = Folder::new("anew");
    let mut first = folder.table("a", 1);
    first.connection.execute("DELETE FROM t", []).unwrap();
    assert_eq!(first.renew().unwrap(), Renewal::MadeAnew);
    assert_eq!(ports(&mut first, "a"), [1]);
    let mut second = folder.table("b", 1);
    assert_eq!(first.renew().unwrap(), Renewal::Taken);
    first.deregister().unwrap();
    assert_eq!(ports(&mut second, "b"), [1], "the other's row stays");
}

#[test]
fn cleans_up_what_is_old_and_in_turns() {
    let folder = Folder::new("clean");
    let (mut old, mut young) = (folder.table("a", 1), folder.table("a", 2));
    age(&old, 60);
    young.renew().unwrap();
    assert_eq!(young.clean_up().unwrap(), Some(1));
    assert_eq!(ports(&mut young, "a"), [2]);
    assert_eq!(old.renew().unwrap(), Renewal::MadeAnew);
    assert_eq!(old.clean_up().unwrap(), None, "somebody has just done it");
    let sql = "UPDATE metadata SET value = datetime(CURRENT_TIMESTAMP, '-1 hour')
        WHERE key = 'nr-last-cleanup'";
    young.connection.execute(sql, []).unwrap();
    assert_eq!(young.clean_up().unwrap(), Some(0));
}

/// A file that another program keeps locked is told of in time, and works again afterwards.
#[tokio::test]
async fn a_locked_database_is_a_failure_and_no_more() {
    let folder = Folder::new("locked");
    let table = Sqlite::open(folder.settings(), &announced("a", 1)).unwrap();
    let locker = Connection::open(folder.0.join("nr.db")).unwrap();
    locker.execute_batch("BEGIN EXCLUSIVE; DELETE FROM t").unwrap();
    assert_eq!(table.step(Table::renew).await, Err("database is locked".to_owned()));
    locker.execute_batch("ROLLBACK").unwrap();
    assert_eq!(table.step(Table::renew).await, Ok(Renewal::Renewed));
}

#[test]
fn connection_strings_as_daprd_reads_them() {
    let folder = Folder::new("strings");
    let path = folder.0.join("x.db").display().to_string();
    let open =
        |text: &str| connect(&Settings { connection_string: text.to_owned(), ..folder.settings() });
    let mode = |connection: io::Result<Connection>| {
        let connection = connection.unwrap();
        let mode = connection.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0));
        mode.unwrap()
    };
    assert_eq!(mode(open(&path)), "wal");
    assert_eq!(mode(open(&format!("file:{path}?_txlock=immediate&_pragma=synchronous(1)"))), "wal");
    assert_eq!(mode(open(":memory:")), "memory");
    let delete = Settings {
        connection_string: folder.0.join("y.db").display().to_string(),
        disable_wal: true,
        ..folder.settings()
    };
    assert_eq!(mode(connect(&delete)), "delete");
    let error = open(&format!("{path}?_pragma=journal_mode(OFF)")).unwrap_err().to_string();
    let text = "found forbidden option '_pragma=journal_mode' in the connection string";
    assert_eq!(error, text);
    assert!(open("/nonexistent/folder/x.db").is_err());
}

#[test]
fn registrations_are_random_uuids() {
    let id = registration_id().unwrap();
    let lengths: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12]);
    assert_eq!(id.as_bytes()[14], b'4');
    assert!(b"89ab".contains(&id.as_bytes()[19]));
    assert_ne!(id, registration_id().unwrap());
}
