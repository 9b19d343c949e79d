//! Trace context: which span of which trace a call belongs to.
//!
//! Owns both forms that cross a hop (`traceparent` of W3C Trace Context; OpenCensus' binary form,
//! in base64, as `grpc-trace-bin`), who is sampled, and where new IDs come from.
//!
//! 1. Nothing here allocates.
//! 2. Octets of a peer are no context, or one; they never fail anything else.
//!
//! Sources: Dapr's `pkg/diagnostics/tracing.go` and `utils/trace_utils.go` for what is taken; the
//! OpenTelemetry specification (`trace/sdk.md`, ParentBased and TraceIdRatioBased) for sampling.

use data_encoding::{BASE64, BASE64_NOPAD};

/// The flag that says that a trace is sampled.
pub const SAMPLED: u8 = 0x01;

/// `00-<32 digits>-<16 digits>-<2 digits>`.
pub const TEXT_OCTETS: usize = 55;
/// [`BINARY_OCTETS`] in base64 without padding.
pub const BINARY_TEXT_OCTETS: usize = 39;
/// Version; field 0, 16 octets of trace ID; field 1, 8 of span ID; field 2, the flags.
const BINARY_OCTETS: usize = 29;

/// A span, as others name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub flags: u8,
}

impl Context {
    /// Zeros name nothing.
    pub fn is_valid(&self) -> bool {
        self.trace_id != [0; 16] && self.span_id != [0; 8]
    }

    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// A `traceparent`. Versions to come may say more than this one does; 255 is none.
    pub fn from_text(value: &[u8]) -> Option<Self> {
        let (text, rest) = value.split_first_chunk::<TEXT_OCTETS>()?;
        let [version] = digits(&text[..2], &DIGITS_OF_ANY_CASE)?;
        let more = match rest {
            [] => false,
            [b'-', ..] => true,
            _ => return None,
        };
        if version == 0xff || (more && version == 0) || [text[2], text[35], text[52]] != *b"---" {
            return None;
        }
        let trace_id = digits(&text[3..35], &DIGITS_OF_LOWER_CASE)?;
        let span_id = digits(&text[36..52], &DIGITS_OF_LOWER_CASE)?;
        let [flags] = digits(&text[53..], &DIGITS_OF_ANY_CASE)?;
        let context = Self { trace_id, span_id, flags };
        context.is_valid().then_some(context)
    }

    /// A `grpc-trace-bin`, padded or not. What it leaves out is zero: without a span the trace is
    /// known and the parent is not.
    pub fn from_binary(value: &[u8]) -> Option<Self> {
        let mut raw = [0; BINARY_OCTETS + 4];
        let encoding = if value.len().is_multiple_of(4) { BASE64 } else { BASE64_NOPAD };
        let room = raw.get_mut(..encoding.decode_len(value.len()).ok()?)?;
        let len = encoding.decode_mut(value, room).ok()?;
        let [0, 0, rest @ ..] = raw.get(..len)? else { return None };
        let (trace_id, mut rest) = rest.split_first_chunk()?;
        let mut context = Self { trace_id: *trace_id, ..Self::default() };
        if let [1, more @ ..] = rest
            && let Some((span_id, more)) = more.split_first_chunk()
        {
            (context.span_id, rest) = (*span_id, more);
        }
        if let [2, flags, ..] = rest {
            context.flags = *flags;
        }
        Some(context)
    }

    /// As a `traceparent`.
    pub fn text(&self) -> [u8; TEXT_OCTETS] {
        let mut text = *b"00-................................-................-..";
        write_digits(&mut text[3..35], &self.trace_id);
        write_digits(&mut text[36..52], &self.span_id);
        write_digits(&mut text[53..], &[self.flags]);
        text
    }

