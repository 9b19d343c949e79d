//! Two sidecars side by side, each with an app, each knowing the other: what `attack` hurts.
//!
//! A call may enter at either and end at the other's app, so that an honest caller and an attacker
//! meet in both processes, whichever side the attack comes from. Features are those of the pairs.

use super::dapr::{Ports, sidecar};
use super::{Hop, Ingredients, Kind, PATIENCE, Ready, StartError};
use std::net::SocketAddr;

/// One of the two.
#[derive(Clone, Copy, Debug)]
pub struct Neighbour {
    /// Of its app.
    pub id: &'static str,
    pub api: SocketAddr,
    pub internal: SocketAddr,
    pub metrics: SocketAddr,
    pub pid: u32,
}

/// Dropping them ends their processes.
#[derive(Debug)]
pub struct Neighbours {
    pub first: Neighbour,
    pub second: Neighbour,
    hops: Vec<Hop>,
}

impl Neighbours {
    /// Starts two sidecars of `kind`, the ids and apps in their order, and waits for them.
    pub fn start(
        kind: Kind,
        apps: [(&'static str, SocketAddr); 2],
        ingredients: &Ingredients,
    ) -> Result<Self, StartError> {
        if !kind.is_dapr() {
            return Err(StartError::new(format!("{} knows no apps by name", kind.name())));
        }
        let ports = [Ports::claim()?, Ports::claim()?];
        let [(first_id, first_app), (second_id, second_app)] = apps;
        let table = [(first_id, ports[0].internal), (second_id, ports[1].internal)];
        let authority = Some(ingredients.authority()?);
        let start = |id, app, at: Ports| -> Result<_, StartError> {
            let process = sidecar(kind, authority, id, Some(app), at, &table, ingredients)?;
            let Ports { grpc: api, http, internal, metrics } = at;
            let neighbour = Neighbour { id, api, internal, metrics, pid: process.pid() };
            Ok((neighbour, Hop { process, ready: Ready::Healthy(http) }))
        };
        let (first, first_hop) = start(first_id, first_app, ports[0])?;
        let (second, second_hop) = start(second_id, second_app, ports[1])?;
        let mut neighbours = Self { first, second, hops: vec![first_hop, second_hop] };
        for hop in &mut neighbours.hops {
            let Ready::Healthy(at) = hop.ready else { continue };
            hop.process.await_health(at, PATIENCE)?;
        }
        Ok(neighbours)
    }

    pub fn pids(&self) -> [u32; 2] {
        [self.first.pid, self.second.pid]
    }

    /// Fails with the end of its log when one is gone.
    pub fn check(&mut self) -> Result<(), StartError> {
        self.hops.iter_mut().try_for_each(|hop| hop.process.check())
    }

    /// What each has said so far.
    pub fn logs(&self) -> Vec<String> {
        self.hops.iter().map(|hop| hop.process.log()).collect()
    }
}
