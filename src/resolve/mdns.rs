//! What daprd's mDNS resolver says and hears: records, questions, answers. PURE.
//!
//! 1. The service's type is the app ID itself, `<app-id>.local.`; an instance is
//!    `<host>:<pid>.<app-id>.local.`. Names compare octet by octet.
//! 2. What is heard counts only when one packet says all of it: an SRV record under the app ID,
//!    a TXT record of the same owner with nothing but the app ID, an address of the SRV target.
//! 3. A packet is answered with [`ANSWERS_MAX`] packets at most.
//!
//! Sources: components-contrib's `nameresolution/mdns/mdns.go`, zeroconf 1.0.0's `server.go` and
//! `client.go`, RFC 6762. Namespaces are unknown to it, as in daprd.

use crate::resolve::message;
use hickory_proto::op::{Message, MessageType, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

pub const PORT: u16 = 5353;
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

/// Seconds that others may remember what we say.
const TTL: u32 = 3200;
const ADDRESS_TTL: u32 = 120;
const ANSWERS_MAX: usize = 8;
/// Questions in one packet: it stays below an Ethernet frame's 1500 octets.
const QUESTIONS_MAX: usize = 16;
/// Instances told by one packet; what follows is not looked at.
const SIGHTINGS_MAX: usize = 32;

/// How long a first lookup listens.
pub const LOOKUP_TIME: Duration = Duration::from_secs(1);
/// Its question is asked again once: multicast is lossy, and daprd asks twice, too.
pub const LOOKUP_AGAIN: Duration = Duration::from_millis(400);
/// How often apps in use are asked for again.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(30);

/// What we tell about ourselves.
#[derive(Clone, Debug)]
pub struct Announcement {
    app_id: String,
    service: Name,
    instance: Name,
    host: Name,
    address: IpAddr,
    port: u16,
}

/// A packet to send, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub packet: Vec<u8>,
    /// To the asker alone (RFC 6762 §5.4), else to the group.
    pub unicast: bool,
}

/// What a packet says of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub app_id: String,
    /// The instance's name on the wire.
    pub instance: Vec<u8>,
    /// `None`: it said goodbye.
    pub endpoint: Option<SocketAddr>,
}

impl Announcement {
    /// `None` when a name does not fit into DNS: an app ID longer than 63 octets, most likely.
    pub fn new(app_id: &str, host: &str, pid: u32, address: IpAddr, port: u16) -> Option<Self> {
        let service = service(app_id)?;
        let instance = format!("{host}:{pid}");
        let instance = labels(&instance).chain([app_id.as_bytes(), b"local"]);
        Some(Self {
            app_id: app_id.to_owned(),
            service,
            instance: message::name(instance)?,
            host: message::name(labels(host).chain([b"local".as_slice()]))?,
            address,
            port,
        })
    }

    /// RFC 6762 §8.1; sent twice.
    pub fn probe(&self) -> Option<Vec<u8>> {
        let mut probe = message::query(self.instance.clone(), RecordType::PTR);
        probe.add_authority(self.srv(TTL));
        probe.add_authority(self.txt(TTL));
        message::encode(&probe)
    }

    /// RFC 6762 §8.3; sent twice, a second apart.
    pub fn announcement(&self) -> Option<Vec<u8>> {
        message::encode(&self.everything(TTL, ADDRESS_TTL))
    }

    /// RFC 6762 §10.1.
    pub fn goodbye(&self) -> Option<Vec<u8>> {
        message::encode(&self.everything(0, 0))
    }

    /// What a packet that is a query gets; nothing for any other.
    pub fn answers(&self, query: &Message) -> Vec<Reply> {
        let probe = !query.authorities.is_empty();
        if query.metadata.message_type != MessageType::Query || probe {
            return Vec::new();
        }
        let answer = |question: &Query| {
            let response = self.answer(question, &query.answers)?;
            let packet = message::encode(&response)?;
            Some(Reply { packet, unicast: question.mdns_unicast_response })
        };
        query.queries.iter().filter_map(answer).take(ANSWERS_MAX).collect()
    }

