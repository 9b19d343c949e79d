//! mDNS on sockets: announce, answer, look up, refresh.
//!
//! 1. One task owns it all; packets beyond [`PACKETS_PER_TURN`] wait for the next turn.
//! 2. Lookups are single-flight per app; at most [`LOOKUPS_MAX`] run.
//! 3. Malformed packets are ignored; what cannot be sent is lost, as multicast is.
//! 4. A refresh asks for every app in use; answers that change an app's endpoints are published
//!    to all targets of that app, whatever their namespace: mDNS knows none.
//!
//! Refuses to know what packets mean (`resolve::mdns`) and what is remembered
//! (`resolve::cache`).

use super::{Announced, Command, Publish, SCOPE};
use crate::control::resolver::interface::{self, Interface};
use crate::identity::Target;
use crate::resolve::cache::Cache;
use crate::resolve::mdns::{
    self, Announcement, GROUP_V4, GROUP_V6, LOOKUP_AGAIN, LOOKUP_TIME, PORT, REFRESH_INTERVAL,
};
use crate::resolve::message::{self, PACKET_OCTETS_MAX};
use crate::resolve::{Endpoint, Resolution};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

const PACKETS_PER_TURN: usize = 64;
const LOOKUPS_MAX: usize = 1024;
/// Targets of one app (it in several namespaces) that are told of changes.
const TARGETS_MAX: usize = 16;
/// An app that is known is asked for again when somebody asks for it, but not more often.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// Interfaces are looked up again, but not more often.
const INTERFACES_INTERVAL: Duration = Duration::from_secs(5);
/// RFC 6762 §8: probe, probe, announce, announce a second later.
const SCHEDULE: [(Duration, Step); 4] = [
    (Duration::ZERO, Step::Probe),
    (Duration::from_millis(125), Step::Probe),
    (Duration::from_millis(250), Step::Announce),
    (Duration::from_millis(1250), Step::Announce),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Probe,
    Announce,
}

pub struct Mdns {
    sockets: Sockets,
    announcement: Option<Announcement>,
    schedule: VecDeque<(Instant, Step)>,
    cache: Cache,
    apps: HashMap<Box<str>, App>,
    lookups: HashMap<Box<str>, Lookup>,
    refresh_at: Instant,
    publish: Publish,
}

/// An app in use.
#[derive(Debug)]
struct App {
    targets: Vec<Target>,
    asked: Instant,
}

#[derive(Debug)]
struct Lookup {
    again_at: Option<Instant>,
    deadline: Instant,
}

impl Mdns {
    pub fn open(announced: &Announced, publish: Publish) -> io::Result<Self> {
        let Announced { app_id, address, internal_port, host } = announced;
        let pid = std::process::id();
        let mut mdns = Self::silent(publish)?;
        mdns.announcement = Announcement::new(app_id.as_str(), host, pid, *address, *internal_port);
        if mdns.announcement.is_some() {
            let now = Instant::now();
            mdns.schedule.extend(SCHEDULE.map(|(after, step)| (now + after, step)));
            tracing::info!(
                target: SCOPE,
                component = "nr (mdns/v1)",
                "local service entry announced: {app_id} -> {address}:{internal_port}"
            );
        } else {
            tracing::warn!(
                target: SCOPE,
                "mDNS cannot announce {app_id}: no DNS label holds it (63 octets at most)"
            );
        }
        Ok(mdns)
    }

    /// Asks, and tells nobody of us.
    pub fn silent(publish: Publish) -> io::Result<Self> {
        Ok(Self {
            sockets: Sockets::open()?,
            announcement: None,
            schedule: VecDeque::new(),
            cache: Cache::default(),
            apps: HashMap::new(),
            lookups: HashMap::new(),
            refresh_at: Instant::now() + REFRESH_INTERVAL,
            publish,
        })
    }

