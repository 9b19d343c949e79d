//! Whether a file is another one than before, without reading it.
//!
//! 1. Whoever writes, renames or links a file changes its stamp: the time of the last change of its
//!    inode, which no program can set, is in it. Only two changes in one tick of the kernel's clock
//!    that leave the size alone look like one.

use std::fs::metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What differs when the file does. Links are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stamp {
    Missing(ErrorKind),
    Present { device: u64, inode: u64, octets: u64, modified: (i64, i64), changed: (i64, i64) },
}

impl Stamp {
    /// May block.
    pub fn of(path: &Path) -> Self {
        match metadata(path) {
            Ok(found) => Self::Present {
                device: found.dev(),
                inode: found.ino(),
                octets: found.size(),
                modified: (found.mtime(), found.mtime_nsec()),
                changed: (found.ctime(), found.ctime_nsec()),
            },
            Err(error) => Self::Missing(error.kind()),
        }
    }
}