    fn answer(&self, question: &Query, known: &[Record]) -> Option<Message> {
        let (name, kind) = (&question.name, question.query_type);
        let pointers = matches!(kind, RecordType::PTR | RecordType::ANY);
        let details = matches!(kind, RecordType::SRV | RecordType::TXT | RecordType::ANY);
        if pointers && name.eq_case(&self.service) {
            if knows(known, &self.service, &self.instance) {
                return None;
            }
            let mut response = message::response();
            response.add_answer(message::ptr(&self.service, &self.instance, TTL));
            response.add_additional(self.srv(TTL));
            response.add_additional(self.txt(TTL));
            response.add_additional(message::address(&self.host, self.address, ADDRESS_TTL));
            return Some(response);
        }
        if details && name.eq_case(&self.instance) {
            return Some(self.everything(TTL, ADDRESS_TTL));
        }
        let types = types()?;
        if pointers && name.eq_case(&types) && !knows(known, &types, &self.service) {
            let mut response = message::response();
            response.add_answer(message::ptr(&types, &self.service, TTL));
            return Some(response);
        }
        None
    }

    fn everything(&self, ttl: u32, address_ttl: u32) -> Message {
        let mut all = message::response();
        all.add_answer(message::flushing(self.srv(ttl)));
        all.add_answer(message::flushing(self.txt(ttl)));
        all.add_answer(message::ptr(&self.service, &self.instance, ttl));
        if let Some(types) = types() {
            all.add_answer(message::ptr(&types, &self.service, ttl));
        }
        let address = message::address(&self.host, self.address, address_ttl);
        all.add_answer(message::flushing(address));
        all
    }

    fn srv(&self, ttl: u32) -> Record {
        message::srv(&self.instance, &self.host, self.port, ttl)
    }

    fn txt(&self, ttl: u32) -> Record {
        message::txt(&self.instance, self.app_id.as_bytes(), ttl)
    }
}

/// The packet that asks who serves an app ID; `None` when no name can hold it.
pub fn question(app_id: &str) -> Option<Vec<u8>> {
    message::encode(&message::query(service(app_id)?, RecordType::PTR))
}

/// Packets that ask for many apps at once; those that no name can hold are left out.
pub fn questions<'a>(app_ids: impl Iterator<Item = &'a str>) -> Vec<Vec<u8>> {
    let names: Vec<Name> = app_ids.filter_map(service).collect();
    let ask = |names: &[Name]| {
        let mut names = names.iter().cloned();
        let mut query = message::query(names.next()?, RecordType::PTR);
        query.add_queries(names.map(|name| Query::query(name, RecordType::PTR)));
        message::encode(&query)
    };
    names.chunks(QUESTIONS_MAX).filter_map(ask).collect()
}

/// What a packet that is a response tells. `from` lends its scope to link-local addresses, and
/// must be port 5353 (RFC 6762 §6).
pub fn sightings(response: &Message, from: SocketAddr) -> Vec<Sighting> {
    if response.metadata.message_type != MessageType::Response || from.port() != PORT {
        return Vec::new();
    }
    let records: Vec<&Record> = response.all_sections().collect();
    let told = |record: &&Record| match &record.data {
        RData::SRV(srv) => sighting(&records, record, &srv.target, srv.port, from),
        _ => None,
    };
    records.iter().filter_map(told).take(SIGHTINGS_MAX).collect()
}

fn sighting(
    records: &[&Record],
    srv: &Record,
    target: &Name,
    port: u16,
    from: SocketAddr,
) -> Option<Sighting> {
    let app_id = std::str::from_utf8(app_id(&srv.name)?).ok()?.to_owned();
    let named = records.iter().find_map(|record| match &record.data {
        RData::TXT(txt) if record.name.eq_case(&srv.name) => Some(&txt.txt_data),
        _ => None,
    })?;
    if named.is_empty() || named.iter().any(|text| **text != *app_id.as_bytes()) {
        return None;
    }
    let instance = wire(&srv.name);
    if srv.ttl == 0 {
        return Some(Sighting { app_id, instance, endpoint: None });
    }
    let mut addresses = records.iter().filter(|record| record.name.eq_case(target));
    let v4 = addresses.clone().find_map(|record| match &record.data {
        RData::A(a) => Some(SocketAddr::from((a.0, port))),
        _ => None,
    });
    let endpoint = v4.or_else(|| {
        addresses.find_map(|record| match &record.data {
            RData::AAAA(aaaa) => Some(SocketAddr::V6(scoped(aaaa.0, port, from))),
            _ => None,
        })
    })?;
    let dialable = port != 0 && !endpoint.ip().is_unspecified() && !endpoint.ip().is_multicast();
    dialable.then_some(Sighting { app_id, instance, endpoint: Some(endpoint) })
}