    /// As a `grpc-trace-bin`.
    pub fn binary(&self) -> [u8; BINARY_TEXT_OCTETS] {
        let mut raw = [0; BINARY_OCTETS];
        raw[2..18].copy_from_slice(&self.trace_id);
        raw[18] = 1;
        raw[19..27].copy_from_slice(&self.span_id);
        (raw[27], raw[28]) = (2, self.flags);
        let mut text = [0; BINARY_TEXT_OCTETS];
        BASE64_NOPAD.encode_mut(&raw, &mut text);
        text
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Both digits of each octet.
const PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut octet = 0;
    while octet < 256 {
        pairs[octet] = [DIGITS[octet >> 4], DIGITS[octet & 0x0f]];
        octet += 1;
    }
    pairs
};

/// The digits of an ID, as texts have it.
pub fn write_digits(text: &mut [u8], octets: &[u8]) {
    let (pairs, _) = text.as_chunks_mut();
    for (pair, octet) in pairs.iter_mut().zip(octets) {
        *pair = PAIRS[usize::from(*octet)];
    }
}

/// `2 N` hexadecimal digits, by a table of their values.
#[inline]
fn digits<const N: usize>(text: &[u8], values: &[u8; 256]) -> Option<[u8; N]> {
    let mut octets = [0; N];
    let mut seen = 0;
    let (pairs, _) = text.as_chunks::<2>();
    for (octet, pair) in octets.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| values[usize::from(digit)]);
        seen |= high | low;
        *octet = high << 4 | low;
    }
    (seen & NO_DIGIT == 0 && text.len() == 2 * N).then_some(octets)
}

/// A bit that no value has.
const NO_DIGIT: u8 = 0x80;
const DIGITS_OF_LOWER_CASE: [u8; 256] = digit_values(false);
const DIGITS_OF_ANY_CASE: [u8; 256] = digit_values(true);

const fn digit_values(any_case: bool) -> [u8; 256] {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        let digit = DIGITS[value];
        values[digit as usize] = value as u8;
        if any_case {
            values[digit.to_ascii_uppercase() as usize] = value as u8;
        }
        value += 1;
    }
    values
}

/// Which traces are sampled that begin here: a share of all, by their IDs, so that whoever asks
/// about the same trace says the same. Others do as their parent says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// Of 63 bits.
    bound: u64,
}

impl Sampler {
    pub fn new(rate: f64) -> Self {
        const ALL: u64 = 1 << 63;
        // Out of range it saturates: below 0 nothing, above 1 everything.
        Self { bound: ((rate * ALL as f64) as u64).min(ALL) }
    }

    fn takes(self, trace_id: &[u8; 16]) -> bool {
        let low = trace_id.last_chunk().map_or(0, |low| u64::from_be_bytes(*low));
        low >> 1 < self.bound
    }
}

/// New IDs: unpredictable enough not to meet, no secret. xoroshiro128++ of Blackman and Vigna.
#[derive(Clone, Debug)]
pub struct Ids([u64; 2]);

impl Ids {
    pub fn new(seed: [u64; 2]) -> Self {
        // Its one state that it never leaves.
        Self(if seed == [0; 2] { [1, 2] } else { seed })
    }

    fn next(&mut self) -> u64 {
        let [a, b] = self.0;
        let mixed = a ^ b;
        self.0 = [a.rotate_left(49) ^ mixed ^ mixed << 21, mixed.rotate_left(28)];
        a.wrapping_add(b).rotate_left(17).wrapping_add(a)
    }

    /// A span in the trace of `parent`, or in a new one.
    pub fn span(&mut self, parent: Option<&Context>, sampler: Sampler) -> Context {
        // IDs of zeros would name nothing.
        let span_id = self.next().max(1).to_be_bytes();
        let parent = parent.copied().unwrap_or_default();
        let mut trace_id = parent.trace_id;
        if trace_id == [0; 16] {
            trace_id[..8].copy_from_slice(&self.next().max(1).to_be_bytes());
            trace_id[8..].copy_from_slice(&self.next().to_be_bytes());
        }
        let sampled = match parent.is_valid() {
            true => parent.is_sampled(),
            false => sampler.takes(&trace_id),
        };
        let flags = parent.flags & !SAMPLED | u8::from(sampled);
        Context { trace_id, span_id, flags }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the W3C's recommendation, §3.2.
    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn example() -> Context {
        Context {
            trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes(),
            span_id: 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes(),
            flags: 1,
        }
    }

    #[test]
    fn text_is_the_w3cs() {
        let context = Context::from_text(TEXT.as_bytes()).unwrap();
        assert_eq!(context, example());
        assert_eq!(context.text(), *TEXT.as_bytes());
        // A version to come, whose ending nobody knows yet.
        let later = TEXT.replace("00-4", "cc-4") + "-what-the-future-holds";
        assert_eq!(Context::from_text(later.as_bytes()), Some(context));
    }

    #[test]
    fn what_is_no_text_is_no_context() {
        for wrong in [
            "".to_owned(),
            "00".to_owned(),
            TEXT.replace("00-4", "ff-4"),
            TEXT.replace("00-4", "0-4"),
            TEXT.replace("00-4", "0x-4"),
            TEXT.replace("4bf", "4BF"),
            TEXT.replace("4bf", "4b"),
            TEXT.replace("4bf", "4bg"),
            TEXT.replace("0ba9", "0BA9"),
            TEXT.replace("-01", "-1"),
            TEXT.replace("-01", "-0x"),
            TEXT.replace("-01", "-"),
            TEXT.replace("-01", ""),
            TEXT.to_owned() + "-more",
            TEXT.to_owned() + "01",
            TEXT.replace("00-4", "cc-4") + "01",
            TEXT.replace("-00f0", "_00f0"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16)),
        ] {
            assert_eq!(Context::from_text(wrong.as_bytes()), None, "{wrong}");
        }
    }

