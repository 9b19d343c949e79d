//! The messages of `echo.proto`, by hand: one field or two are not worth a code generator.
//!
//! Refuses to know gRPC's framing and HTTP/2.

use bytes::Bytes;

/// Field 1, a varint, and field 2, a varint (protobuf encoding, "Message Structure").
const FIRST: u8 = 1 << 3;
const SECOND: u8 = 2 << 3;
/// Field 1, octets behind their length.
const FIRST_OCTETS: u8 = (1 << 3) | 2;

/// `Payload` of exactly so many octets on the wire. One octet alone cannot be a `Payload`: it is
/// a zero then, which an echo does not mind.
pub fn payload(octets: usize) -> Bytes {
    if octets < 2 {
        return Bytes::from(vec![0; octets]);
    }
    let (mut length_octets, mut body) = (1, octets - 2);
    while body >> (7 * length_octets) != 0 {
        length_octets += 1;
        body = octets - 1 - length_octets;
    }
    let mut message = Vec::with_capacity(octets);
    message.push(FIRST_OCTETS);
    // Padded where the body that is left needs one octet of length less than its neighbour.
    for at in 0..length_octets {
        let more = if at + 1 < length_octets { 0x80 } else { 0 };
        message.push((body >> (7 * at)) as u8 & 0x7f | more);
    }
    // Octets that neither compress nor repeat with a frame's length.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    message.extend((0..body).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    }));
    debug_assert_eq!(message.len(), octets);
    message.into()
}

/// `Wanted`: what `Stream` is asked for; `Collected`: what `Collect` answers. Both are two counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub messages: u64,
    pub octets: u64,
}

impl Counts {
    pub fn encode(self) -> Bytes {
        let mut message = Vec::new();
        for (tag, value) in [(FIRST, self.messages), (SECOND, self.octets)] {
            if value != 0 {
                message.push(tag);
                push_varint(&mut message, value);
            }
        }
        message.into()
    }

    /// `None`: not these two fields.
    pub fn decode(mut message: &[u8]) -> Option<Self> {
        let mut counts = Self { messages: 0, octets: 0 };
        while let Some((tag, rest)) = message.split_first() {
            let (value, rest) = varint(rest)?;
            match *tag {
                FIRST => counts.messages = value,
                SECOND => counts.octets = value,
                _ => return None,
            }
            message = rest;
        }
        Some(counts)
    }
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint(octets: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, octet) in octets.iter().enumerate().take(10) {
        value |= u64::from(octet & 0x7f).checked_shl(7 * at as u32)?;
        if octet & 0x80 == 0 {
            return Some((value, octets.get(at + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_the_size_and_are_payloads() {
        for octets in (2..300).chain([16_380, 16_386, 16_387, 65_536, 1 << 20]) {
            let message = payload(octets);
            assert_eq!(message.len(), octets);
            assert_eq!(message[0], 0x0a, "field 1, length-delimited");
            let (length, rest) = varint(&message[1..]).expect("a varint");
            assert_eq!(length, rest.len() as u64, "of {octets} octets");
        }
        assert_eq!((payload(0).len(), payload(1).len()), (0, 1));
    }

    #[test]
    fn counts_are_as_protobuf_writes_them() {
        // protoc --encode of `messages: 150 octets: 1`, from the encoding guide's own example 150.
        let counts = Counts { messages: 150, octets: 1 };
        assert_eq!(&counts.encode()[..], b"\x08\x96\x01\x10\x01");
        assert_eq!(Counts::decode(b"\x08\x96\x01\x10\x01"), Some(counts));
        assert_eq!(Counts::decode(b""), Some(Counts { messages: 0, octets: 0 }));
        let most = Counts { messages: u64::MAX, octets: u64::MAX };
        assert_eq!(Counts::decode(&most.encode()), Some(most));
    }

    #[test]
    fn what_is_no_counts_is_refused() {
        for bad in [
            &b"\x08"[..],
            b"\x08\x80",
            b"\x1a\x00",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(Counts::decode(bad), None);
        }
    }
}
