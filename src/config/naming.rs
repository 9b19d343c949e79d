//! How targets are found: `spec.nameResolution`, judged.
//!
//! 1. What daprd refuses is refused with its texts (components-contrib's `nameresolution/*`), and
//!    is never an end of the start: calls then fail, as daprd's do.
//! 2. Keys of sqlite and nameformat are found in any case; those of kubernetes as they are
//!    written, as in daprd.

use super::go;
use super::spec::NameResolution;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How targets are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    Mdns,
    /// A file of app IDs and endpoints.
    Static {
        file: String,
    },
    Sqlite(Sqlite),
    Kubernetes {
        cluster_domain: String,
        /// A text of Go's `text/template`, whose result is the address.
        template: Option<String>,
    },
    /// What `{appid}` stands in is the address.
    NameFormat {
        format: String,
    },
    Dns(Dns),
    /// Asked for, and not to be had. Calls fail.
    Unavailable(Unavailable),
}

/// Why there is no resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// The line to log at ERROR.
    pub error: String,
    /// As daprd counts it: `creation`, of one that does not exist, or `init`.
    pub reason: &'static str,
}

/// A table that the sidecars of a machine share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sqlite {
    pub connection_string: String,
    /// How long one question to the database may take.
    pub timeout: Duration,
    /// How long SQLite waits for another's lock; zero: not at all.
    pub busy_timeout: Duration,
    pub disable_wal: bool,
    pub table: String,
    pub metadata_table: String,
    /// A row that is older counts for nothing; whole seconds.
    pub update_interval: Duration,
    /// `None`: nobody cleans up.
    pub cleanup_interval: Option<Duration>,
}

/// ringside's own: records of a name that is made of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// With `{appid}`, and `{namespace}` if need be.
    pub name: String,
    /// `None`: SRV records tell it.
    pub port: Option<u16>,
    /// Empty: those of the machine.
    pub servers: Vec<SocketAddr>,
}

/// The file of a static resolver, what is configured, mDNS, or why none.
pub fn naming(resolve_file: Option<&str>, configured: Option<&NameResolution>) -> Naming {
    if let Some(file) = resolve_file {
        return Naming::Static { file: file.to_owned() };
    }
    let Some(NameResolution { component, version, configuration }) = configured else {
        return Naming::Mdns;
    };
    // `components.IsInitialVersion` of Dapr.
    let first = ["", "v0", "v1"].contains(&version.to_lowercase().as_str());
    let name = if first { component.to_lowercase() } else { String::new() };
    let judged = match name.as_str() {
        "mdns" => Ok(Naming::Mdns),
        "static" => table(configuration),
        "sqlite" => sqlite(configuration).map(Naming::Sqlite),
        "kubernetes" => Ok(kubernetes(configuration)),
        "nameformat" => name_format(configuration),
        "dns" => dns(configuration).map(Naming::Dns),
        _ => {
            let error = format!(
                "[CREATE_COMPONENT_FAILURE]: initialization error occurred for nr \
                 ({component}/{version}): couldn't find name resolver {component}/{version}; this \
                 version of ringside has mdns, sqlite, kubernetes, nameformat, static and dns"
            );
            return Naming::Unavailable(Unavailable { error, reason: "creation" });
        }
    };
    judged.unwrap_or_else(|why| Naming::Unavailable(init_failure(component, version, &why)))
}

/// With daprd's line for a resolver that cannot start.
pub fn init_failure(component: &str, version: &str, why: &str) -> Unavailable {
    let error = format!(
        "[INIT_COMPONENT_FAILURE]: initialization error occurred for nr ({component}/{version}): \
         {why}"
    );
    Unavailable { error, reason: "init" }
}

fn table(configuration: &Value) -> Result<Naming, String> {
    match configuration.get("file").and_then(Value::as_str) {
        Some(file) => Ok(Naming::Static { file: file.to_owned() }),
        None => Err("spec.nameResolution.configuration.file is missing".to_owned()),
    }
}