    /// 00 00 <trace ID> 01 <span ID> 02 01, as OpenCensus' `encodings/BinaryEncoding.md` lays it
    /// out.
    #[test]
    fn binary_is_opencensus() {
        let mut raw = vec![0, 0];
        raw.extend(example().trace_id);
        raw.push(1);
        raw.extend(example().span_id);
        raw.extend([2, 1]);
        let (bare, padded) = (BASE64_NOPAD.encode(&raw), BASE64.encode(&raw));
        assert_eq!(example().binary(), *bare.as_bytes());
        for text in [bare, padded] {
            assert_eq!(Context::from_binary(text.as_bytes()), Some(example()), "{text}");
        }
        // Nothing but a trace.
        let trace = Context { trace_id: example().trace_id, ..Context::default() };
        let text = BASE64_NOPAD.encode(&raw[..18]);
        assert_eq!(Context::from_binary(text.as_bytes()), Some(trace));
        for wrong in [&raw[..17], &[1][..], &[0, 1], &[0; 40], &[]] {
            let text = BASE64_NOPAD.encode(wrong);
            assert_eq!(Context::from_binary(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Context::from_binary(b"*"), None);
    }

    #[test]
    fn a_parent_decides_and_a_rate_where_there_is_none() {
        let mut ids = Ids::new([7, 9]);
        let (never, always) = (Sampler::new(0.0), Sampler::new(1.0));
        let parent = example();
        let child = ids.span(Some(&parent), never);
        assert_eq!((child.trace_id, child.flags), (parent.trace_id, 1));
        assert_ne!(child.span_id, parent.span_id);
        let quiet = Context { flags: 0x02, ..parent };
        assert_eq!(ids.span(Some(&quiet), always).flags, 0x02, "other flags pass");
        // A trace without a span is no parent that decides.
        let trace = Context { span_id: [0; 8], ..quiet };
        let child = ids.span(Some(&trace), always);
        assert_eq!((child.trace_id, child.flags), (parent.trace_id, 0x03));
        assert!(ids.span(None, always).is_sampled());
        assert!(!ids.span(None, never).is_sampled());
        assert!(!ids.span(None, Sampler::new(-1.0)).is_sampled());
        assert!(!ids.span(None, Sampler::new(f64::NAN)).is_sampled());
    }

    /// The share that is asked for, and IDs of which no two are alike.
    #[test]
    fn a_share_is_sampled() {
        let mut ids = Ids::new([0, 0]);
        let mut seen = std::collections::HashSet::new();
        let sampler = Sampler::new(0.25);
        let spans: Vec<_> = (0..10_000).map(|_| ids.span(None, sampler)).collect();
        assert!(spans.iter().all(|span| span.is_valid() && seen.insert(span.trace_id)));
        assert!(
            spans
                .iter()
                .all(|span| seen.insert([span.span_id, [0; 8]].concat()[..].try_into().unwrap()))
        );
        let sampled = spans.iter().filter(|span| span.is_sampled()).count();
        assert!((2_300..2_700).contains(&sampled), "{sampled}");
        // The ID's low half decides, as everywhere: 2^62 is a quarter of 63 bits, twice.
        let mut trace_id = [0xff; 16];
        trace_id[8..].copy_from_slice(&(0x3fff_ffff_ffff_ffff_u64).to_be_bytes());
        assert!(sampler.takes(&trace_id));
        trace_id[8..].copy_from_slice(&(0x4000_0000_0000_0000_u64).to_be_bytes());
        assert!(!sampler.takes(&trace_id));
    }
}
