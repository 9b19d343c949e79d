//! From what the Configuration says of names to whom the resolver asks, and what others are told of
//! us.

use crate::config::Settings;
use crate::config::naming::{Dns, Naming, Unavailable, init_failure};
use crate::control::resolver::{Announced, Names, Source, host_address};
use crate::resolve::pattern::Pattern;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// With its component's name. The inner error: calls fail, and everything else goes on.
pub fn source(
    settings: &Settings,
    instance: &str,
    naming: Naming,
) -> Result<Result<(Source, &'static str), Unavailable>, String> {
    let names = |pattern, service, servers| {
        let internal_port = settings.config.internal_port;
        Source::Dns(Names { pattern, internal_port, service, servers })
    };
    let announced = || announced(settings, instance);
    Ok(Ok(match naming {
        Naming::Mdns => (Source::Mdns(announced()?), "mdns"),
        Naming::Static { file } => (Source::Static(file.into()), "static"),
        Naming::Sqlite(table) => (Source::Sqlite(table, announced()?), "sqlite"),
        Naming::Kubernetes { cluster_domain, template: None } => {
            (names(Pattern::Kubernetes { cluster_domain }, false, Vec::new()), "kubernetes")
        }
        Naming::Kubernetes { template: Some(template), .. } => match Pattern::template(&template) {
            Ok(pattern) => (names(pattern, false, Vec::new()), "kubernetes"),
            Err(error) => return Ok(Err(init_failure("kubernetes", "v1", &error))),
        },
        Naming::NameFormat { format } => {
            (names(Pattern::Format(format), false, Vec::new()), "nameformat")
        }
        Naming::Dns(Dns { name, port, servers }) => {
            let text = port.map_or_else(|| name.clone(), |port| format!("{name}:{port}"));
            (names(Pattern::Format(text), port.is_none(), servers), "dns")
        }
        Naming::Unavailable(why) => return Ok(Err(why)),
    }))
}

/// A literal loopback address of the internal port is announced as it is (spec: daprd's rule).
fn announced(settings: &Settings, instance: &str) -> Result<Announced, String> {
    let address = match settings.listen.internal_address.as_str() {
        "127.0.0.1" | "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        "[::1]" => IpAddr::V6(Ipv6Addr::LOCALHOST),
        _ => host_address(settings.host_ip.as_deref())
            .map_err(|error| format!("failed to determine host address: {error}"))?,
    };
    Ok(Announced {
        app_id: settings.config.app_id.clone(),
        address,
        internal_port: settings.config.internal_port,
        host: instance.to_owned(),
    })
}
