//! Addresses from DNS: kubernetes' Services, nameformat, and `dns`, which is ringside's own.
//!
//! 1. A and AAAA records are asked for together; SRV records name the hosts that they are asked of.
//! 2. What is remembered is in the book (`resolve::book`), not here: each lookup asks the servers.
//! 3. The machine's settings (`resolv.conf`, `hosts`) are read again now and then.
//!
//! Source of the texts: components-contrib's `nameresolution/kubernetes/kubernetes.go`, Go's `net`.

use crate::identity::Target;
use crate::resolve::Endpoint;
use crate::resolve::book::Looked;
use crate::resolve::pattern::{Pattern, cut};
use futures_util::future::join_all;
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::time::Instant;

/// Answers count as long as their TTL says, within these: daprd keeps one for 20 s.
const AGAIN_MIN: Duration = Duration::from_secs(5);
const AGAIN_MAX: Duration = Duration::from_secs(20);
/// Addresses need no lookup, and so no second one.
const NEVER: Duration = Duration::from_secs(24 * 3600);
/// One server's time for one question, and how often it is asked again.
const QUESTION_TIME: Duration = Duration::from_secs(2);
const QUESTIONS_AGAIN: usize = 1;
/// A lookup in all: workers give up after 5 s.
const LOOKUP_TIME: Duration = Duration::from_millis(4500);
/// How old the machine's settings may be.
const SETTINGS_AGE: Duration = Duration::from_secs(30);
/// Hosts of one SRV answer.
const HOSTS_MAX: usize = 64;

/// Which names are asked for what.
#[derive(Clone, Debug)]
pub struct Names {
    pub pattern: Pattern,
    /// Our own internal port, which daprd's kubernetes resolver takes for everybody's.
    pub internal_port: u16,
    /// What the pattern gives is a name with SRV records, not a host and a port.
    pub service: bool,
    /// Empty: those of the machine.
    pub servers: Vec<SocketAddr>,
}

pub struct Dns {
    names: Names,
    settings: RefCell<Option<Settings>>,
}

#[derive(Clone)]
struct Settings {
    resolver: TokioResolver,
    /// As Go names it in its errors.
    server: String,
    read: Instant,
}

/// Why there are no addresses.
enum Lack {
    Absent(String),
    Failed(String),
}

/// Addresses, and how long they are good for.
type Addresses = Result<(Vec<IpAddr>, Duration), Lack>;

impl From<Lack> for Looked {
    fn from(lack: Lack) -> Self {
        match lack {
            Lack::Absent(text) => Self::Absent(text),
            Lack::Failed(text) => Self::Failed(text),
        }
    }
}

impl Dns {
    pub fn new(names: Names) -> Self {
        Self { names, settings: RefCell::new(None) }
    }

    pub async fn look(&self, target: &Target) -> Looked {
        let address = self.names.pattern.address(target, self.names.internal_port);
        let (host, port) = if self.names.service { (&*address, None) } else { cut(&address) };
        let failed = |why: &str| format!("failed to resolve address for '{host}': {why}");
        let looking = async {
            match port {
                _ if self.names.service => self.service(host).await,
                None => Err(Lack::Failed(format!("{address:?} names no port"))),
                Some(port) => match port.parse() {
                    Ok(port) => self.host(host, port).await,
                    Err(_) => Err(Lack::Failed(format!("{port:?} is no port"))),
                },
            }
        };
        let looked = tokio::time::timeout(LOOKUP_TIME, looking).await;
        let late = || Err(Lack::Failed(format!("lookup {host}: i/o timeout")));
        match looked.unwrap_or_else(|_| late()) {
            Ok(looked) => looked,
            Err(Lack::Absent(why)) => Looked::Absent(failed(&why)),
            Err(Lack::Failed(why)) => Looked::Failed(failed(&why)),
        }
    }

