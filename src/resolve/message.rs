//! DNS messages in RFC 1035's form, with mDNS' two bits: made and read by hickory-proto. PURE.
//!
//! 1. A packet that does not parse is `None`, never a panic and never half a message.
//! 2. Names are octets: an app ID may hold what a host name may not.

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::IpAddr;

/// RFC 6762 §17: no mDNS packet is larger.
pub const PACKET_OCTETS_MAX: usize = 9000;

/// `None` when a label is empty or longer than 63 octets, or all of it longer than 255.
pub fn name<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<Name> {
    let labels: Vec<&[u8]> = labels.into_iter().collect();
    if labels.iter().any(|label| label.is_empty()) {
        return None;
    }
    let mut name = Name::from_labels(labels).ok()?;
    name.set_fqdn(true);
    Some(name)
}

pub fn query(question: Name, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 0;
    message.metadata.recursion_desired = false;
    message.add_query(Query::query(question, kind));
    message
}

/// RFC 6762 §18: ID zero, authoritative, no question.
pub fn response() -> Message {
    let mut message = Message::new(0, MessageType::Response, OpCode::Query);
    message.metadata.authoritative = true;
    message
}

pub fn ptr(owner: &Name, target: &Name, ttl: u32) -> Record {
    Record::from_rdata(owner.clone(), ttl, RData::PTR(PTR(target.clone())))
}

pub fn srv(owner: &Name, target: &Name, port: u16, ttl: u32) -> Record {
    Record::from_rdata(owner.clone(), ttl, RData::SRV(SRV::new(0, 0, port, target.clone())))
}

pub fn txt(owner: &Name, text: &[u8], ttl: u32) -> Record {
    Record::from_rdata(owner.clone(), ttl, RData::TXT(TXT::from_bytes(vec![text])))
}

pub fn address(owner: &Name, address: IpAddr, ttl: u32) -> Record {
    let data = match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    };
    Record::from_rdata(owner.clone(), ttl, data)
}

/// RFC 6762 §10.2: caches drop what they knew under this name.
pub fn flushing(mut record: Record) -> Record {
    record.mdns_cache_flush = true;
    record
}

pub fn encode(message: &Message) -> Option<Vec<u8>> {
    message.to_vec().ok().filter(|packet| packet.len() <= PACKET_OCTETS_MAX)
}

pub fn decode(packet: &[u8]) -> Option<Message> {
    if packet.len() > PACKET_OCTETS_MAX {
        return None;
    }
    let message = Message::from_vec(packet).ok()?;
    (message.metadata.op_code == OpCode::Query).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_as_rfc_1035_draws_it() {
        let name = name([b"app".as_slice(), b"local"]).unwrap();
        let packet = encode(&query(name, RecordType::PTR)).unwrap();
        let expected = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x03app\x05local\0\0\x0c\0\x01";
        assert_eq!(packet, expected);
        assert_eq!(decode(&packet).unwrap().queries.len(), 1);
    }

    #[test]
    fn names_are_octets_with_bounds() {
        assert!(name([b"host:4711".as_slice(), b"My App_1\xff", b"local"]).is_some());
        assert!(name([[b'x'; 63].as_slice()]).is_some());
        assert!(name([[b'x'; 64].as_slice()]).is_none());
        assert!(name([b"".as_slice()]).is_none());
        assert!(name([[b'x'; 60].as_slice(); 5]).is_none());
    }

    #[test]
    fn broken_packets_are_nothing() {
        let name = name([b"app".as_slice(), b"local"]).unwrap();
        let mut message = response();
        message.add_answer(flushing(srv(&name, &name, 1, 3200)));
        message.add_answer(txt(&name, b"app", 3200));
        let packet = encode(&message).unwrap();
        for end in 0..packet.len() {
            assert!(decode(&packet[..end]).is_none(), "cut at {end}");
        }
        // A compression pointer to itself.
        let looped = b"\0\0\0\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x0c\0\x01";
        assert!(decode(looped).is_none());
        assert!(decode(&[0; PACKET_OCTETS_MAX + 1]).is_none());
        // Any one octet changed: nothing or a message, never a panic.
        for at in 0..packet.len() {
            for bits in [0x01, 0x80, 0xff] {
                let mut broken = packet.clone();
                broken[at] ^= bits;
                let _ = decode(&broken);
            }
        }
    }
}
