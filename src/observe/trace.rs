//! Trace context: which span of which trace a call belongs to.
//!
//! Owns both forms that cross a hop (`traceparent` of W3C Trace Context; OpenCensus' binary form,
//! in base64, as `grpc-trace-bin`), who is sampled, and where new IDs come from.
//!
//! 1. Nothing here allocates.
//! 2. What most calls have is read and written as text, without becoming numbers: a `traceparent`
//!    of version 0, in lower case, of which a child has another span and nothing else.
//! 3. Octets of a peer are no context, or one; they never fail anything else.
//!
//! Sources: Dapr's `pkg/diagnostics/tracing.go` and `utils/trace_utils.go` for what is taken; the
//! OpenTelemetry specification (`trace/sdk.md`, ParentBased and TraceIdRatioBased) for sampling.

use data_encoding::{BASE64, BASE64_NOPAD};
use std::ops::Range;

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
        let mut text = *EMPTY;
        write_digits(&mut text[TRACE_DIGITS], &self.trace_id);
        write_digits(&mut text[SPAN_DIGITS], &self.span_id);
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

const EMPTY: &[u8; TEXT_OCTETS] = b"00-................................-................-00";
const TRACE_DIGITS: Range<usize> = 3..35;
const SPAN_DIGITS: Range<usize> = 36..52;

/// A `traceparent` of version 0 in lower case that names a trace and a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent([u8; TEXT_OCTETS]);

impl TraceParent {
    /// Of what comes from most peers. `None`: it is no context, or one that [`Context::from_text`]
    /// reads.
    #[inline]
    pub fn read(value: &[u8]) -> Option<&[u8; TEXT_OCTETS]> {
        let text: &[u8; TEXT_OCTETS] = value.try_into().ok()?;
        let (trace, span) = (&text[TRACE_DIGITS], &text[SPAN_DIGITS]);
        let framed = text[..3] == *b"00-" && text[35] == b'-' && text[52..54] == *b"-0";
        let flags = text[54] | 1 == b'1';
        let digits = are_digits(trace) & are_digits(span);
        let named = *trace != [b'0'; 32] && *span != [b'0'; 16];
        (framed && flags && digits && named).then_some(text)
    }

    /// As the lowest bit of its last digit says, which in letters is the other way round.
    #[inline]
    pub fn is_sampled(&self) -> bool {
        let digit = self.0[54];
        (digit ^ digit >> 6) & SAMPLED != 0
    }

    pub fn context(&self) -> Context {
        Context::from_text(&self.0).unwrap_or_default()
    }

    pub const fn octets(&self) -> &[u8; TEXT_OCTETS] {
        &self.0
    }

    /// Sixteen digits of any 64 bits: which half of which octet is which digit says nothing.
    #[inline]
    fn put(&mut self, digits: Range<usize>, bits: u64) {
        let halves = [letters(bits & HALVES), letters(bits >> 4 & HALVES)];
        self.0[digits].copy_from_slice(halves.as_flattened());
    }
}

impl From<&Context> for TraceParent {
    fn from(context: &Context) -> Self {
        Self(context.text())
    }
}

/// Whether all are hexadecimal in lower case, whole words of them.
#[inline]
fn are_digits(text: &[u8]) -> bool {
    const TOPS: u64 = 0x80 * ONES;
    let (words, _) = text.as_chunks::<8>();
    let mut right = TOPS;
    for word in words {
        let word = u64::from_le_bytes(*word);
        // The top bit of each octet that is not below; only out of octets that are no ASCII, and
        // wrong whatever is beside them, something is carried.
        let from = |least: u8| word.wrapping_add(u64::from(0x80 - least) * ONES);
        let digit = from(b'0') & !from(b'9' + 1);
        let letter = from(b'a') & !from(b'f' + 1);
        right &= (digit | letter) & !word;
    }
    right == TOPS
}

const ONES: u64 = 0x0101_0101_0101_0101;
/// The lower half of each octet.
const HALVES: u64 = 0x0f0f_0f0f_0f0f_0f0f;

/// Each octet, less than 16, as a digit; the lowest first. All at once.
#[inline]
fn letters(numbers: u64) -> [u8; 8] {
    let above_nine = (numbers + 6 * ONES) >> 4 & ONES;
    let to_letters = u64::from(b'a' - b'0' - 10);
    (numbers + u64::from(b'0') * ONES + above_nine * to_letters).to_le_bytes()
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

    /// The same of a half of an ID that [`Ids::draw`] drew. Most are settled by two digits.
    #[inline]
    pub fn takes_drawn(self, low: u64) -> bool {
        let digits = (low << 4 | low >> 8 & 0x0f) as u8;
        u64::from(digits >> 1) <= self.bound >> 56 && drawn_number(low) >> 1 < self.bound
    }
}

