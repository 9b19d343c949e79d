//! TLS at the internal port: handshakes that stall, records that carry nothing.

use super::connections::bare;
use super::line::Line;
use super::strike::{Door, Strike};
use super::wire;
use crate::serve;
use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;
use std::io::Write;
use std::time::Duration;

const STALLED: usize = 1024;
const TLS_PATIENCE: Duration = Duration::from_millis(20);

/// The first flight of a right handshake.
fn hello(on: &Strike<'_>) -> Vec<u8> {
    let mut octets = Vec::new();
    if let Some(mut connection) = on.identity.connection(on.internal) {
        // Writing to a Vec cannot fail.
        let _ = connection.write_tls(&mut octets);
    }
    octets
}

pub fn silent(on: &mut Strike<'_>) {
    bare(on, Door::Internal, STALLED, &[]);
}

/// Half a ClientHello.
pub fn half_hello(on: &mut Strike<'_>) {
    let hello = hello(on);
    bare(on, Door::Internal, STALLED, hello.get(..hello.len() / 2).unwrap_or_default());
}

/// A whole one: the sidecar has signed, and waits for our certificate.
pub fn stalled(on: &mut Strike<'_>) {
    let hello = hello(on);
    bare(on, Door::Internal, STALLED, &hello);
}

/// The same, and gone as soon as the sidecar has paid for its answer.
pub fn hellos(on: &mut Strike<'_>) {
    let hello = hello(on);
    while let Some(mut socket) = on.socket(Door::Internal) {
        let mut answer = [0; 4096];
        let _ = socket.set_read_timeout(Some(TLS_PATIENCE));
        // Whoever closes instead has saved the work.
        let _ =
            socket.write_all(&hello).and_then(|()| std::io::Read::read(&mut socket, &mut answer));
        on.count(1);
    }
}

/// Whole handshakes with a good certificate, and gone.
pub fn handshakes(on: &mut Strike<'_>) {
    while let Some(mut line) = shaken(on) {
        line.heard.units += 1;
        line.turn();
    }
}

/// A line whose handshake is over; its greeting is out.
fn shaken(on: &mut Strike<'_>) -> Option<Line> {
    let mut line = on.greeted(Door::Internal, &[])?;
    line.flush();
    while line.heard.octets_heard == 0 && line.listen(TLS_PATIENCE) {}
    Some(line)
}

/// New keys for ever.
pub fn key_updates(on: &mut Strike<'_>) {
    while let Some(mut line) = shaken(on) {
        while line.is_open() {
            let Some(tls) = line.tls() else { break };
            if tls.refresh_traffic_keys().is_err() {
                break;
            }
            line.heard.units += 1;
            if line.heard.units % 64 == 0 && !line.flush() {
                break;
            }
        }
    }
}

/// Records of no octet.
pub fn empty_records(on: &mut Strike<'_>) {
    records(on, &[], false);
}

/// A right call's DATA, an octet in each record.
pub fn one_octet_records(on: &mut Strike<'_>) {
    let mut octets = Vec::new();
    let mut block = wire::call_block(&on.call(Door::Internal, serve::COLLECT));
    wire::field(&mut block, b"dapr-stream", b"true");
    wire::frame(&mut octets, wire::HEADERS, wire::END_HEADERS, 1, &block);
    // Empty messages, 12 KiB of them in each frame.
    wire::frame(&mut octets, wire::DATA, 0, 1, &[0; 12_500]);
    records(on, &octets, true);
}

/// Records whose tag is wrong; each ends its connection.
pub fn broken_records(on: &mut Strike<'_>) {
    while let Some(mut line) = shaken(on) {
        let _ = line.take_tls();
        line.out.extend_from_slice(&[0x17, 3, 3, 0, 64]);
        line.out.extend_from_slice(&[0; 64]);
        line.heard.units += 1;
        line.flush();
        line.close_soon(TLS_PATIENCE);
    }
}

fn records(on: &mut Strike<'_>, octets: &[u8], once: bool) {
    while let Some(mut line) = shaken(on) {
        let Some(mut sealer) = line.take_tls().and_then(|tls| Sealer::of(*tls)) else { return };
        let mut rest = octets.iter();
        while line.is_open() {
            let octet = rest.next();
            if octet.is_none() && once {
                break;
            }
            if sealer.seal(&mut line.out, octet.map(std::slice::from_ref).unwrap_or_default()) {
                line.heard.units += 1;
            }
            if !line.flush_batch() {
                break;
            }
        }
        line.flush();
        line.close_soon(TLS_PATIENCE);
    }
}

/// Application data records of TLS 1.3 by hand (RFC 8446 §5.2).
struct Sealer {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

const APPLICATION_DATA: u8 = 23;
const TAG_OCTETS: usize = 16;

impl Sealer {
    fn of(connection: rustls::ClientConnection) -> Option<Self> {
        let secrets = connection.dangerous_extract_secrets().ok()?;
        let (sequence, secrets) = secrets.tx;
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return None,
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).ok()?);
        Some(Self { key, iv: iv.as_ref().try_into().ok()?, sequence })
    }

    fn seal(&mut self, out: &mut Vec<u8>, octets: &[u8]) -> bool {
        let length = octets.len() + 1 + TAG_OCTETS;
        let head = [APPLICATION_DATA, 3, 3, (length >> 8) as u8, length as u8];
        let mut nonce = self.iv;
        for (octet, of_sequence) in nonce.iter_mut().skip(4).zip(self.sequence.to_be_bytes()) {
            *octet ^= of_sequence;
        }
        self.sequence += 1;
        let mut sealed = [octets, &[APPLICATION_DATA]].concat();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let done = self.key.seal_in_place_append_tag(nonce, Aad::from(head), &mut sealed);
        out.extend_from_slice(&head);
        out.extend_from_slice(&sealed);
        done.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sealed opens again with the nonce of its number (RFC 8446 §5.3).
    #[test]
    fn records_open_with_their_number() {
        let key = || LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).unwrap());
        let mut sealer = Sealer { key: key(), iv: [1; 12], sequence: 2 };
        let mut out = Vec::new();
        assert!(sealer.seal(&mut out, b"a"));
        let (head, sealed) = out.split_at(5);
        assert_eq!(head, [23, 3, 3, 0, 18]);
        let mut nonce = [1; 12];
        nonce[11] ^= 2;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = key().open_in_place(nonce, Aad::from(head), &mut sealed).unwrap();
        assert_eq!(opened, [b'a', 23]);
    }
}
