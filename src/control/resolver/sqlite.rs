//! A table that the sidecars of a machine share: who is where, and when it last said so.
//!
//! 1. Everything that touches the database runs on the blocking thread, one step at a time.
//! 2. A row counts while it is younger than the update interval; ours is renewed a timeout before
//!    that, again and again until it succeeds.
//! 3. A row of ours that is gone is made anew; one that another sidecar has taken is not, and
//!    that is said once. daprd ends at either.
//! 4. Cleaning up removes what is old. daprd's removes what is young, and so every row that is in
//!    use (components-contrib's `sqlite.go`); its turn is put off by ours.
//!
//! Source: components-contrib's `nameresolution/sqlite`.

use super::{Announced, SCOPE};
use crate::config::naming::Sqlite as Settings;
use crate::control::rpc::system_text;
use crate::identity::Target;
use crate::resolve::Endpoint;
use crate::resolve::book::{ENDPOINTS_MAX, Looked};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use rustix::fs::{Access, access};
use std::fmt::Write as _;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A lookup is a read of a local file.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two tries of a renewal.
const RETRY: Duration = Duration::from_millis(50);
/// What is cleaned up is older than so many update intervals, and than [`STALE_MIN`].
const STALE_INTERVALS: u32 = 10;
const STALE_MIN: Duration = Duration::from_secs(60);
const NO_HOST: &str = "no host found with the given ID";

/// Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct Sqlite {
    table: Arc<Mutex<Table>>,
    timeout: Duration,
    renew_every: Duration,
    cleanup_every: Option<Duration>,
}

struct Table {
    connection: Connection,
    settings: Settings,
    app_id: String,
    /// `host:port`, as others dial it.
    address: String,
    registration: String,
}

/// What became of our row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    Renewed,
    /// It was gone, and is there again.
    MadeAnew,
    /// Another registration has our address.
    Taken,
}

impl Sqlite {
    /// Opens or makes the tables, and registers. Blocks: for the start.
    pub fn open(settings: Settings, announced: &Announced) -> io::Result<Self> {
        let (timeout, cleanup_every) = (settings.timeout, settings.cleanup_interval);
        let renew_every = settings.update_interval.saturating_sub(timeout);
        let table = Table::open(settings, announced)?;
        let table = Arc::new(Mutex::new(table));
        Ok(Self { table, timeout, renew_every, cleanup_every })
    }

    pub async fn look(&self, target: &Target) -> Looked {
        let app_id = target.app_id.as_str().to_owned();
        match self.step(move |table| table.look(&app_id)).await {
            Ok(endpoints) if endpoints.is_empty() => Looked::Absent(NO_HOST.to_owned()),
            Ok(endpoints) => Looked::Found { endpoints, again_in: AGAIN },
            Err(error) => Looked::Failed(format!("failed to look up address: {error}")),
        }
    }

    /// Keeps our row young and the table clean; for ever.
    pub async fn keep(self) {
        // At once: from then on daprds think that it was their turn a moment ago.
        let mut cleanup_at = self.cleanup_every.map(|_| Instant::now());
        let mut taken = false;
        loop {
            if cleanup_at.is_some_and(|at| at <= Instant::now()) {
                self.clean_up().await;
                cleanup_at = self.cleanup_every.map(|every| Instant::now() + every);
            }
            sleep(self.renew_every).await;
            if !taken {
                taken = self.renew().await == Some(Renewal::Taken);
            }
        }
    }

    /// Tries until it succeeds or the row is about to be too old.
    async fn renew(&self) -> Option<Renewal> {
        let until = Instant::now() + self.timeout;
        loop {
            let error = match self.step(Table::renew).await {
                Ok(renewal) => {
                    match renewal {
                        Renewal::Renewed => {}
                        Renewal::MadeAnew => tracing::warn!(
                            target: SCOPE,
                            "our row was gone from the table of hosts; it is there again"
                        ),
                        Renewal::Taken => tracing::error!(
                            target: SCOPE,
                            "Host registration lost: another sidecar has registered our address"
                        ),
                    }
                    return Some(renewal);
                }
                Err(error) => error,
            };
            if Instant::now() + RETRY >= until {
                tracing::error!(
                    target: SCOPE,
                    "Failed to update host registration: database error: {error}"
                );
                return None;
            }
            sleep(RETRY).await;
        }
    }