/// What the sixteen digits say that [`TraceParent::put`] writes.
#[cold]
fn drawn_number(bits: u64) -> u64 {
    let halves = [bits & HALVES, bits >> 4 & HALVES].map(u64::to_le_bytes);
    halves.as_flattened().iter().fold(0, |number, digit| number << 4 | u64::from(*digit))
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

    /// Draws the half of a new trace's ID that says whether it is sampled.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.next()
    }

    /// The first span of a new trace, of which this half was drawn.
    #[inline]
    pub fn root(&mut self, drawn: u64, sampled: bool) -> TraceParent {
        let mut root = TraceParent(*EMPTY);
        // IDs of zeros would name nothing.
        let high = self.next().max(1);
        root.put(3..19, high);
        root.put(19..35, drawn);
        // It need be another one than its children's alone.
        root.put(SPAN_DIGITS, (high ^ drawn.rotate_left(17)).max(1));
        root.0[54] |= u8::from(sampled);
        root
    }

    /// A span in the trace of `parent`, as [`TraceParent::read`] gives it, and sampled as that is.
    #[inline]
    pub fn child(&mut self, parent: &[u8; TEXT_OCTETS]) -> TraceParent {
        let mut child = TraceParent(*parent);
        child.put(SPAN_DIGITS, self.next().max(1));
        child
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

    /// What is read as text is what is read as numbers, and its children are alike, too.
    #[test]
    fn a_traceparent_is_its_context() {
        let mut ids = Ids::new([3, 4]);
        for flags in ["00", "01"] {
            let text = TEXT.replace("-01", &format!("-{flags}"));
            let read = TraceParent::read(text.as_bytes()).unwrap();
            let context = Context::from_text(text.as_bytes()).unwrap();
            let same = TraceParent::from(&context);
            assert_eq!((same.octets(), same.context()), (read, context));
            assert_eq!(same.is_sampled(), context.is_sampled());
            let child = ids.child(read).context();
            let same = Context { span_id: child.span_id, ..context };
            assert!(child == same && child.is_valid() && child != context);
        }
        // Of flags that nobody has given a meaning yet, the same bit counts.
        for flags in 0..=u8::MAX {
            let context = Context { flags, ..example() };
            let sampled = TraceParent::from(&context).is_sampled();
            assert_eq!(sampled, context.is_sampled(), "{flags:02x}");
        }
        for other in ["00-4", "cc-4", "4bf", "4BF", "4bg", "-01", "-02", "-0A", "-11"] {
            let replaced = match other {
                "00-4" | "cc-4" => TEXT.replace("00-4", other) + "-more",
                "4bf" | "4BF" | "4bg" => {
                    TEXT.replace("4bf", other) + &"-"[usize::from(other != "4bf")..]
                }
                _ => TEXT.replace("-01", other) + &"x"[usize::from(other != "-01")..],
            };
            assert_eq!(TraceParent::read(replaced.as_bytes()), None, "{replaced}");
        }
        for at in 0..TEXT_OCTETS {
            for octet in 0..=u8::MAX {
                let mut text = <[u8; TEXT_OCTETS]>::try_from(TEXT.as_bytes()).unwrap();
                text[at] = octet;
                let read = TraceParent::read(&text);
                let context = Context::from_text(&text);
                let plain = context.is_some_and(|it| it.flags <= 1 && it.text() == text);
                assert_eq!(read.is_some(), plain, "{octet} at {at}");
            }
        }
        for zeros in [TRACE_DIGITS, SPAN_DIGITS] {
            let mut text = <[u8; TEXT_OCTETS]>::try_from(TEXT.as_bytes()).unwrap();
            text[zeros].fill(b'0');
            assert_eq!(TraceParent::read(&text), None);
        }
    }

    #[test]
    fn digits_are_written_as_others_write_them() {
        assert_eq!(letters(0x0706_0504_0302_0100), *b"01234567");
        assert_eq!(letters(0x0f0e_0d0c_0b0a_0908), *b"89abcdef");
        // Every bit that is given is in the text.
        let written = |bits| {
            let mut text = TraceParent(*EMPTY);
            text.put(SPAN_DIGITS, bits);
            text.0[SPAN_DIGITS].to_vec()
        };
        assert_eq!(written(0), b"0".repeat(16));
        let single: std::collections::HashSet<_> = (0..64).map(|bit| written(1 << bit)).collect();
        assert_eq!(single.len(), 64);
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
        let new_root = |ids: &mut Ids, sampler: Sampler| {
            let drawn = ids.draw();
            ids.root(drawn, sampler.takes_drawn(drawn))
        };
        let roots: Vec<_> = (0..10_000).map(|_| new_root(&mut ids, sampler)).collect();
        let same = |root: &TraceParent| {
            let context = root.context();
            context.is_valid() && context.is_sampled() == sampler.takes(&context.trace_id)
        };
        let (never, always) = (Sampler::new(0.0), Sampler::new(1.0));
        assert!((0..1000).all(|_| !new_root(&mut ids, never).is_sampled()));
        assert!((0..1000).all(|_| new_root(&mut ids, always).is_sampled()));
        assert!(roots.iter().all(|root| same(root) && seen.insert(root.context().trace_id)));
        let sampled = roots.iter().filter(|root| root.is_sampled()).count();
        assert!((2_300..2_700).contains(&sampled), "{sampled}");
        // The ID's low half decides, as everywhere: 2^62 is a quarter of 63 bits, twice.
        let mut trace_id = [0xff; 16];
        trace_id[8..].copy_from_slice(&(0x3fff_ffff_ffff_ffff_u64).to_be_bytes());
        assert!(sampler.takes(&trace_id));
        trace_id[8..].copy_from_slice(&(0x4000_0000_0000_0000_u64).to_be_bytes());
        assert!(!sampler.takes(&trace_id));
    }
}
