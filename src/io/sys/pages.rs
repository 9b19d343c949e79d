//! Pages of the program's files (its code and constants, its libraries') that are in memory because
//! they were used once: a start runs through much code that no call needs.
//!
//! 1. Only what the loader mapped before `main` is touched: nobody maps it anew or unmaps it.
//! 2. Of that, only mappings that nobody may write to and of which the process has no page of its
//!    own: a page given back is read again from the file, as it was. A debugger's breakpoint or a
//!    uprobe is such a page of our own, and keeps its mapping as it is.
//!
//! Source: madvise(2), MADV_DONTNEED; proc_pid_maps(5); proc_pid_smaps(5), whose pages the kernel
//! counts one by one: nothing for the start of a program.

use rustix::mm::{Advice, madvise};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::Range;

/// Read in pieces, since this is about memory.
const PIECE_OCTETS: usize = 1024;

/// See the file's text.
#[derive(Debug)]
pub struct FilePages {
    mapped: Vec<Range<usize>>,
}

impl FilePages {
    /// Of what is mapped now: call it before there is a second thread, which might load libraries.
    /// Nothing where /proc does not tell.
    pub fn mapped_now() -> Self {
        let mut mapped = Vec::new();
        // What was told before an error is true.
        let _ = lines("/proc/self/maps", |line| mapped.extend(read_only_file(line)));
        Self { mapped }
    }

    /// How many octets of them are in memory.
    pub fn resident(&self) -> usize {
        let mut octets = 0;
        let _ = clean_now(|mapping| octets += self.of_start(&mapping).map_or(0, |m| m.resident));
        octets
    }

    /// Those that are used next come back one by one, without a read from the disk unless memory
    /// is scarce.
    pub fn give_back(&self) {
        // Found first, so that what finds them goes as well.
        let mut found = Vec::new();
        let _ = clean_now(|mapping| found.extend(self.of_start(&mapping).map(|m| m.range.clone())));
        for range in found {
            // SAFETY: the range is whole pages of one mapping that was there before `main` and
            // stays (1), is private, cannot be written to and has no page that differs from its
            // file (2): whoever reads there finds the same octets as before. A failure changes
            // nothing.
            let _ = unsafe { madvise(range.start as *mut _, range.len(), Advice::LinuxDontNeed) };
        }
    }

    /// Of those that are still as invariant 2 wants them, one for which invariant 1 holds.
    fn of_start<'a>(&self, mapping: &'a Mapping) -> Option<&'a Mapping> {
        self.mapped.contains(&mapping.range).then_some(mapping)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    range: Range<usize>,
    resident: usize,
}

/// Private read-only mappings of files without a page of our own.
fn clean_now(mut each: impl FnMut(Mapping)) -> io::Result<()> {
    let mut reader = Reader::default();
    lines("/proc/self/smaps", |line| {
        if let Some(mapping) = reader.line(line) {
            each(mapping);
        }
    })
}

fn lines(path: &str, mut each: impl FnMut(&str)) -> io::Result<()> {
    let mut file = BufReader::with_capacity(PIECE_OCTETS, File::open(path)?);
    let mut line = String::with_capacity(PIECE_OCTETS / 4);
    while file.read_line(&mut line)? > 0 {
        each(&line);
        line.clear();
    }
    Ok(())
}

/// Of a line that begins a mapping in either file: a private one of a file, only to be read.
fn read_only_file(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (addresses, access) = (words.next()?, words.next()?);
    let of_file = words.nth(3)?.starts_with('/');
    span(addresses).filter(|_| of_file && matches!(access, "r--p" | "r-xp"))
}

/// The mapping of which the lines are.
#[derive(Default)]
struct Reader {
    /// None: not one that matters.
    range: Option<Range<usize>>,
    resident: usize,
    own: usize,
}

impl Reader {
    fn line(&mut self, line: &str) -> Option<Mapping> {
        let mut words = line.split_ascii_whitespace();
        match words.next()? {
            "Rss:" => self.resident = kibibytes(words.next()?),
            "Anonymous:" => self.own = kibibytes(words.next()?),
            // Pages of our own that are not in memory count here alone. It comes last.
            "Swap:" => {
                let (range, resident) = (self.range.take()?, self.resident);
                let own = self.own.saturating_add(kibibytes(words.next()?));
                return (own == 0).then_some(Mapping { range, resident });
            }
            addresses if !addresses.ends_with(':') => {
                *self = Self { range: read_only_file(line), ..Self::default() };
            }
            _ => {}
        }
        None
    }
}

fn kibibytes(number: &str) -> usize {
    // What cannot be read is no zero.
    number.parse().map_or(usize::MAX, |number: usize| number.saturating_mul(1024))
}

fn span(addresses: &str) -> Option<Range<usize>> {
    let (start, end) = addresses.split_once('-')?;
    let at = |text| usize::from_str_radix(text, 16).ok();
    Some(at(start)?..at(end)?).filter(|range| range.start < range.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
1000-3000 r--p 00000000 fe:00 17 /usr/bin/ringside
Size:                  8 kB
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
3000-9000 r-xp 00002000 fe:00 17 /usr/bin/ringside (deleted)
Rss:                  12 kB
Anonymous:             0 kB
Swap:                  0 kB
9000-a000 r--p 00002000 fe:00 17 /usr/bin/ringside
Rss:                   4 kB
Anonymous:             4 kB
Swap:                  0 kB
a000-b000 rw-p 00002000 fe:00 17 /usr/bin/ringside
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
b000-c000 r--s 00002000 fe:00 17 /usr/share/shared
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
c000-d000 r-xp 00000000 00:00 0 [vdso]
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
d000-e000 r--p 00000000 00:00 0
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
e000-f000 r--p 00000000 fe:00 18 /usr/lib/libc.so.6
Rss:                   0 kB
Anonymous:             0 kB
Swap:                  4 kB
";

    fn mappings() -> Vec<Mapping> {
        let mut reader = Reader::default();
        TEXT.lines().filter_map(|line| reader.line(line)).collect()
    }

    #[test]
    fn only_files_that_nobody_wrote_to_or_may_write_to() {
        let expected = [
            Mapping { range: 0x1000..0x3000, resident: 4096 },
            Mapping { range: 0x3000..0x9000, resident: 12288 },
        ];
        assert_eq!(mappings(), expected);
    }

    #[test]
    fn what_came_later_or_was_written_to_since_is_left_alone() {
        let mapped = [0x3000..0x9000, 0x9000..0xa000, 0xe000..0xf000, 0x20000..0x30000];
        let pages = FilePages { mapped: mapped.to_vec() };
        let mappings = mappings();
        let now: Vec<_> = mappings.iter().filter_map(|mapping| pages.of_start(mapping)).collect();
        assert_eq!(now, [&Mapping { range: 0x3000..0x9000, resident: 12288 }]);
    }

    /// That one was written to is seen when pages are given back.
    #[test]
    fn mappings_of_the_start_are_files_that_nobody_may_write_to() {
        let ranges: Vec<_> = TEXT.lines().filter_map(read_only_file).collect();
        assert_eq!(ranges, [0x1000..0x3000, 0x3000..0x9000, 0x9000..0xa000, 0xe000..0xf000]);
    }

    /// The code that does it, and its constants, among them.
    #[test]
    fn what_is_given_back_is_there_again_when_it_is_used() {
        let pages = FilePages::mapped_now();
        let before = pages.resident();
        assert!(before > 0, "{pages:?}");
        pages.give_back();
        let after = pages.resident();
        assert!(after < before, "{after} of {before} octets");
        assert_eq!(mappings().len(), 2);
    }
}