    /// No interface takes multicast.
    pub fn is_deaf(&self) -> bool {
        self.sockets.interfaces.is_empty()
    }

    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut buffer = vec![0; PACKET_OCTETS_MAX];
        loop {
            let wake = self.next_wake();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Resolve(target)) => self.resolve(target, Instant::now()),
                    Some(Command::Close(done)) => {
                        self.goodbye();
                        let _ = done.send(());
                        return;
                    }
                    None => return self.goodbye(),
                },
                () = self.sockets.readable() => {
                    for _ in 0..PACKETS_PER_TURN {
                        let Some((octets, from)) = self.sockets.try_recv(&mut buffer) else {
                            break;
                        };
                        let packet = buffer.get(..octets).unwrap_or_default();
                        self.packet(packet, from, Instant::now());
                    }
                }
                () = sleep_until(wake) => self.tick(Instant::now()),
            }
        }
    }

    fn next_wake(&self) -> Instant {
        let step = self.schedule.front().map(|(at, _)| *at);
        let lookups = self.lookups.values();
        let lookups = lookups.map(|lookup| lookup.again_at.unwrap_or(lookup.deadline));
        lookups.chain(step).chain([self.refresh_at]).min().unwrap_or(self.refresh_at)
    }

    fn resolve(&mut self, target: Target, now: Instant) {
        let app_id: Box<str> = target.app_id.as_str().into();
        if let Some(known) = self.cache.known(&app_id, now.into_std()) {
            let asked = self.use_app(&app_id, &target, now);
            (self.publish)(Resolution { target, result: Ok(known.endpoints) });
            // Who asks for what was answered has trouble with the answer.
            if now.duration_since(asked) >= ASK_INTERVAL {
                self.ask(&app_id, now);
            }
            return;
        }
        if self.lookups.contains_key(&app_id) {
            self.use_app(&app_id, &target, now);
            let waits = self.apps.get(&app_id).is_some_and(|app| app.targets.contains(&target));
            if !waits {
                // Beyond TARGETS_MAX nobody would ever tell it.
                (self.publish)(Resolution::not_found(target));
            }
            return;
        }
        let possible = mdns::question(&app_id).is_some();
        if !possible || self.lookups.len() >= LOOKUPS_MAX || !self.cache.want(&app_id) {
            return (self.publish)(Resolution::not_found(target));
        }
        self.use_app(&app_id, &target, now);
        self.sockets.refresh_interfaces(now);
        self.ask(&app_id, now);
        let lookup = Lookup { again_at: Some(now + LOOKUP_AGAIN), deadline: now + LOOKUP_TIME };
        self.lookups.insert(app_id, lookup);
    }

    /// When it was last asked for.
    fn use_app(&mut self, app_id: &str, target: &Target, now: Instant) -> Instant {
        let app = self
            .apps
            .entry(app_id.into())
            .or_insert_with(|| App { targets: Vec::new(), asked: now });
        if !app.targets.contains(target) && app.targets.len() < TARGETS_MAX {
            app.targets.push(target.clone());
        }
        app.asked
    }

    fn ask(&mut self, app_id: &str, now: Instant) {
        if let Some(app) = self.apps.get_mut(app_id) {
            app.asked = now;
        }
        if let Some(question) = mdns::question(app_id) {
            self.sockets.send(&question);
        }
    }

    fn packet(&mut self, packet: &[u8], from: SocketAddr, now: Instant) {
        let Some(message) = message::decode(packet) else { return };
        if let Some(announcement) = &self.announcement {
            for reply in announcement.answers(&message) {
                match reply.unicast {
                    true => self.sockets.send_to(&reply.packet, from),
                    false => self.sockets.send(&reply.packet),
                }
            }
        }
        for sighting in mdns::sightings(&message, from) {
            let (app_id, name) = (sighting.app_id, sighting.instance);
            let changed = match sighting.endpoint {
                Some(at) => self.cache.sighted(&app_id, &name, Endpoint(at), now.into_std()),
                None => self.cache.gone(&app_id, &name),
            };
            if changed {
                self.lookups.remove(app_id.as_str());
                self.tell(&app_id, now);
            }
        }
    }

    /// Publishes what is known of an app; when that is nothing, forgets it.
    fn tell(&mut self, app_id: &str, now: Instant) {
        let known = self.cache.known(app_id, now.into_std());
        if let Some(known) = known {
            let targets = self.apps.get(app_id).into_iter().flat_map(|app| &app.targets);
            for target in targets {
                let result = Ok(known.endpoints.clone());
                (self.publish)(Resolution { target: target.clone(), result });
            }
            return;
        }
        self.cache.forget(app_id);
        let targets = self.apps.remove(app_id).into_iter().flat_map(|app| app.targets);
        for target in targets {
            (self.publish)(Resolution::not_found(target));
        }
    }

    fn tick(&mut self, now: Instant) {
        while let Some((_, step)) = self.schedule.front().copied().filter(|(at, _)| *at <= now) {
            self.schedule.pop_front();
            self.announce(step);
        }
        let due: Vec<(Box<str>, bool)> = self
            .lookups
            .iter()
            .filter(|(_, lookup)| lookup.again_at.unwrap_or(lookup.deadline) <= now)
            .map(|(app_id, lookup)| (app_id.clone(), lookup.deadline <= now))
            .collect();
        for (app_id, over) in due {
            if over {
                self.lookups.remove(&app_id);
                self.tell(&app_id, now);
            } else if let Some(lookup) = self.lookups.get_mut(&app_id) {
                lookup.again_at = None;
                self.ask(&app_id, now);
            }
        }
        if self.refresh_at <= now {
            self.refresh_at = now + REFRESH_INTERVAL;
            self.refresh(now);
        }
    }

    fn refresh(&mut self, now: Instant) {
        if self.sockets.refresh_interfaces(now) {
            self.schedule.extend([(now, Step::Announce), (now + ASK_INTERVAL, Step::Announce)]);
        }
        for app_id in self.cache.expire(now.into_std()) {
            self.tell(&app_id, now);
        }
        let app_ids: Vec<String> = self.cache.wanted().map(str::to_owned).collect();
        for question in mdns::questions(app_ids.iter().map(String::as_str)) {
            self.sockets.send(&question);
        }
    }

    fn announce(&self, step: Step) {
        let packet = self.announcement.as_ref().and_then(|announcement| match step {
            Step::Probe => announcement.probe(),
            Step::Announce => announcement.announcement(),
        });
        if let Some(packet) = packet {
            self.sockets.send(&packet);
        }
    }

    fn goodbye(&self) {
        if let Some(packet) = self.announcement.as_ref().and_then(Announcement::goodbye) {
            self.sockets.send(&packet);
        }
    }
}