fn kubernetes(configuration: &Value) -> Naming {
    let text = |key| {
        let text = configuration.get(key).and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    Naming::Kubernetes {
        cluster_domain: text("clusterDomain").unwrap_or_else(|| "cluster.local".to_owned()),
        template: text("template"),
    }
}

fn name_format(configuration: &Value) -> Result<Naming, String> {
    let properties = Properties::of(configuration)
        .map_err(|error| format!("failed to decode metadata: {error}"))?;
    let format = properties.get("format").unwrap_or_default();
    if format.is_empty() {
        return Err("format is required in metadata".to_owned());
    }
    if !format.contains("{appid}") {
        return Err("format must contain {appid} placeholder".to_owned());
    }
    Ok(Naming::NameFormat { format: format.to_owned() })
}

fn dns(configuration: &Value) -> Result<Dns, String> {
    let properties = Properties::of(configuration)?;
    let name = properties.get("name").unwrap_or_default();
    if !name.contains("{appid}") {
        return Err("name must contain {appid}, as in {appid}.{namespace}.example.org".to_owned());
    }
    let port = match properties.get("port") {
        None => None,
        Some(text) => match text.parse() {
            Ok(port) if port > 0 => Some(port),
            Ok(_) | Err(_) => return Err(format!("port: {text:?} is no port")),
        },
    };
    let servers = properties.get("servers").unwrap_or_default();
    let servers = servers.split(',').map(str::trim).filter(|text| !text.is_empty());
    let server = |text: &str| {
        let bare = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
        bare.or_else(|_| text.parse())
            .map_err(|_| format!("servers: {text:?} is no IP address, with or without a port"))
    };
    let servers = servers.map(server).collect::<Result<_, _>>()?;
    Ok(Dns { name: name.to_owned(), port, servers })
}

fn sqlite(configuration: &Value) -> Result<Sqlite, String> {
    let properties = Properties::of(configuration)?;
    let text = |key, default: &str| properties.get(key).unwrap_or(default).to_owned();
    let timeout = properties.duration(&["timeout", "timeoutInSeconds"], Duration::from_secs(1))?;
    let busy_timeout = properties.duration(&["busyTimeout"], Duration::from_millis(800))?;
    let update_interval = properties.duration(&["updateInterval"], Duration::from_secs(5))?;
    let cleanup = ["cleanupInterval", "cleanupIntervalInSeconds"];
    let cleanup_interval = properties.duration(&cleanup, Duration::from_secs(3600))?;
    let sqlite = Sqlite {
        connection_string: properties.first(&["connectionString", "url"]).unwrap_or("").to_owned(),
        timeout,
        busy_timeout: Duration::from_millis(busy_timeout.as_millis() as u64),
        disable_wal: properties.get("disableWAL").is_some_and(go::truthy),
        table: text("tableName", "hosts"),
        metadata_table: text("metadataTableName", "metadata"),
        update_interval,
        cleanup_interval: Some(cleanup_interval).filter(|interval| !interval.is_zero()),
    };
    sqlite.check()?;
    Ok(sqlite)
}

impl Sqlite {
    /// In daprd's order of complaints.
    fn check(&self) -> Result<(), String> {
        let refuse = |text: String| Err(text);
        if self.connection_string.is_empty() {
            return refuse("missing connection string".to_owned());
        }
        if self.timeout < Duration::from_secs(1) {
            return refuse("invalid value for 'timeout': must be greater than 1s".to_owned());
        }
        if !is_identifier(&self.table) {
            return refuse(format!("invalid identifier for table name: {}", self.table));
        }
        if !is_identifier(&self.metadata_table) {
            let name = &self.metadata_table;
            return refuse(format!("invalid identifier for metadata table name: {name}"));
        }
        if self.update_interval.subsec_nanos() != 0 {
            return refuse("update interval must not contain fractions of seconds".to_owned());
        }
        if self.update_interval < self.timeout + Duration::from_secs(1) {
            return refuse("update interval must be at least 1s greater than timeout".to_owned());
        }
        Ok(())
    }
}

/// `ValidIdentifier` of components-contrib: nothing that SQL would have to quote.
fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_')
}

/// Dapr's `DecodeMetadata`: every value is a text, keys are found in any case.
struct Properties(BTreeMap<String, String>);

