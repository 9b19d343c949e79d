//! A DNS server of the test's own: UDP, a few names, and it can be killed.

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const TTL: u32 = 1;
/// How soon it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// Names without their last dot, and what they have: hosts an address, services ports of a host.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    pub hosts: BTreeMap<String, Vec<Ipv4Addr>>,
    pub services: BTreeMap<String, Vec<(String, u16)>>,
}

#[derive(Debug)]
pub struct DnsServer {
    zone: Arc<Mutex<Zone>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub port: u16,
}

impl DnsServer {
    pub fn start(address: Ipv4Addr, port: u16, zone: Zone) -> Self {
        let socket = UdpSocket::bind((address, port)).expect("a port for DNS");
        socket.set_read_timeout(Some(LOOK)).expect("a socket option");
        let port = socket.local_addr().expect("an address").port();
        let (zone, over) = (Arc::new(Mutex::new(zone)), Arc::new(AtomicBool::new(false)));
        let (known, end) = (Arc::clone(&zone), Arc::clone(&over));
        let thread = std::thread::spawn(move || serve(&socket, &known, &end));
        Self { zone, over, thread: Some(thread), port }
    }

    pub fn change(&self, change: impl FnOnce(&mut Zone)) {
        change(&mut self.zone.lock().expect("a whole zone"));
    }
}

impl Drop for DnsServer {
    /// Returns when the port is free.
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, zone: &Mutex<Zone>, over: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !over.load(Ordering::Relaxed) {
        let Ok((octets, from)) = socket.recv_from(&mut buffer) else { continue };
        let Ok(query) = Message::from_vec(&buffer[..octets]) else { continue };
        let answer = answer(&query, &zone.lock().expect("a whole zone"));
        let _ = socket.send_to(&answer.to_vec().expect("an answer"), from);
    }
}

fn answer(query: &Message, zone: &Zone) -> Message {
    let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.authoritative = true;
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    let Some(question) = query.queries.first() else { return answer };
    answer.add_query(question.clone());
    let name = question.name.to_ascii().trim_end_matches('.').to_lowercase();
    let hosts = zone.hosts.get(&name).into_iter().flatten();
    let services = zone.services.get(&name).into_iter().flatten();
    let known = zone.hosts.contains_key(&name) || zone.services.contains_key(&name);
    let mut add = |data| {
        answer.add_answer(Record::from_rdata(question.name.clone(), TTL, data));
    };
    match question.query_type {
        RecordType::A => hosts.for_each(|address| add(RData::A(A(*address)))),
        RecordType::SRV => services.for_each(|(host, port)| {
            let host = Name::from_ascii(format!("{host}.")).expect("a name");
            add(RData::SRV(SRV::new(0, 0, *port, host)));
        }),
        _ => {}
    }
    if !known {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    answer
}