    async fn clean_up(&self) {
        match self.step(Table::clean_up).await {
            Ok(None) => {}
            Ok(Some(rows)) => tracing::info!(target: SCOPE, "Removed {rows} expired rows"),
            Err(error) => {
                tracing::error!(target: SCOPE, "Error removing expired data: {error}");
            }
        }
    }

    /// Takes our row away.
    pub async fn close(&self) {
        if let Err(error) = self.step(Table::deregister).await {
            tracing::warn!(target: SCOPE, "failed to unregister host: {error}");
        }
    }

    async fn step<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Table) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, String> {
        let table = Arc::clone(&self.table);
        let done = tokio::task::spawn_blocking(move || {
            work(&mut table.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match tokio::time::timeout(self.timeout, done).await {
            Ok(Ok(done)) => done.map_err(|error| error.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("context deadline exceeded".to_owned()),
        }
    }
}

impl Table {
    fn open(settings: Settings, announced: &Announced) -> io::Result<Self> {
        let connection = connect(&settings)?;
        let host = match announced.address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        let mut table = Self {
            connection,
            settings,
            app_id: announced.app_id.as_str().to_owned(),
            address: format!("{host}:{}", announced.internal_port),
            registration: registration_id()?,
        };
        table.migrate().map_err(|error| wrong("failed to perform migrations", error))?;
        table.register().map_err(|error| wrong("failed to register host", error))?;
        Ok(table)
    }

    /// As daprd's first and only migration leaves it; both may run at once.
    fn migrate(&mut self) -> rusqlite::Result<()> {
        use rusqlite::TransactionBehavior::Exclusive;
        let Settings { table, metadata_table, .. } = &self.settings;
        let transaction = self.connection.transaction_with_behavior(Exclusive)?;
        transaction.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {metadata_table} (
                key text NOT NULL PRIMARY KEY,
                value text NOT NULL
            )"
        ))?;
        let version: Option<String> = transaction
            .query_row(
                &format!("SELECT value FROM {metadata_table} WHERE key = 'nr-migrations'"),
                [],
                |row| row.get(0),
            )
            .optional()?;
        if version.is_none_or(|version| version == "0") {
            tracing::info!(target: SCOPE, "Creating hosts table '{table}'");
            transaction.execute_batch(&format!(
                "CREATE TABLE {table} (
                    registration_id TEXT NOT NULL PRIMARY KEY,
                    address TEXT NOT NULL,
                    app_id TEXT NOT NULL,
                    namespace TEXT NOT NULL,
                    last_update INTEGER NOT NULL
                );
                CREATE UNIQUE INDEX {table}_address_idx ON {table} (address);
                CREATE INDEX {table}_last_update_idx ON {table} (last_update);
                REPLACE INTO {metadata_table} (key, value) VALUES ('nr-migrations', '1');"
            ))?;
        }
        transaction.commit()
    }

    /// Takes over what an earlier process left at our address. daprd leaves the namespace empty.
    fn register(&mut self) -> rusqlite::Result<()> {
        self.connection.execute(
            &format!(
                "REPLACE INTO {} (registration_id, address, app_id, namespace, last_update)
                VALUES (?, ?, ?, '', unixepoch(CURRENT_TIMESTAMP))",
                self.settings.table
            ),
            params![self.registration, self.address, self.app_id],
        )?;
        Ok(())
    }

    fn renew(&mut self) -> rusqlite::Result<Renewal> {
        let table = &self.settings.table;
        let renewed = self.connection.execute(
            &format!(
                "UPDATE {table} SET last_update = unixepoch(CURRENT_TIMESTAMP)
                WHERE registration_id = ? AND address = ?"
            ),
            params![self.registration, self.address],
        )?;
        if renewed > 0 {
            return Ok(Renewal::Renewed);
        }
        let other: Option<i64> = self
            .connection
            .query_row(
                &format!("SELECT 1 FROM {table} WHERE address = ?"),
                params![self.address],
                |row| row.get(0),
            )
            .optional()?;
        if other.is_some() {
            return Ok(Renewal::Taken);
        }
        self.register()?;
        Ok(Renewal::MadeAnew)
    }

    fn look(&mut self, app_id: &str) -> rusqlite::Result<Vec<Endpoint>> {
        look(&self.connection, &self.settings, app_id)
    }

    /// How many rows went; `None` when another sidecar has cleaned up a short time ago.
    fn clean_up(&mut self) -> rusqlite::Result<Option<usize>> {
        let Settings { table, metadata_table, update_interval, cleanup_interval, .. } =
            &self.settings;
        let turn = self.connection.execute(
            &format!(
                "INSERT INTO {metadata_table} (key, value)
                VALUES ('nr-last-cleanup', CURRENT_TIMESTAMP)
                ON CONFLICT (key) DO UPDATE SET value = CURRENT_TIMESTAMP
                WHERE unixepoch(CURRENT_TIMESTAMP) - unixepoch(value) >= ?"
            ),
            params![cleanup_interval.unwrap_or_default().as_secs() as i64],
        )?;
        if turn == 0 {
            return Ok(None);
        }
        let stale = (*update_interval * STALE_INTERVALS).max(STALE_MIN);
        let removed = self.connection.execute(
            &format!("DELETE FROM {table} WHERE unixepoch(CURRENT_TIMESTAMP) - last_update >= ?"),
            params![stale.as_secs() as i64],
        )?;
        Ok(Some(removed))
    }

    fn deregister(&mut self) -> rusqlite::Result<()> {
        self.connection.execute(
            &format!(
                "DELETE FROM {} WHERE registration_id = ? AND address = ?",
                self.settings.table
            ),
            params![self.registration, self.address],
        )?;
        Ok(())
    }
}

