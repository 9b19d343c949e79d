//! Name resolution as the Configuration has it: does whoever knows names answer, and is an app
//! where he says?

use super::finding::Finding;
use super::network::connect;
use crate::app::listen::plain;
use crate::app::names::source;
use crate::config::Settings;
use crate::config::naming::{Unavailable, naming};
use crate::config::spec::Configuration;
use crate::control::resolver::probe;
use crate::identity::Target;
use crate::resolve::Endpoint;
use crate::resolve::book::Looked;

const WHAT: &str = "names";
/// Endpoints of one app that are tried.
const ENDPOINTS_MAX: usize = 4;

/// Without `resolve` our own app's name is asked for, which nobody need know yet.
pub fn resolver(
    settings: &Settings,
    configuration: &Configuration,
    resolve: Option<&str>,
) -> Vec<Finding> {
    let configured = configuration.name_resolution.as_ref();
    let naming = naming(settings.resolve_file.as_deref(), configured);
    // What mDNS would tell others of us is told to nobody here.
    let (source, component) = match source(settings, "", naming) {
        Ok(Ok(found)) => found,
        Ok(Err(Unavailable { error, .. })) | Err(error) => {
            let advice = "correct spec.nameResolution of the Configuration, or the file or \
                          variable that is named: until then every call to another app fails";
            return vec![Finding::fail(WHAT, error, advice)];
        }
    };
    let asked = resolve.unwrap_or(settings.config.app_id.as_str());
    let target = match Target::parse(asked, &settings.config.namespace) {
        Ok(target) => target,
        Err(error) => {
            let advice = "--resolve takes ID or ID.NAMESPACE, as callers say it";
            return vec![Finding::fail(WHAT, error.to_string(), advice)];
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let looked = match runtime {
        Ok(runtime) => runtime.block_on(probe(source, &target)),
        Err(error) => Looked::Failed(error.to_string()),
    };
    match (looked, resolve) {
        (Looked::Failed(error), _) => {
            vec![Finding::fail(WHAT, format!("{component}: {error}"), mend(component))]
        }
        (Looked::Absent(text), None) => {
            vec![Finding::ok(WHAT, format!("{component} answers; of {target}: {text}"))]
        }
        (Looked::Absent(text), Some(_)) => {
            let found = format!("{component} does not know {target}: {text}");
            vec![Finding::fail(WHAT, found, find(component))]
        }
        (Looked::Found { endpoints, .. }, None) => {
            vec![Finding::ok(
                WHAT,
                format!("{component} answers: {target} is at {}", at(&endpoints)),
            )]
        }
        (Looked::Found { endpoints, .. }, Some(_)) => {
            let found = format!("{component} knows {target}: {}", at(&endpoints));
            let mut findings = vec![Finding::ok(WHAT, found)];
            findings.extend(
                endpoints
                    .iter()
                    .take(ENDPOINTS_MAX)
                    .filter_map(|endpoint| refused(&target, *endpoint)),
            );
            findings
        }
    }
}

fn at(endpoints: &[Endpoint]) -> String {
    let all: Vec<String> = endpoints.iter().map(|Endpoint(at)| at.to_string()).collect();
    all.join(", ")
}

/// Nobody listens there.
fn refused(target: &Target, Endpoint(address): Endpoint) -> Option<Finding> {
    let error = connect(address).err()?;
    let found = format!("{target} at {address}: {}", plain(&error));
    let advice = "is its sidecar running there, on that internal port \
                  (--dapr-internal-grpc-port), and do firewalls let this machine reach it?";
    Some(Finding::warn(WHAT, found, advice))
}

/// When it does not answer.
fn mend(component: &str) -> &'static str {
    match component {
        "static" => "correct the file, or its path: entries are APP: [\"HOST:PORT\"]",
        "sqlite" => {
            "let this user write that file and its folder, and give every sidecar of the \
                     machine the same one"
        }
        "mdns" => {
            "mDNS needs UDP port 5353 and a network that carries multicast; where there is \
                   none, say --ringside-resolve-file, or another spec.nameResolution"
        }
        _ => {
            "does that server answer (dig)? It is spec.nameResolution's, or else that of \
              /etc/resolv.conf"
        }
    }
}

/// When it answers that nobody is there.
fn find(component: &str) -> &'static str {
    match component {
        "static" => {
            "add the app to the file: APP: [\"HOST:PORT\"], the port its sidecar's \
                     --dapr-internal-grpc-port"
        }
        "mdns" => {
            "is its sidecar running, on this network, and with mDNS too? Multicast crosses no \
                   router and few clouds"
        }
        "sqlite" => "is its sidecar running on this machine, with the same file?",
        _ => "is there such a name in DNS, and is the namespace right (ID.NAMESPACE)?",
    }
}