    async fn host(&self, host: &str, port: u16) -> Result<Looked, Lack> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let (addresses, again_in) = match bare.parse() {
            Ok(address) => (vec![address], NEVER),
            Err(_) => self.addresses(host).await?,
        };
        let endpoint = |address| Endpoint(SocketAddr::new(address, port));
        Ok(Looked::Found { endpoints: addresses.into_iter().map(endpoint).collect(), again_in })
    }

    /// RFC 2782; of the priorities, the first alone counts, and weights do not.
    async fn service(&self, name: &str) -> Result<Looked, Lack> {
        let settings = self.settings().await?;
        let found = settings.resolver.lookup(in_dns(name)?, RecordType::SRV).await;
        let found = found.map_err(|error| settings.lack(name, &error))?;
        let services: Vec<_> = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => Some(srv),
                _ => None,
            })
            .collect();
        let first = services.iter().map(|srv| srv.priority).min();
        let hosts = services.into_iter().filter(|srv| Some(srv.priority) == first).take(HOSTS_MAX);
        let each = hosts.map(|srv| async {
            let host = srv.target.to_ascii();
            (srv.port, self.addresses(&host).await)
        });
        let mut endpoints = Vec::new();
        let mut again_in = ttl(found.valid_until());
        let mut lack = None;
        for (port, addresses) in join_all(each).await {
            match addresses {
                Ok((addresses, good_for)) => {
                    let all = addresses.into_iter().map(|a| Endpoint(SocketAddr::new(a, port)));
                    endpoints.extend(all);
                    again_in = again_in.min(good_for);
                }
                Err(other) => lack = Some(other),
            }
        }
        match lack {
            Some(lack) if endpoints.is_empty() => Err(lack),
            Some(_) | None => Ok(Looked::Found { endpoints, again_in }),
        }
    }

    async fn addresses(&self, host: &str) -> Addresses {
        let settings = self.settings().await?;
        let name = in_dns(host)?;
        let ask = |kind| settings.resolver.lookup(name.clone(), kind);
        let (v4, v6) = tokio::join!(ask(RecordType::A), ask(RecordType::AAAA));
        let (mut addresses, mut again_in, mut lack) = (Vec::new(), AGAIN_MAX, None);
        for answer in [v4, v6] {
            match answer {
                Ok(found) => {
                    again_in = again_in.min(ttl(found.valid_until()));
                    addresses.extend(found.answers().iter().filter_map(|r| r.data.ip_addr()));
                }
                // That a family has no records says nothing while the other one is not known.
                Err(error) if error.is_no_records_found() => {
                    lack.get_or_insert(error);
                }
                Err(error) => lack = Some(error),
            }
        }
        match lack {
            Some(error) if addresses.is_empty() => Err(settings.lack(host, &error)),
            Some(_) | None => Ok((addresses, again_in)),
        }
    }

    async fn settings(&self) -> Result<Settings, Lack> {
        if let Some(settings) = &*self.settings.borrow()
            && settings.read.elapsed() < SETTINGS_AGE
        {
            return Ok(settings.clone());
        }
        let servers = self.names.servers.clone();
        let read = tokio::task::spawn_blocking(move || read(&servers)).await;
        let read = read.unwrap_or_else(|error| Err(error.to_string())).map_err(Lack::Failed)?;
        *self.settings.borrow_mut() = Some(read.clone());
        Ok(read)
    }
}

impl Settings {
    fn lack(&self, name: &str, error: &NetError) -> Lack {
        let text = |what: &str| format!("lookup {name} on {}: {what}", self.server);
        match error {
            error if error.is_no_records_found() => Lack::Absent(text("no such host")),
            NetError::Timeout => Lack::Failed(text("i/o timeout")),
            NetError::Dns(_) => Lack::Failed(text("server misbehaving")),
            other => Lack::Failed(text(&other.to_string())),
        }
    }
}

fn in_dns(name: &str) -> Result<Name, Lack> {
    Name::from_ascii(name).map_err(|_| Lack::Absent(format!("lookup {name}: no such host")))
}

fn ttl(until: std::time::Instant) -> Duration {
    until.saturating_duration_since(Instant::now().into_std()).clamp(AGAIN_MIN, AGAIN_MAX)
}

fn read(servers: &[SocketAddr]) -> Result<Settings, String> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio().map_err(|error| error.to_string())?
    } else {
        let servers = servers.iter().map(|server| {
            let mut ways = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            ways.iter_mut().for_each(|way| way.port = server.port());
            NameServerConfig::new(server.ip(), true, ways)
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options: &mut ResolverOpts = builder.options_mut();
    options.cache_size = 0;
    options.timeout = QUESTION_TIME;
    options.attempts = QUESTIONS_AGAIN;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    let resolver = builder.build().map_err(|error| error.to_string())?;
    let first = servers.first().copied().or_else(first_server);
    let server = first.map_or_else(|| "no server".to_owned(), |server| server.to_string());
    Ok(Settings { resolver, server, read: Instant::now() })
}

/// The one that the machine's settings name first.
fn first_server() -> Option<SocketAddr> {
    let (config, _) = hickory_resolver::system_conf::read_system_conf().ok()?;
    let first = config.name_servers().first()?;
    let port = first.connections.first().map_or(53, |way| way.port);
    Some(SocketAddr::new(first.ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Namespace;

    async fn look(format: &str) -> Looked {
        let pattern = Pattern::Format(format.to_owned());
        let names = Names { pattern, internal_port: 1, service: false, servers: Vec::new() };
        let target = Target::parse("a", &Namespace::new("default")).unwrap();
        Dns::new(names).look(&target).await
    }

    /// Addresses are asked of nobody.
    #[tokio::test]
    async fn an_address_is_its_own_answer() {
        for (text, address) in [("10.0.0.1:5", "10.0.0.1:5"), ("[fd00::1]:5", "[fd00::1]:5")] {
            let endpoints = vec![Endpoint(address.parse().unwrap())];
            assert_eq!(look(text).await, Looked::Found { endpoints, again_in: NEVER });
        }
        for (text, why) in [
            ("10.0.0.1", "failed to resolve address for '10.0.0.1': \"10.0.0.1\" names no port"),
            ("10.0.0.1:x", "failed to resolve address for '10.0.0.1': \"x\" is no port"),
        ] {
            assert_eq!(look(text).await, Looked::Failed(why.to_owned()));
        }
        let long = format!("{}.org:5", "x".repeat(64));
        assert!(matches!(look(&long).await, Looked::Absent(_)), "no label of DNS");
    }
}