fn look(
    connection: &Connection,
    settings: &Settings,
    app_id: &str,
) -> rusqlite::Result<Vec<Endpoint>> {
    let mut statement = connection.prepare(&format!(
        "SELECT address FROM {}
        WHERE app_id = ? AND unixepoch(CURRENT_TIMESTAMP) - last_update < {}
        LIMIT {ENDPOINTS_MAX}",
        settings.table,
        settings.update_interval.as_secs(),
    ))?;
    let mut rows = statement.query(params![app_id])?;
    let mut endpoints = Vec::new();
    while let Some(row) = rows.next()? {
        let address: String = row.get(0)?;
        match endpoint(&address) {
            Some(endpoint) => endpoints.push(endpoint),
            None => tracing::debug!(target: SCOPE, "{app_id}: {address:?} is no address"),
        }
    }
    Ok(endpoints)
}

/// Where an app is, from the table as it stands: nothing is made, registered or renewed.
pub fn peek(settings: &Settings, app_id: &str) -> Looked {
    let Some(path) = path_of(settings) else {
        return Looked::Absent("the database is in memory, where no other sidecar sees it".into());
    };
    let shown = path.display();
    let place = match path.exists() {
        true => path,
        false => {
            path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(".".as_ref())
        }
    };
    if let Err(error) = access(place, Access::WRITE_OK) {
        return Looked::Failed(format!("{}: {}", place.display(), system_text(&error.into())));
    }
    if place != path {
        return Looked::Absent(format!("{shown} is not there yet: the first sidecar makes it"));
    }
    let failed = |error: &dyn std::fmt::Display| Looked::Failed(format!("{shown}: {error}"));
    let connection = match open(settings, true) {
        Ok(connection) => connection,
        Err(error) => return failed(&error),
    };
    match look(&connection, settings, app_id) {
        Ok(endpoints) if endpoints.is_empty() => Looked::Absent(format!("{shown}: {NO_HOST}")),
        Ok(endpoints) => Looked::Found { endpoints, again_in: AGAIN },
        Err(error) if error.to_string().starts_with("no such table") => {
            Looked::Absent(format!("{shown} has no table of hosts yet: the first sidecar makes it"))
        }
        Err(error) => failed(&error),
    }
}

