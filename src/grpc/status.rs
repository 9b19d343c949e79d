//! Status codes, their text on the wire, and what they become when HTTP/2 speaks instead.

use std::borrow::Cow;

/// gRPC's `doc/statuscodes.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// `None`: there is no such code.
    pub fn from_number(number: u8) -> Option<Self> {
        const ALL: [Code; 17] = [
            Code::Ok,
            Code::Canceled,
            Code::Unknown,
            Code::InvalidArgument,
            Code::DeadlineExceeded,
            Code::NotFound,
            Code::AlreadyExists,
            Code::PermissionDenied,
            Code::ResourceExhausted,
            Code::FailedPrecondition,
            Code::Aborted,
            Code::OutOfRange,
            Code::Unimplemented,
            Code::Internal,
            Code::Unavailable,
            Code::DataLoss,
            Code::Unauthenticated,
        ];
        ALL.get(usize::from(number)).copied()
    }

    /// The decimal text of `grpc-status`.
    pub const fn text(self) -> &'static str {
        const TEXTS: [&str; 17] = [
            "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15",
            "16",
        ];
        TEXTS[self as usize]
    }

    /// What a caller sees when a stream was reset with this HTTP/2 error code instead of a status
    /// ("HTTP2 Transport Mapping, Errors" in gRPC's protocol text; grpc-go's `http2ErrConvTab`,
    /// which differs from it in FLOW_CONTROL_ERROR and knows what to make of codes beyond it).
    pub const fn of_reset(error_code: u32) -> Self {
        match error_code {
            0x0..=0x2 | 0x4..=0x6 | 0x9 | 0xa | 0xd => Self::Internal,
            0x3 | 0xb => Self::ResourceExhausted,
            0x7 => Self::Unavailable,
            0x8 => Self::Canceled,
            0xc => Self::PermissionDenied,
            _ => Self::Unknown,
        }
    }

    /// For a response whose `:status` is not 200 and that has no `grpc-status`.
    pub const fn of_http_status(status: u16) -> Self {
        match status {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

/// The value of `grpc-status` as a number; what is no code counts as Unknown, as clients do.
pub fn parse_code(value: &[u8]) -> u8 {
    match value {
        [d @ b'0'..=b'9'] => d - b'0',
        [b'1', d @ b'0'..=b'6'] => 10 + (d - b'0'),
        _ => Code::Unknown as u8,
    }
}

/// `grpc-message`: percent-encodes all but printable ASCII, and `%` itself.
pub fn encode_message(message: &str) -> Cow<'_, str> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let plain = |b: u8| (b' '..=b'~').contains(&b) && b != b'%';
    if message.bytes().all(plain) {
        return Cow::Borrowed(message);
    }
    let mut out = String::with_capacity(message.len() + 8);
    for byte in message.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    Cow::Owned(out)
}

/// What the wire says, as text; a `%` that begins no octet stands for itself.
pub fn decode_message(value: &[u8]) -> String {
    let digit = |octet: Option<&u8>| octet.and_then(|o| char::from(*o).to_digit(16));
    let mut decoded = Vec::with_capacity(value.len());
    let mut octets = value.iter();
    while let Some(octet) = octets.next() {
        let mut ahead = octets.clone();
        let pair = (digit(ahead.next()), digit(ahead.next()));
        match pair {
            (Some(high), Some(low)) if *octet == b'%' => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                octets = ahead;
            }
            _ => decoded.push(*octet),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_percent() {
        assert_eq!(decode_message(b"50%25 %0A%C3%BC"), "50% \n\u{fc}");
        assert_eq!(decode_message(b"%"), "%");
        assert_eq!(decode_message(b"%zz%4"), "%zz%4");
    }

    #[test]
    fn percent_encodes_what_the_wire_cannot_carry() {
        assert_eq!(encode_message("plain text"), "plain text");
        assert_eq!(encode_message("50% \n\u{fc}"), "50%25 %0A%C3%BC");
    }

    #[test]
    fn reads_codes() {
        assert_eq!(parse_code(b"0"), 0);
        assert_eq!(parse_code(b"16"), 16);
        assert_eq!(parse_code(b"17"), 2);
        assert_eq!(parse_code(b""), 2);
    }

    /// The table in gRPC's protocol text, but for 0x3: INTERNAL there, RESOURCE_EXHAUSTED in
    /// grpc-go and so in daprd.
    #[test]
    fn maps_resets() {
        use Code::*;
        let table = [
            Internal,
            Internal,
            Internal,
            ResourceExhausted,
            Internal,
            Internal,
            Internal,
            Unavailable,
            Canceled,
            Internal,
            Internal,
            ResourceExhausted,
            PermissionDenied,
            Internal,
            Unknown,
        ];
        for (error_code, code) in (0..).zip(table) {
            assert_eq!(Code::of_reset(error_code), code, "0x{error_code:x}");
        }
        assert_eq!(Code::of_reset(u32::MAX), Unknown);
    }
}
