//! Which field sections are well-formed messages (RFC 9113 §8.1 to §8.3, §8.5).
//!
//! 1. One pass over flags that the decoder worked out; strings are read only for the method, the
//!    status and `content-length`.
//! 2. Leading and trailing blanks in values pass: RFC 9113 §8.2.1 forbids them, but Go lets
//!    them through, and they cannot smuggle anything.
//!
//! Refuses to know what a request asks for.

use super::field::{FieldSection, NameKind, flag};
use super::hpack::{Decoded, Decoder};

/// Why a message is malformed (RFC 9113 §8.1.1).
type Reason = &'static str;

/// Faults that make a message malformed: all but [`flag::PADDED_VALUE`].
const FAULTS: u8 = flag::FAULTS & !flag::PADDED_VALUE;

/// What the stream's state needs of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub content_length: Option<u64>,
}

/// What the stream's state needs of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub content_length: Option<u64>,
}

/// What was found of sections that come again and again, but for regular fields at their end, and
/// that have no `content-length`: a remark of the decoder's that knows them.
pub struct Verdicts<'a>(pub &'a mut Decoder);

#[derive(Clone, Copy, Debug)]
enum Verdict {
    Request,
    /// With this status.
    Response(u16),
    Trailers,
}

impl Verdict {
    const fn remark(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Trailers => 2,
            // Three digits.
            Self::Response(status) => status,
        }
    }

    const fn of_remark(remark: u16) -> Option<Self> {
        match remark {
            0 => None,
            1 => Some(Self::Request),
            2 => Some(Self::Trailers),
            status => Some(Self::Response(status)),
        }
    }
}

impl Verdicts<'_> {
    /// [`check_request`], once for all that are the same.
    #[inline]
    pub fn request(&mut self, fields: &FieldSection, decoded: Decoded) -> Result<Request, Reason> {
        if let Some(Verdict::Request) = self.known(fields, decoded) {
            return Ok(Request { content_length: None });
        }
        let request = check_request(fields, decoded.flags)?;
        if request.content_length.is_none() {
            self.note(fields, decoded, Verdict::Request);
        }
        Ok(request)
    }

    /// [`check_response`], once for all that are the same.
    #[inline]
    pub fn response(
        &mut self,
        fields: &FieldSection,
        decoded: Decoded,
    ) -> Result<Response, Reason> {
        if let Some(Verdict::Response(status)) = self.known(fields, decoded) {
            return Ok(Response { status, content_length: None });
        }
        let response = check_response(fields, decoded.flags)?;
        if response.content_length.is_none() {
            self.note(fields, decoded, Verdict::Response(response.status));
        }
        Ok(response)
    }

    /// [`check_trailers`], once for all that are the same.
    #[inline]
    pub fn trailers(&mut self, fields: &FieldSection, decoded: Decoded) -> Result<(), Reason> {
        if let Some(Verdict::Trailers) = self.known(fields, decoded) {
            return Ok(());
        }
        check_trailers(fields, decoded.flags)?;
        self.note(fields, decoded, Verdict::Trailers);
        Ok(())
    }

    #[inline]
    fn known(&self, fields: &FieldSection, decoded: Decoded) -> Option<Verdict> {
        let repeat = decoded.repeat?;
        let verdict = Verdict::of_remark(self.0.remark(repeat))?;
        let holds = decoded.flags & FAULTS == 0 && fields.is_regular_from(repeat.fields as usize);
        holds.then_some(verdict)
    }

    #[inline]
    fn note(&mut self, fields: &FieldSection, decoded: Decoded, verdict: Verdict) {
        if let Some(repeat) = decoded.repeat
            && fields.is_regular_from(repeat.fields as usize)
        {
            self.0.set_remark(repeat, verdict.remark());
        }
    }
}