/// `None`: in memory.
fn path_of(settings: &Settings) -> Option<&Path> {
    let given = settings.connection_string.as_str();
    let lower = given.to_lowercase();
    if lower.starts_with(":memory:") || lower.starts_with("file::memory:") {
        return None;
    }
    let path = given.strip_prefix("file:").unwrap_or(given);
    Some(Path::new(path.split_once('?').map_or(path, |(path, _)| path)))
}

fn wrong(what: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{what}: {error}"))
}

/// Go's `GetConnectionString`: what of the text is SQLite's own is left to SQLite.
fn connect(settings: &Settings) -> io::Result<Connection> {
    open(settings, false)
}

fn open(settings: &Settings, only_look: bool) -> io::Result<Connection> {
    let given = &settings.connection_string;
    let path = path_of(settings);
    let options = given.split_once('?').map_or("", |(_, options)| options);
    let pragmas: Vec<&str> =
        options.split('&').filter_map(|pair| pair.strip_prefix("_pragma=")).collect();
    for forbidden in ["busy_timeout", "journal_mode", "foreign_keys"] {
        if pragmas.iter().any(|pragma| pragma.to_lowercase().starts_with(forbidden)) {
            let text =
                format!("found forbidden option '_pragma={forbidden}' in the connection string");
            return Err(io::Error::other(text));
        }
    }
    match path.map(Path::display) {
        None => tracing::warn!(
            target: SCOPE,
            "Configuring name resolution with an in-memory SQLite database. Service invocation \
             across different apps will not work."
        ),
        Some(path) => {
            tracing::info!(target: SCOPE, "Configuring SQLite name resolution with path {path}");
        }
    }
    let mut name = given.clone();
    if !given.to_lowercase().starts_with("file:") {
        name.insert_str(0, "file:");
    }
    let failed = |error| wrong("failed to create connection", error);
    let mut flags = OpenFlags::default();
    if only_look {
        flags.remove(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE);
        flags.insert(OpenFlags::SQLITE_OPEN_READ_ONLY);
    }
    let connection = Connection::open_with_flags(name, flags).map_err(failed)?;
    connection.busy_timeout(settings.busy_timeout).map_err(failed)?;
    let read_only = options.split('&').any(|pair| pair == "mode=ro" || pair == "immutable=1");
    if only_look {
        return Ok(connection);
    }
    let journal = match (path.is_none(), settings.disable_wal || read_only) {
        (true, _) => "MEMORY",
        (false, true) => "DELETE",
        (false, false) => "WAL",
    };
    let own = format!("journal_mode={journal}");
    for pragma in pragmas.into_iter().chain([own.as_str()]) {
        let set = connection.query_row(&format!("PRAGMA {pragma}"), [], |_| Ok(()));
        set.optional().map_err(failed)?;
    }
    Ok(connection)
}

/// daprd writes `localhost` where its internal port listens on that.
fn endpoint(address: &str) -> Option<Endpoint> {
    let local = address.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    let local = local.map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    local.or_else(|| address.parse().ok()).map(Endpoint)
}

/// A random UUID (RFC 9562 §5.4), of the kernel's octets.
fn registration_id() -> io::Result<String> {
    let mut octets = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut octets)?;
    octets[6] = octets[6] & 0x0f | 0x40;
    octets[8] = octets[8] & 0x3f | 0x80;
    let mut text = String::new();
    for (at, octet) in octets.iter().enumerate() {
        if [4, 6, 8, 10].contains(&at) {
            text.push('-');
        }
        let _ = write!(text, "{octet:02x}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