/// One socket per family, joined to the group on every interface.
struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    interfaces: Vec<Interface>,
    looked: Instant,
}

impl Sockets {
    fn open() -> io::Result<Self> {
        let v4 = bind(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, PORT).into());
        let v6 = bind(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, PORT).into());
        let (v4, v6) = match (v4, v6) {
            (Err(error), Err(_)) => return Err(error),
            (v4, v6) => (v4.ok(), v6.ok()),
        };
        let mut sockets = Self { v4, v6, interfaces: Vec::new(), looked: Instant::now() };
        sockets.join(interface::multicast()?);
        if sockets.interfaces.is_empty() {
            tracing::warn!(target: SCOPE, "no network interface takes multicast: mDNS is deaf");
        }
        Ok(sockets)
    }

    /// True when there is an interface that was not there before.
    fn refresh_interfaces(&mut self, now: Instant) -> bool {
        if now.duration_since(self.looked) < INTERFACES_INTERVAL {
            return false;
        }
        self.looked = now;
        interface::multicast().is_ok_and(|found| self.join(found))
    }

    fn join(&mut self, found: Vec<Interface>) -> bool {
        let known = |interface: &Interface| self.interfaces.contains(interface);
        let fresh: Vec<Interface> = found.iter().filter(|i| !known(i)).cloned().collect();
        for interface in &fresh {
            // Fails where the interface was joined before, or the kernel's limit is reached: the
            // kernel then still delivers what any socket of this machine joined.
            if let Some(v4) = &self.v4 {
                let index = socket2::InterfaceIndexOrAddress::Index(interface.index);
                let _ = SockRef::from(v4).join_multicast_v4_n(&GROUP_V4, &index);
            }
            if let Some(v6) = &self.v6 {
                let _ = SockRef::from(v6).join_multicast_v6(&GROUP_V6, interface.index);
            }
        }
        self.interfaces = found;
        !fresh.is_empty()
    }

    async fn readable(&self) {
        let either = |socket: &Option<UdpSocket>| socket.is_some();
        tokio::select! {
            _ = readable(&self.v4), if either(&self.v4) => {}
            _ = readable(&self.v6), if either(&self.v6) => {}
            else => pending().await,
        }
    }

    fn try_recv(&self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let mut sockets = self.v4.iter().chain(&self.v6);
        sockets.find_map(|socket| socket.try_recv_from(buffer).ok())
    }

    /// To the groups, on every interface.
    fn send(&self, packet: &[u8]) {
        for interface in &self.interfaces {
            if let (Some(socket), Some(address)) = (&self.v4, &interface.v4) {
                let chosen = SockRef::from(socket).set_multicast_if_v4(address);
                if chosen.is_ok() {
                    let _ = socket.try_send_to(packet, (GROUP_V4, PORT).into());
                }
            }
            if let Some(socket) = &self.v6 {
                let chosen = SockRef::from(socket).set_multicast_if_v6(interface.index);
                if chosen.is_ok() {
                    let _ = socket.try_send_to(packet, (GROUP_V6, PORT).into());
                }
            }
        }
    }

    fn send_to(&self, packet: &[u8], to: SocketAddr) {
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        if let Some(socket) = socket {
            let _ = socket.try_send_to(packet, to);
        }
    }
}

async fn readable(socket: &Option<UdpSocket>) -> io::Result<()> {
    match socket {
        Some(socket) => socket.readable().await,
        None => pending().await,
    }
}

/// Shared with every other mDNS program of the machine.
fn bind(domain: Domain, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
        socket.set_multicast_loop_v6(true)?;
        // RFC 6762 §11.
        socket.set_multicast_hops_v6(255)?;
    } else {
        socket.set_multicast_loop_v4(true)?;
        socket.set_multicast_ttl_v4(255)?;
    }
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}