fn scoped(address: Ipv6Addr, port: u16, from: SocketAddr) -> SocketAddrV6 {
    let scope = match from {
        SocketAddr::V6(from) if address.is_unicast_link_local() => from.scope_id(),
        SocketAddr::V6(_) | SocketAddr::V4(_) => 0,
    };
    SocketAddrV6::new(address, port, 0, scope)
}

/// RFC 6762 §7.1: the asker knows it, and for at least half of its life.
fn knows(known: &[Record], owner: &Name, target: &Name) -> bool {
    known.iter().any(|record| match &record.data {
        RData::PTR(ptr) => {
            record.name.eq_case(owner) && ptr.0.eq_case(target) && record.ttl >= TTL / 2
        }
        _ => false,
    })
}

fn service(app_id: &str) -> Option<Name> {
    message::name([app_id.as_bytes(), b"local"])
}

/// RFC 6763 §9.
fn types() -> Option<Name> {
    message::name([b"_services".as_slice(), b"_dns-sd", b"_udp", b"local"])
}

fn labels(text: &str) -> impl Iterator<Item = &[u8]> {
    text.split('.').filter(|label| !label.is_empty()).map(str::as_bytes)
}

/// The label before `local`, of a name with at least one label before that.
fn app_id(instance: &Name) -> Option<&[u8]> {
    let mut labels = instance.iter().rev();
    let local = labels.next()?;
    let app_id = labels.next()?;
    (local == b"local" && labels.next().is_some()).then_some(app_id)
}

