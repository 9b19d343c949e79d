//! The keys of one direction of a TLS 1.3 connection: single records sealed and opened.
//!
//! 1. No nonce is used twice: it is the IV XOR the sequence number (RFC 8446 §5.3), which goes up
//!    by one per record and never back; new keys come with a new number.
//! 2. A record is sealed and opened where it lies.
//!
//! Refuses to know what a record says, and when keys change. The AEAD wipes its key when dropped.

use super::Fault;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305};
use aws_lc_rs::aead::{LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::{AlertDescription, ConnectionTrafficSecrets};
use std::fmt;

pub(super) const HEADER_LEN: usize = 5;

/// All three AEADs have tags of this size.
const TAG_LEN: usize = 16;

/// Content of one record at most (RFC 8446 §5.1).
pub(super) const CONTENT_MAX: usize = 1 << 14;

/// Content, its type, and padding (§5.4).
const INNER_MAX: usize = CONTENT_MAX + 1;

/// What of a record is sealed, with the tag (§5.2).
const SEALED_MAX: usize = CONTENT_MAX + 256;

/// What a record has besides its content: the header, the content's type, the tag.
pub(super) const RECORD_EXTRA: usize = HEADER_LEN + 1 + TAG_LEN;

/// What a header begins with: application_data, and a version that stands still (§5.2).
const HEADER_START: [u8; 3] = [APPLICATION_DATA, 3, 3];

pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;

/// See the file's text.
pub(super) struct Cipher {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    /// Of the next record.
    sequence: u64,
}

impl Cipher {
    pub(super) fn new(secrets: (u64, ConnectionTrafficSecrets)) -> Result<Self, Fault> {
        let (sequence, secrets) = secrets;
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Fault::Local(AlertDescription::InternalError)),
        };
        Self::of(algorithm, key.as_ref(), iv.as_ref(), sequence)
    }

    fn of(
        algorithm: &'static Algorithm,
        key: &[u8],
        iv: &[u8],
        sequence: u64,
    ) -> Result<Self, Fault> {
        let key = UnboundKey::new(algorithm, key).map_err(|_| internal())?;
        let iv = iv.try_into().map_err(|_| internal())?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    /// Records that these keys have sealed or opened.
    pub(super) fn used(&self) -> u64 {
        self.sequence
    }

    /// Of the next record, and of no other. None is left after 2^64.
    fn nonce(&mut self) -> Result<Nonce, Fault> {
        let mut nonce = self.iv;
        for (octet, number) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *octet ^= number;
        }
        self.sequence = self.sequence.checked_add(1).ok_or_else(internal)?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    /// Makes a record of the header's room and content that begin at `start` of `out`. What could
    /// not be sealed is not left there: it might be sent.
    pub(super) fn seal(&mut self, kind: u8, out: &mut Vec<u8>, start: usize) -> Result<(), Fault> {
        let sealed = self.seal_in_place(kind, out, start);
        if sealed.is_err() {
            out.truncate(start);
        }
        sealed
    }

    fn seal_in_place(&mut self, kind: u8, out: &mut Vec<u8>, start: usize) -> Result<(), Fault> {
        out.push(kind);
        let nonce = self.nonce()?;
        let (head, inner) = out[start..].split_at_mut(HEADER_LEN);
        debug_assert!(inner.len() <= INNER_MAX);
        let sealed = u16::try_from(inner.len() + TAG_LEN).map_err(|_| internal())?;
        let [application_data, major, minor] = HEADER_START;
        let [high, low] = sealed.to_be_bytes();
        let header = [application_data, major, minor, high, low];
        head.copy_from_slice(&header);
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(header), inner);
        out.extend_from_slice(tag.map_err(|_| internal())?.as_ref());
        Ok(())
    }

    /// Opens a whole record: the type of its content, and how many octets there are behind the
    /// header.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(u8, usize), Fault> {
        let bad_record = Fault::Local(AlertDescription::BadRecordMac);
        let Some((header, sealed)) = record.split_first_chunk_mut::<HEADER_LEN>() else {
            return Err(bad_record);
        };
        let nonce = self.nonce()?;
        let inner = self.key.open_in_place(nonce, Aad::from(*header), sealed);
        let inner = inner.map_err(|_| bad_record)?;
        if inner.len() > INNER_MAX {
            return Err(Fault::Local(AlertDescription::RecordOverflow));
        }
        // Zeros behind the type are padding; there is always a type (§5.4).
        match inner.iter().rposition(|octet| *octet != 0) {
            Some(content) => Ok((inner[content], content)),
            None => Err(Fault::Local(AlertDescription::UnexpectedMessage)),
        }
    }
}