impl Properties {
    fn of(configuration: &Value) -> Result<Self, String> {
        let mut properties = BTreeMap::new();
        let Value::Object(map) = configuration else {
            let what = if configuration.is_null() { "nothing" } else { "no map" };
            return Err(format!(
                "input object cannot be cast to map[string]string: \
                 spec.nameResolution.configuration is {what}"
            ));
        };
        for (key, value) in map {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    value.to_string()
                }
            };
            let key = key.to_lowercase();
            if properties.contains_key(&key) {
                let text = format!("key {key} is duplicate in the metadata");
                return Err(format!("failed to resolve aliases: {text}"));
            }
            properties.insert(key, text);
        }
        Ok(Self(properties))
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(&key.to_lowercase()).map(String::as_str)
    }

    fn first(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.get(key))
    }

    /// A Go duration or whole seconds; empty and negative ones are none at all.
    fn duration(&self, keys: &[&str], default: Duration) -> Result<Duration, String> {
        let Some(text) = self.first(keys) else { return Ok(default) };
        if text.is_empty() {
            return Ok(Duration::ZERO);
        }
        match go::parse_duration(text) {
            Ok(duration) => Ok(duration.positive().unwrap_or_default()),
            Err(error) => match text.parse::<i64>() {
                Ok(seconds) => Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))),
                Err(_) => Err(format!("{}: {error}", keys[0])),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(component: &str, configuration: Value) -> Naming {
        let (component, version) = (component.to_owned(), "v1".to_owned());
        naming(None, Some(&NameResolution { component, version, configuration }))
    }

    fn error_of(component: &str, configuration: Value) -> String {
        match of(component, configuration) {
            Naming::Unavailable(Unavailable { error, .. }) => error,
            available => panic!("{available:?}"),
        }
    }

    #[test]
    fn names() {
        assert_eq!(naming(None, None), Naming::Mdns);
        assert_eq!(of("mDNS", json!(null)), Naming::Mdns);
        assert_eq!(of("static", json!({"file": "/x"})), Naming::Static { file: "/x".into() });
        assert!(matches!(of("static", json!({})), Naming::Unavailable(_)));
        let daprds = "[CREATE_COMPONENT_FAILURE]: initialization error occurred for nr \
                      (consul/v1): couldn't find name resolver consul/v1";
        let error = error_of("consul", json!(null));
        assert!(error.starts_with(daprds), "{error}");
        for (component, cause) in [("consul", "creation"), ("sqlite", "init")] {
            let judged = of(component, json!(null));
            let Naming::Unavailable(Unavailable { reason, .. }) = judged else {
                panic!("{judged:?}")
            };
            assert_eq!(reason, cause);
        }
        let (component, version) = ("mdns".to_owned(), "v2".to_owned());
        let later = NameResolution { component, version, configuration: Value::Null };
        assert!(matches!(naming(None, Some(&later)), Naming::Unavailable(_)));
        let file = Naming::Static { file: "flag".into() };
        assert_eq!(naming(Some("flag"), None), file);
    }

    #[test]
    fn sqlite_in_any_case_and_by_alias() {
        let given = json!({"URL": "/run/nr.db", "TIMEOUT": 2, "UpdateInterval": "10s",
            "disableWal": true, "cleanupIntervalInSeconds": "60", "tablename": "h"});
        let expected = Sqlite {
            connection_string: "/run/nr.db".into(),
            timeout: Duration::from_secs(2),
            busy_timeout: Duration::from_millis(800),
            disable_wal: true,
            table: "h".into(),
            metadata_table: "metadata".into(),
            update_interval: Duration::from_secs(10),
            cleanup_interval: Some(Duration::from_secs(60)),
        };
        assert_eq!(of("sqlite", given), Naming::Sqlite(expected));
        let never = of("sqlite", json!({"url": "x", "cleanupInterval": "0"}));
        let Naming::Sqlite(never) = never else { panic!("{never:?}") };
        assert_eq!(never.cleanup_interval, None);
    }

    #[test]
    fn kubernetes_as_it_is_written() {
        let of = |configuration| match kubernetes(&configuration) {
            Naming::Kubernetes { cluster_domain, template } => (cluster_domain, template),
            other => panic!("{other:?}"),
        };
        assert_eq!(of(json!(null)), ("cluster.local".into(), None));
        let given = json!({"clusterDomain": "my.org", "template": "{{.ID}}:1"});
        assert_eq!(of(given), ("my.org".into(), Some("{{.ID}}:1".into())));
        assert_eq!(of(json!({"clusterdomain": "my.org"})), ("cluster.local".into(), None));
    }

    #[test]
    fn dns_of_our_own() {
        let server = "[::1]:5353".parse().unwrap();
        let given =
            json!({"name": "{appid}.org", "port": 50002, "servers": "10.0.0.1, [::1]:5353"});
        let expected = Dns {
            name: "{appid}.org".into(),
            port: Some(50002),
            servers: vec![([10, 0, 0, 1], 53).into(), server],
        };
        assert_eq!(of("dns", given), Naming::Dns(expected));
        for wrong in [
            json!({"name": "x.org"}),
            json!({"name": "{appid}", "port": 0}),
            json!({"name": "{appid}", "servers": "localhost"}),
        ] {
            assert!(matches!(of("dns", wrong.clone()), Naming::Unavailable(_)), "{wrong}");
        }
    }
}
