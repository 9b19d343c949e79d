//! The static table (RFC 7541 Appendix A) and the way from a name to its rows.
//!
//! 1. Rows of one name adjoin, so that a name's rows are a range.
//! 2. All of it is made at compile time.

/// One row; its octets adjoin so that a section takes them in one copy.
#[derive(Clone, Copy)]
pub(super) struct StaticRow {
    pub(super) pair: &'static [u8],
    pub(super) name_len: usize,
}

impl StaticRow {
    pub(super) const fn name(&self) -> &'static [u8] {
        self.pair.split_at(self.name_len).0
    }

    pub(super) const fn value(&self) -> &'static [u8] {
        self.pair.split_at(self.name_len).1
    }
}

macro_rules! row {
    ($name:literal, $value:literal) => {
        StaticRow { pair: concat!($name, $value).as_bytes(), name_len: $name.len() }
    };
}

pub(super) const ROWS: usize = 61;

/// Row `i` of the RFC is `STATIC_TABLE[i - 1]`.
pub(super) static STATIC_TABLE: [StaticRow; ROWS] = [
    row!(":authority", ""),
    row!(":method", "GET"),
    row!(":method", "POST"),
    row!(":path", "/"),
    row!(":path", "/index.html"),
    row!(":scheme", "http"),
    row!(":scheme", "https"),
    row!(":status", "200"),
    row!(":status", "204"),
    row!(":status", "206"),
    row!(":status", "304"),
    row!(":status", "400"),
    row!(":status", "404"),
    row!(":status", "500"),
    row!("accept-charset", ""),
    row!("accept-encoding", "gzip, deflate"),
    row!("accept-language", ""),
    row!("accept-ranges", ""),
    row!("accept", ""),
    row!("access-control-allow-origin", ""),
    row!("age", ""),
    row!("allow", ""),
    row!("authorization", ""),
    row!("cache-control", ""),
    row!("content-disposition", ""),
    row!("content-encoding", ""),
    row!("content-language", ""),
    row!("content-length", ""),
    row!("content-location", ""),
    row!("content-range", ""),
    row!("content-type", ""),
    row!("cookie", ""),
    row!("date", ""),
    row!("etag", ""),
    row!("expect", ""),
    row!("expires", ""),
    row!("from", ""),
    row!("host", ""),
    row!("if-match", ""),
    row!("if-modified-since", ""),
    row!("if-none-match", ""),
    row!("if-range", ""),
    row!("if-unmodified-since", ""),
    row!("last-modified", ""),
    row!("link", ""),
    row!("location", ""),
    row!("max-forwards", ""),
    row!("proxy-authenticate", ""),
    row!("proxy-authorization", ""),
    row!("range", ""),
    row!("referer", ""),
    row!("refresh", ""),
    row!("retry-after", ""),
    row!("server", ""),
    row!("set-cookie", ""),
    row!("strict-transport-security", ""),
    row!("transfer-encoding", ""),
    row!("user-agent", ""),
    row!("vary", ""),
    row!("via", ""),
    row!("www-authenticate", ""),
];

/// The row of this index (from 1), if it is one of the static table.
#[inline]
pub(super) fn row(index: u32) -> Option<&'static StaticRow> {
    STATIC_TABLE.get((index as usize).wrapping_sub(1))
}

/// The first index whose row has this name; 0 if there is none.
#[inline]
pub(super) fn index_of_name(name: &[u8]) -> u8 {
    let Some(mut slot) = slot_of(name) else { return 0 };
    loop {
        // The table has empty slots (see the assertion), so that this ends.
        let index = BY_NAME[slot];
        match row(u32::from(index)) {
            Some(row) if row.name() == name => return index,
            Some(_) => slot = (slot + 1) % SLOTS,
            None => return 0,
        }
    }
}

/// The index of the row with this name and value, given the index of any row with this name.
#[inline]
pub(super) fn index_of_value(of_name: u8, value: &[u8]) -> Option<u8> {
    let row = row(u32::from(of_name))?;
    if row.value() == value {
        return Some(of_name);
    }
    let siblings = &SIBLINGS[usize::from(of_name) - 1];
    if siblings.first == siblings.last { None } else { siblings.index_of_value(value) }
}

/// The rows of one name.
#[derive(Clone, Copy)]
struct Siblings {
    first: u8,
    last: u8,
}

impl Siblings {
    fn index_of_value(self, value: &[u8]) -> Option<u8> {
        (self.first..=self.last)
            .find(|&index| row(u32::from(index)).is_some_and(|row| row.value() == value))
    }
}

/// Open addressing over some octets of the name; 0 is empty.
const SLOTS: usize = 256;
static BY_NAME: [u8; SLOTS] = by_name();
static SIBLINGS: [Siblings; ROWS] = siblings();

const _: () = assert!(ROWS < SLOTS);

/// Length and three octets set nearly all the names apart. `None`: no such name can be here.
#[inline]
const fn slot_of(name: &[u8]) -> Option<usize> {
    let len = name.len();
    if len < 2 || len > 27 {
        return None;
    }
    let sum = len * 7 + name[1] as usize * 37 + name[len / 2] as usize * 11;
    Some((sum + name[len - 1] as usize * 3) % SLOTS)
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

const fn siblings() -> [Siblings; ROWS] {
    let mut all = [Siblings { first: 1, last: 1 }; ROWS];
    let mut at = 0;
    while at < ROWS {
        let name = STATIC_TABLE[at].name();
        let again = at > 0 && same(name, STATIC_TABLE[at - 1].name());
        all[at].first = if again { all[at - 1].first } else { at as u8 + 1 };
        let mut last = at;
        while last + 1 < ROWS && same(name, STATIC_TABLE[last + 1].name()) {
            last += 1;
        }
        all[at].last = last as u8 + 1;
        at += 1;
    }
    all
}

const fn by_name() -> [u8; SLOTS] {
    let all = siblings();
    let mut slots = [0; SLOTS];
    let mut at = 0;
    while at < ROWS {
        if all[at].first as usize == at + 1 {
            let Some(mut slot) = slot_of(STATIC_TABLE[at].name()) else {
                panic!("a name's length is outside the range of slot_of")
            };
            while slots[slot] != 0 {
                slot = (slot + 1) % SLOTS;
            }
            slots[slot] = all[at].first;
        }
        at += 1;
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found() {
        for (position, row) in STATIC_TABLE.iter().enumerate() {
            let first = STATIC_TABLE.iter().position(|other| other.name() == row.name());
            assert_eq!(Some(usize::from(index_of_name(row.name()))), first.map(|at| at + 1));
            let index = position as u8 + 1;
            assert_eq!(index_of_value(index_of_name(row.name()), row.value()), Some(index));
            assert_eq!(index_of_value(index, b"no such value"), None);
        }
    }

    #[test]
    fn other_names_are_not_found() {
        for name in [&b""[..], b"a", b"te", b":patH", b"grpc-status", &[b'x'; 300]] {
            assert_eq!(index_of_name(name), 0);
        }
        assert!(row(0).is_none());
        assert!(row(62).is_none());
    }
}