/// `flags`: those of all fields together, as the decoder gives them.
pub fn check_request(fields: &FieldSection, flags: u8) -> Result<Request, Reason> {
    check_faults(flags)?;
    let mut pseudo = Pseudo::default();
    let mut content_length = None;
    let mut connect = false;
    for field in fields.glimpses() {
        if field.is_regular() {
            pseudo.end();
            continue;
        }
        match field.kind() {
            NameKind::Method => {
                pseudo.once(field.kind())?;
                if field.value().is_empty() {
                    return Err("empty :method");
                }
                connect = field.value() == b"CONNECT";
            }
            NameKind::Path => {
                pseudo.once(field.kind())?;
                if field.value().is_empty() {
                    return Err("empty :path");
                }
            }
            NameKind::Scheme | NameKind::Authority => pseudo.once(field.kind())?,
            NameKind::Status | NameKind::Protocol | NameKind::UnknownPseudo => {
                return Err("pseudo-header field not defined for requests");
            }
            NameKind::ContentLength => {
                pseudo.end();
                note_content_length(field.value(), &mut content_length)?;
            }
            NameKind::Regular | NameKind::Te | NameKind::Host => pseudo.end(),
        }
    }
    let (scheme, path) = (pseudo.has(NameKind::Scheme), pseudo.has(NameKind::Path));
    let complete = match connect {
        true => !scheme && !path && pseudo.has(NameKind::Authority),
        false => scheme && path && pseudo.has(NameKind::Method),
    };
    if !complete {
        return Err("pseudo-header fields missing");
    }
    Ok(Request { content_length })
}

pub fn check_response(fields: &FieldSection, flags: u8) -> Result<Response, Reason> {
    check_faults(flags)?;
    let mut pseudo = Pseudo::default();
    let mut content_length = None;
    let mut status = None;
    for field in fields.glimpses() {
        if field.is_regular() {
            pseudo.end();
            continue;
        }
        match field.kind() {
            NameKind::Status => {
                pseudo.once(field.kind())?;
                status = Some(field);
            }
            NameKind::Method
            | NameKind::Path
            | NameKind::Scheme
            | NameKind::Authority
            | NameKind::Protocol
            | NameKind::UnknownPseudo => {
                return Err("pseudo-header field not defined for responses");
            }
            NameKind::ContentLength => {
                pseudo.end();
                note_content_length(field.value(), &mut content_length)?;
            }
            NameKind::Regular | NameKind::Te | NameKind::Host => pseudo.end(),
        }
    }
    match status.and_then(|field| parse_status(field.value())) {
        // RFC 9113 §8.6: there is no upgrade in HTTP/2.
        Some(101) => Err(":status 101"),
        Some(status) => Ok(Response { status, content_length }),
        None => Err(":status missing or not three digits"),
    }
}

pub fn check_trailers(fields: &FieldSection, flags: u8) -> Result<(), Reason> {
    check_faults(flags)?;
    match fields.glimpses().any(|field| field.kind().is_pseudo()) {
        true => Err("pseudo-header field in trailers"),
        false => Ok(()),
    }
}

/// The status of a head that we are about to send: 1xx means that another one follows.
pub fn is_informational(fields: &FieldSection) -> bool {
    let first = fields.iter().next();
    first.is_some_and(|field| field.name == b":status" && field.value.first() == Some(&b'1'))
}

fn check_faults(flags: u8) -> Result<(), Reason> {
    match flags & FAULTS {
        0 => Ok(()),
        faults if faults & flag::BAD_NAME != 0 => Err("illegal field name"),
        faults if faults & flag::BAD_VALUE != 0 => Err("illegal field value"),
        _ => Err("connection-specific field"),
    }
}

fn parse_status(value: &[u8]) -> Option<u16> {
    match *value {
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            Some(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
        }
        _ => None,
    }
}

/// RFC 9110 §8.6: decimal digits; repeated only with the same value.
fn note_content_length(value: &[u8], known: &mut Option<u64>) -> Result<(), Reason> {
    let mut length: u64 = 0;
    for octet in value {
        let digit = octet.wrapping_sub(b'0');
        if digit > 9 {
            return Err("content-length is not a number");
        }
        length = length
            .checked_mul(10)
            .and_then(|length| length.checked_add(u64::from(digit)))
            .ok_or("content-length is too large")?;
    }
    if value.is_empty() || known.is_some_and(|known| known != length) {
        return Err("content-length is empty or contradicts itself");
    }
    *known = Some(length);
    Ok(())
}

/// Pseudo-header fields come once and before all others (RFC 9113 §8.3).
#[derive(Default)]
struct Pseudo {
    seen: u8,
    ended: bool,
}

impl Pseudo {
    fn bit(kind: NameKind) -> u8 {
        debug_assert!(kind.is_pseudo());
        1 << (kind as u8 >> 4)
    }

    fn once(&mut self, kind: NameKind) -> Result<(), Reason> {
        let bit = Self::bit(kind);
        if self.ended {
            return Err("pseudo-header field after a regular one");
        }
        if self.seen & bit != 0 {
            return Err("pseudo-header field repeated");
        }
        self.seen |= bit;
        Ok(())
    }

    fn end(&mut self) {
        self.ended = true;
    }

