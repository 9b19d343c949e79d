//! Batches, compressed (RFC 1952).

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

/// Fast: a batch is a megabyte at most, and no step of control may be long.
pub(super) fn gzip(octets: &[u8]) -> Result<Bytes, String> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(octets.len() / 4), Compression::fast());
    encoder.write_all(octets).map_err(|error| error.to_string())?;
    encoder.finish().map(Bytes::from).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use std::io::Read;

    #[test]
    fn comes_back_smaller() {
        let octets = b"/helloworld.Greeter/SayHello".repeat(1000);
        let small = gzip(&octets).unwrap();
        assert_eq!(small[..3], [0x1f, 0x8b, 8], "RFC 1952 \u{a7}2.3.1");
        assert!(small.len() < octets.len() / 50, "{}", small.len());
        let mut back = Vec::new();
        GzDecoder::new(&small[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, octets);
    }
}