fn wire(name: &Name) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    for label in name.iter() {
        // A label has 63 octets at most.
        out.push(label.len() as u8);
        out.extend_from_slice(label);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced() -> Announcement {
        let address = "10.1.2.3".parse().unwrap();
        Announcement::new("server", "host.lan", 4711, address, 50002).unwrap()
    }

    fn from() -> SocketAddr {
        "10.1.2.3:5353".parse().unwrap()
    }

    fn ask(labels: &[&str], kind: RecordType) -> Message {
        let name = message::name(labels.iter().map(|label| label.as_bytes())).unwrap();
        message::query(name, kind)
    }

    fn heard(packet: &[u8]) -> Vec<Sighting> {
        sightings(&message::decode(packet).unwrap(), from())
    }

    #[test]
    fn hears_what_it_says() {
        let us = announced();
        let question = message::decode(&question("server").unwrap()).unwrap();
        let replies = us.answers(&question);
        assert_eq!(replies.len(), 1);
        assert!(!replies[0].unicast);
        let expected = Sighting {
            app_id: "server".to_owned(),
            instance: b"\x04host\x08lan:4711\x06server\x05local".to_vec(),
            endpoint: Some("10.1.2.3:50002".parse().unwrap()),
        };
        assert_eq!(heard(&replies[0].packet), std::slice::from_ref(&expected));
        assert_eq!(heard(&us.announcement().unwrap()), std::slice::from_ref(&expected));
        let gone = Sighting { endpoint: None, ..expected };
        assert_eq!(heard(&us.goodbye().unwrap()), [gone]);
    }

    #[test]
    fn an_answer_is_laid_out_as_zeroconf_does() {
        let reply = &announced().answers(&ask(&["server", "local"], RecordType::PTR))[0];
        let answer = message::decode(&reply.packet).unwrap();
        assert!(answer.metadata.authoritative && answer.queries.is_empty());
        let kinds =
            |records: &[Record]| records.iter().map(Record::record_type).collect::<Vec<_>>();
        assert_eq!(kinds(&answer.answers), [RecordType::PTR]);
        assert_eq!(kinds(&answer.additionals), [RecordType::SRV, RecordType::TXT, RecordType::A]);
        assert_eq!(answer.answers[0].ttl, 3200);
        assert_eq!(answer.additionals[2].ttl, 120);
        let probe = message::decode(&announced().probe().unwrap()).unwrap();
        assert_eq!(kinds(&probe.authorities), [RecordType::SRV, RecordType::TXT]);
        let all = message::decode(&announced().announcement().unwrap()).unwrap();
        let flushed: Vec<_> =
            all.answers.iter().filter(|r| r.mdns_cache_flush).map(Record::record_type).collect();
        assert_eq!(flushed, [RecordType::SRV, RecordType::TXT, RecordType::A]);
    }

    #[test]
    fn answers_only_what_it_is_asked() {
        let us = announced();
        let count = |labels: &[&str], kind| us.answers(&ask(labels, kind)).len();
        assert_eq!(count(&["Server", "local"], RecordType::PTR), 0, "octet by octet, as daprd");
        assert_eq!(count(&["other", "local"], RecordType::PTR), 0);
        assert_eq!(count(&["server", "local"], RecordType::ANY), 1);
        assert_eq!(count(&["server", "local"], RecordType::A), 0);
        assert_eq!(count(&["_services", "_dns-sd", "_udp", "local"], RecordType::PTR), 1);
        assert_eq!(count(&["host", "lan:4711", "server", "local"], RecordType::SRV), 1);
        assert!(us.answers(&message::decode(&us.probe().unwrap()).unwrap()).is_empty());
        assert!(us.answers(&message::decode(&us.announcement().unwrap()).unwrap()).is_empty());
    }

    #[test]
    fn suppresses_what_the_asker_knows() {
        let us = announced();
        let mut query = ask(&["server", "local"], RecordType::PTR);
        query.add_answer(message::ptr(&us.service, &us.instance, 1600));
        assert!(us.answers(&query).is_empty());
        query.answers[0].ttl = 1599;
        assert_eq!(us.answers(&query).len(), 1);
        query.answers[0] = message::ptr(&us.service, &us.host, 3200);
        assert_eq!(us.answers(&query).len(), 1);
    }

    #[test]
    fn answers_the_asker_alone_if_asked_to() {
        let mut query = ask(&["server", "local"], RecordType::PTR);
        query.queries[0].set_mdns_unicast_response(true);
        assert!(announced().answers(&query)[0].unicast);
        for _ in 0..100 {
            query.add_query(query.queries[0].clone());
        }
        assert_eq!(announced().answers(&query).len(), ANSWERS_MAX);
    }

    /// A response with `change` applied to its records.
    fn changed(change: impl Fn(&mut Record)) -> Vec<Sighting> {
        let mut message = message::decode(&announced().announcement().unwrap()).unwrap();
        message.answers.iter_mut().for_each(change);
        sightings(&message, from())
    }

    #[test]
    fn half_a_story_is_none() {
        let other = message::name([b"other".as_slice(), b"local"]).unwrap();
        assert_eq!(changed(|_| ()).len(), 1);
        let text = |record: &mut Record| {
            if record.record_type() == RecordType::TXT {
                *record = message::txt(&record.name, b"imposter", 3200);
            }
        };
        assert_eq!(changed(text), []);
        let address = |record: &mut Record| {
            if record.record_type() == RecordType::A {
                record.name = other.clone();
            }
        };
        assert_eq!(changed(address), []);
        let owner = |record: &mut Record| {
            if record.record_type() == RecordType::TXT {
                record.name = other.clone();
            }
        };
        assert_eq!(changed(owner), []);
        let port = |record: &mut Record| {
            if let RData::SRV(srv) = &mut record.data {
                srv.port = 0;
            }
        };
        assert_eq!(changed(port), []);
        let packet = announced().announcement().unwrap();
        let message = message::decode(&packet).unwrap();
        assert_eq!(sightings(&message, "10.1.2.3:4000".parse().unwrap()), []);
    }

    #[test]
    fn link_local_addresses_keep_their_scope() {
        let address = "fe80::7".parse().unwrap();
        let them = Announcement::new("server", "h", 1, address, 7).unwrap();
        let message = message::decode(&them.announcement().unwrap()).unwrap();
        let from = SocketAddr::V6(SocketAddrV6::new("fe80::9".parse().unwrap(), PORT, 0, 3));
        let heard = sightings(&message, from);
        assert_eq!(heard[0].endpoint.unwrap().to_string(), "[fe80::7%3]:7");
    }

    #[test]
    fn asks_for_many_at_once() {
        let app_ids: Vec<String> = (0..40).map(|n| format!("{n:063}")).collect();
        let packets = questions(app_ids.iter().map(String::as_str));
        let counts = packets.iter().map(|packet| message::decode(packet).unwrap().queries.len());
        assert_eq!(counts.collect::<Vec<_>>(), [16, 16, 8]);
        assert!(packets.iter().all(|packet| packet.len() < 1400));
        assert!(questions(std::iter::empty()).is_empty());
    }

    #[test]
    fn an_app_id_that_fits_no_label_has_no_question() {
        assert!(question(&"x".repeat(63)).is_some());
        assert!(question(&"x".repeat(64)).is_none());
        let address = "10.1.2.3".parse().unwrap();
        assert!(Announcement::new(&"x".repeat(64), "h", 1, address, 7).is_none());
    }
}