/// Neither key nor IV.
impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cipher").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// How long the record is that begins here; `None` when its header is not complete.
pub(super) fn record_len(octets: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(&[kind, major, minor, high, low]) = octets.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let sealed = usize::from(u16::from_be_bytes([high, low]));
    match [kind, major, minor] {
        HEADER_START if sealed > SEALED_MAX => Err(AlertDescription::RecordOverflow),
        HEADER_START => Ok(Some(HEADER_LEN + sealed)),
        [APPLICATION_DATA, _, _] => Err(AlertDescription::ProtocolVersion),
        // Nothing comes unsealed after the handshake, not even change_cipher_spec (§5).
        _ => Err(AlertDescription::UnexpectedMessage),
    }
    .map_err(Fault::Local)
}

fn internal() -> Fault {
    Fault::Local(AlertDescription::InternalError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::aws_lc_rs::cipher_suite;
    use rustls::crypto::cipher::{AeadKey, Iv, OutboundPlainMessage};
    use rustls::{ContentType, ProtocolVersion, SupportedCipherSuite};

    impl Cipher {
        /// Also what is larger than anybody may send.
        pub(in crate::io::tls) fn seal_unbounded(&mut self, kind: u8, mut out: Vec<u8>) -> Vec<u8> {
            out.push(kind);
            let nonce = self.nonce().unwrap();
            let [high, low] = ((out.len() - HEADER_LEN + TAG_LEN) as u16).to_be_bytes();
            let header = [23, 3, 3, high, low];
            out[..HEADER_LEN].copy_from_slice(&header);
            let inner = &mut out[HEADER_LEN..];
            let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(header), inner);
            out.extend_from_slice(tag.unwrap().as_ref());
            out
        }
    }

    fn seal(cipher: &mut Cipher, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![0; HEADER_LEN];
        out.extend_from_slice(content);
        cipher.seal(kind, &mut out, 0).unwrap();
        out
    }

    fn octets(hex: &str) -> Vec<u8> {
        let digits: String = hex.split_whitespace().collect();
        data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap()
    }

    /// RFC 8448 §3: the client's data and close_notify, under its application traffic keys.
    #[test]
    fn seals_and_opens_as_the_trace() {
        let key = octets("17 42 2d da 59 6e d5 d9 ac d8 90 e3 c6 3f 50 51");
        let iv = octets("5b 78 92 3d ee 08 57 90 33 e5 23 d9");
        let data = octets(
            "17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea 42 f9 14 aa \
             66 bc ab 3f 2b 98 19 a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 \
             97 70 14 bd 1e 3d ea e6 3a ee bb 21 69 49 15 e4",
        );
        let end = octets("17 03 03 00 13 c9 87 27 60 65 56 66 b7 4d 7f f1 15 3e fd 6d b6 d0 b0 e3");
        let content: Vec<u8> = (0..50).collect();
        let mut sealer = Cipher::of(&AES_128_GCM, &key, &iv, 0).unwrap();
        assert_eq!(seal(&mut sealer, APPLICATION_DATA, &content), data);
        assert_eq!(seal(&mut sealer, ALERT, &[1, 0]), end);
        let mut opener = Cipher::of(&AES_128_GCM, &key, &iv, 0).unwrap();
        let mut record = data.clone();
        assert_eq!(opener.open(&mut record).unwrap(), (APPLICATION_DATA, 50));
        assert_eq!(record[HEADER_LEN..HEADER_LEN + 50], content);
        assert_eq!(opener.open(&mut end.clone()).unwrap(), (ALERT, 2));
        // Not the next number.
        let replayed = opener.open(&mut data.clone());
        assert_eq!(replayed, Err(Fault::Local(AlertDescription::BadRecordMac)));
    }

    /// What rustls' own cipher makes of the same keys, numbers and contents.
    #[test]
    fn seals_as_rustls() {
        let suites: [(&'static Algorithm, SupportedCipherSuite); 2] = [
            (&AES_256_GCM, cipher_suite::TLS13_AES_256_GCM_SHA384),
            (&CHACHA20_POLY1305, cipher_suite::TLS13_CHACHA20_POLY1305_SHA256),
        ];
        let (key, iv) = ([0x5a; 32], [0xc3; 12]);
        for (algorithm, suite) in suites {
            let aead = suite.tls13().unwrap().aead_alg;
            let mut theirs = aead.encrypter(AeadKey::from(key), Iv::from(iv));
            for sequence in [0, 1, 255, 256, 1 << 40, u64::MAX - 1] {
                let mut ours = Cipher::of(algorithm, &key, &iv, sequence).unwrap();
                let content = vec![sequence as u8; 1 + sequence as usize % CONTENT_MAX];
                let message = OutboundPlainMessage {
                    typ: ContentType::ApplicationData,
                    version: ProtocolVersion::TLSv1_2,
                    payload: content.as_slice().into(),
                };
                let expected = theirs.encrypt(message, sequence).unwrap().encode();
                assert_eq!(seal(&mut ours, APPLICATION_DATA, &content), expected);
            }
        }
    }

    #[test]
    fn no_number_comes_twice() {
        let mut cipher = Cipher::of(&AES_128_GCM, &[1; 16], &[2; 12], u64::MAX - 1).unwrap();
        seal(&mut cipher, APPLICATION_DATA, b"the last");
        let mut out = b"sealed before".to_vec();
        out.extend_from_slice(&[0; HEADER_LEN]);
        out.extend_from_slice(b"plaintext");
        assert!(cipher.seal(APPLICATION_DATA, &mut out, 13).is_err());
        assert_eq!(out, b"sealed before");
        assert!(cipher.open(&mut [0; 40]).is_err());
    }

    #[test]
    fn debug_tells_no_secrets() {
        let cipher = Cipher::of(&AES_128_GCM, &[171; 16], &[171; 12], 5).unwrap();
        let text = format!("{cipher:?}");
        assert!(text.contains("sequence: 5") && !text.contains("171"), "{text}");
    }

    #[test]
    fn judges_headers() {
        use AlertDescription::{ProtocolVersion, RecordOverflow, UnexpectedMessage};
        let longest = HEADER_LEN + (1 << 14) + 256;
        for (header, expected) in [
            ([23, 3, 3, 0, 0], Ok(Some(HEADER_LEN))),
            ([23, 3, 3, 0x41, 0], Ok(Some(longest))),
            ([23, 3, 3, 0x41, 1], Err(RecordOverflow)),
            ([23, 3, 3, 0xff, 0xff], Err(RecordOverflow)),
            ([23, 3, 1, 0, 32], Err(ProtocolVersion)),
            ([20, 3, 3, 0, 1], Err(UnexpectedMessage)),
            ([21, 3, 3, 0, 2], Err(UnexpectedMessage)),
            ([22, 3, 3, 0, 32], Err(UnexpectedMessage)),
            ([80, 82, 73, 32, 42], Err(UnexpectedMessage)),
        ] {
            assert_eq!(record_len(&header), expected.map_err(Fault::Local), "{header:?}");
            assert_eq!(record_len(&header[..4]), Ok(None));
        }
    }
}