    fn has(&self, kind: NameKind) -> bool {
        self.seen & Self::bit(kind) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::field::{Field, judge};
    use super::*;

    fn section(fields: &[(&str, &str)]) -> (FieldSection, u8) {
        let mut section = FieldSection::new();
        let mut all = 0;
        for (name, value) in fields {
            let flags = judge(name.as_bytes(), value.as_bytes());
            let (name, value) = (name.as_bytes(), value.as_bytes());
            section.push_field(Field { name, value, class: 0, flags, sensitive: false });
            all |= flags & flag::FAULTS;
        }
        (section, all)
    }

    fn request(fields: &[(&str, &str)]) -> Result<Request, Reason> {
        let (section, flags) = section(fields);
        check_request(&section, flags)
    }

    fn response(fields: &[(&str, &str)]) -> Result<Response, Reason> {
        let (section, flags) = section(fields);
        check_response(&section, flags)
    }

    const GET: [(&str, &str); 3] = [(":method", "GET"), (":scheme", "http"), (":path", "/")];

    fn get_and(more: &[(&'static str, &'static str)]) -> Result<Request, Reason> {
        request(&[&GET[..], more].concat())
    }

    #[test]
    fn requests_of_section_8_3_1() {
        assert!(get_and(&[]).is_ok(), ":authority may be absent");
        assert!(get_and(&[(":authority", "a"), ("host", "a")]).is_ok());
        assert!(get_and(&[(":status", "200")]).is_err());
        assert!(get_and(&[(":nonsense", "1")]).is_err());
        assert!(get_and(&[(":path", "/2")]).is_err());
        assert!(get_and(&[("x", "1"), (":authority", "a")]).is_err());
        for missing in 0..3 {
            let mut fields = GET.to_vec();
            fields.remove(missing);
            assert!(request(&fields).is_err(), "{missing}");
        }
        assert!(request(&[(":method", "GET"), (":scheme", "http"), (":path", "")]).is_err());
    }

    #[test]
    fn connect_of_section_8_5() {
        assert!(request(&[(":method", "CONNECT"), (":authority", "a:1")]).is_ok());
        assert!(request(&[(":method", "CONNECT")]).is_err());
        let all = [("x:", "")];
        assert!(request(&all).is_err());
        let path = [(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")];
        assert!(request(&path).is_err());
    }

    #[test]
    fn fields_of_section_8_2() {
        assert!(get_and(&[("Upper", "1")]).is_err());
        assert!(get_and(&[("connection", "close")]).is_err());
        assert!(get_and(&[("transfer-encoding", "chunked")]).is_err());
        assert!(get_and(&[("te", "gzip")]).is_err());
        assert!(get_and(&[("te", "trailers")]).is_ok());
        assert!(get_and(&[("x", "a\nb")]).is_err());
        assert!(get_and(&[("x", " padded ")]).is_ok());
    }

    #[test]
    fn content_length() {
        let length = |fields: &[_]| get_and(fields).map(|request| request.content_length);
        assert_eq!(length(&[("content-length", "12")]), Ok(Some(12)));
        assert_eq!(length(&[("content-length", "0"), ("content-length", "0")]), Ok(Some(0)));
        assert!(length(&[("content-length", "1"), ("content-length", "2")]).is_err());
        assert!(length(&[("content-length", "")]).is_err());
        assert!(length(&[("content-length", "+1")]).is_err());
        assert!(length(&[("content-length", "99999999999999999999")]).is_err());
    }

    #[test]
    fn responses_of_section_8_3_2() {
        let ok = response(&[(":status", "200"), ("content-length", "3")]).unwrap();
        assert_eq!((ok.status, ok.content_length), (200, Some(3)));
        assert_eq!(response(&[(":status", "103")]).unwrap().status, 103);
        for bad in ["101", "20", "2000", "abc", ""] {
            assert!(response(&[(":status", bad)]).is_err(), "{bad}");
        }
        assert!(response(&[("x", "1")]).is_err());
        assert!(response(&[(":status", "200"), (":path", "/")]).is_err());
        assert!(response(&[(":status", "200"), (":status", "200")]).is_err());
    }

    #[test]
    fn trailers_have_no_pseudo_header_fields() {
        let (good, flags) = section(&[("grpc-status", "0")]);
        assert!(check_trailers(&good, flags).is_ok());
        let (bad, flags) = section(&[(":status", "200")]);
        assert!(check_trailers(&bad, flags).is_err());
    }

    #[test]
    fn informational() {
        assert!(is_informational(&section(&[(":status", "100")]).0));
        assert!(!is_informational(&section(&[(":status", "200")]).0));
    }
}
