//! SETTINGS (RFC 9113 §6.5): values, bounds, the peer's state.
//!
//! 1. A payload is judged as a whole and its last value of each setting counts: a frame that
//!    repeats a setting costs no more than one that does not.
//! 2. Unknown settings are ignored (§6.5.2).
//!
//! Refuses to know what a changed value means for streams, windows and HPACK: `Connection` does.

use super::error::{ConnectionError, ErrorCode};
use super::frame::{FRAME_SIZE_MAX, FRAME_SIZE_MIN, FrameHeader, FrameType, WINDOW_MAX};
use super::{Limits, Role, StreamId};

const HEADER_TABLE_SIZE: u16 = 0x1;
const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;
/// Ours, from the range for experiments (§11.3): by it those recognize each other who agree on more
/// than HTTP/2. Everybody else ignores it.
const KINSHIP: u16 = 0xf1d2;

/// Octets of one setting: identifier and value.
const SETTING_LEN: usize = 6;

/// RFC 9113 §6.5.2, §6.9.2: what holds before a SETTINGS says otherwise.
pub const INITIAL_WINDOW_DEFAULT: u32 = 65_535;
pub const HEADER_TABLE_DEFAULT: u32 = 4096;

/// The peer's settings in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    pub header_table_size: u32,
    /// `None`: no limit was announced.
    pub max_concurrent_streams: Option<u32>,
    pub initial_window: u32,
    pub max_frame_size: u32,
    /// Advisory (§6.5.2).
    pub header_list_size: Option<u32>,
    /// 0: none that we know of.
    pub kinship: u8,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            header_table_size: HEADER_TABLE_DEFAULT,
            max_concurrent_streams: None,
            initial_window: INITIAL_WINDOW_DEFAULT,
            max_frame_size: FRAME_SIZE_MIN,
            header_list_size: None,
            kinship: 0,
        }
    }
}

impl PeerSettings {
    /// What holds after `payload`. `role` is ours.
    pub fn after(mut self, payload: &[u8], role: Role) -> Result<Self, ConnectionError> {
        if !payload.len().is_multiple_of(SETTING_LEN) {
            let reason = "SETTINGS length is not a multiple of 6";
            return Err(ConnectionError::new(ErrorCode::FRAME_SIZE_ERROR, reason));
        }
        for setting in payload.as_chunks::<SETTING_LEN>().0 {
            let [i0, i1, v0, v1, v2, v3] = *setting;
            let value = u32::from_be_bytes([v0, v1, v2, v3]);
            self.set(u16::from_be_bytes([i0, i1]), value, role)?;
        }
        Ok(self)
    }

    /// Each HEADER_TABLE_SIZE in `payload`: values take effect in order (§6.5.3), and an encoder
    /// owes its peer the smallest one even when a larger one follows (RFC 7541 §4.2).
    pub fn table_sizes(payload: &[u8]) -> impl Iterator<Item = u32> {
        payload.as_chunks::<SETTING_LEN>().0.iter().filter_map(|[i0, i1, v0, v1, v2, v3]| {
            let wanted = u16::from_be_bytes([*i0, *i1]) == HEADER_TABLE_SIZE;
            wanted.then(|| u32::from_be_bytes([*v0, *v1, *v2, *v3]))
        })
    }

    fn set(&mut self, identifier: u16, value: u32, role: Role) -> Result<(), ConnectionError> {
        match identifier {
            HEADER_TABLE_SIZE => self.header_table_size = value,
            ENABLE_PUSH => match (value, role) {
                (0, _) | (1, Role::Server) => {}
                (1, Role::Client) => {
                    return Err(ConnectionError::protocol("server sent SETTINGS_ENABLE_PUSH 1"));
                }
                _ => return Err(ConnectionError::protocol("SETTINGS_ENABLE_PUSH above 1")),
            },
            MAX_CONCURRENT_STREAMS => self.max_concurrent_streams = Some(value),
            INITIAL_WINDOW_SIZE => {
                if value > WINDOW_MAX {
                    let reason = "SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1";
                    return Err(ConnectionError::new(ErrorCode::FLOW_CONTROL_ERROR, reason));
                }
                self.initial_window = value;
            }
            MAX_FRAME_SIZE => {
                if !(FRAME_SIZE_MIN..=FRAME_SIZE_MAX).contains(&value) {
                    return Err(ConnectionError::protocol("SETTINGS_MAX_FRAME_SIZE out of range"));
                }
                self.max_frame_size = value;
            }
            MAX_HEADER_LIST_SIZE => self.header_list_size = Some(value),
            // Bits beyond those are of versions to come.
            KINSHIP => [.., self.kinship] = value.to_be_bytes(),
            _ => {}
        }
        Ok(())
    }
}

/// Appends our SETTINGS: only what differs from the defaults of RFC 9113 §6.5.2.
pub fn write_settings(out: &mut Vec<u8>, role: Role, limits: &Limits) {
    let settings = [
        (HEADER_TABLE_SIZE, Some(limits.header_table_size).filter(|v| *v != HEADER_TABLE_DEFAULT)),
        (ENABLE_PUSH, (role == Role::Client).then_some(0)),
        (MAX_CONCURRENT_STREAMS, limits.max_concurrent_streams.filter(|_| role == Role::Server)),
        (INITIAL_WINDOW_SIZE, Some(limits.stream_window).filter(|v| *v != INITIAL_WINDOW_DEFAULT)),
        (MAX_FRAME_SIZE, Some(limits.max_frame_size).filter(|v| *v != FRAME_SIZE_MIN)),
        (MAX_HEADER_LIST_SIZE, Some(limits.header_list_size)),
        (KINSHIP, (limits.kinship > 0).then_some(limits.kinship.into())),
    ];
    let count = settings.iter().filter(|(_, value)| value.is_some()).count();
    let len = (count * SETTING_LEN) as u32;
    FrameHeader::new(len, FrameType::Settings, 0, StreamId(0)).write(out);
    for (identifier, value) in settings {
        if let Some(value) = value {
            out.extend_from_slice(&u16::to_be_bytes(identifier));
            out.extend_from_slice(&u32::to_be_bytes(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(identifier: u16, value: u32) -> Vec<u8> {
        [&identifier.to_be_bytes()[..], &value.to_be_bytes()[..]].concat()
    }

    fn apply(payload: &[u8], role: Role) -> Result<PeerSettings, ErrorCode> {
        PeerSettings::default().after(payload, role).map_err(|error| error.code)
    }

    #[test]
    fn takes_the_last_value_and_ignores_unknown_ones() {
        let payload = [
            setting(0x4, 7),
            setting(0x99, 1),
            setting(0x3, 0),
            setting(0x4, 9),
            setting(0x6, 1 << 16),
        ];
        let settings = apply(&payload.concat(), Role::Server).unwrap();
        assert_eq!(settings.initial_window, 9);
        assert_eq!(settings.max_concurrent_streams, Some(0));
        assert_eq!(settings.header_list_size, Some(1 << 16));
        assert_eq!(settings.max_frame_size, 16_384);
    }

    #[test]
    fn bounds_of_section_6_5_2() {
        let server = Role::Server;
        assert_eq!(apply(&setting(0x2, 2), server), Err(ErrorCode::PROTOCOL_ERROR));
        assert!(apply(&setting(0x2, 1), server).is_ok());
        assert_eq!(apply(&setting(0x2, 1), Role::Client), Err(ErrorCode::PROTOCOL_ERROR));
        assert_eq!(apply(&setting(0x4, 1 << 31), server), Err(ErrorCode::FLOW_CONTROL_ERROR));
        assert!(apply(&setting(0x4, (1 << 31) - 1), server).is_ok());
        assert_eq!(apply(&setting(0x5, 16_383), server), Err(ErrorCode::PROTOCOL_ERROR));
        assert_eq!(apply(&setting(0x5, 1 << 24), server), Err(ErrorCode::PROTOCOL_ERROR));
        assert!(apply(&setting(0x5, (1 << 24) - 1), server).is_ok());
        assert_eq!(apply(&[0; 5], server), Err(ErrorCode::FRAME_SIZE_ERROR));
    }

    #[test]
    fn writes_what_differs() {
        let limits = Limits {
            stream_window: 1 << 18,
            header_list_size: 0x1000,
            max_concurrent_streams: Some(250),
            ..Limits::default()
        };
        let mut out = Vec::new();
        write_settings(&mut out, Role::Client, &limits);
        let body = [setting(0x2, 0), setting(0x4, 1 << 18), setting(0x6, 0x1000)].concat();
        assert_eq!(out, [&[0, 0, 18, 4, 0, 0, 0, 0, 0][..], &body].concat());
        out.clear();
        write_settings(&mut out, Role::Server, &limits);
        let body = [setting(0x3, 250), setting(0x4, 1 << 18), setting(0x6, 0x1000)].concat();
        assert_eq!(out, [&[0, 0, 18, 4, 0, 0, 0, 0, 0][..], &body].concat());
    }

    /// Who does not know it has nothing to say.
    #[test]
    fn kin_recognize_each_other() {
        let limits = Limits { kinship: 1, ..Limits::default() };
        let mut out = Vec::new();
        write_settings(&mut out, Role::Server, &limits);
        let settings = apply(&out[9..], Role::Client).unwrap();
        assert_eq!(settings.kinship, 1);
        out.clear();
        write_settings(&mut out, Role::Server, &Limits::default());
        assert_eq!(apply(&out[9..], Role::Client).unwrap().kinship, 0);
        // Promises of a later version are no reason to believe in those that it does not give.
        for (value, known) in [(0x101, 1), (0xffff_ff00, 0), (0x100_0003, 3)] {
            assert_eq!(apply(&setting(KINSHIP, value), Role::Client).unwrap().kinship, known);
        }
    }

    /// RFC 7541 §4.2: a table that shrinks and grows between two blocks owes both sizes.
    #[test]
    fn every_table_size_is_seen_in_order() {
        let payload = [0, 1, 0, 0, 0, 0, 0, 4, 0, 0, 1, 0, 0, 1, 0, 0, 16, 0];
        let sizes: Vec<u32> = PeerSettings::table_sizes(&payload).collect();
        assert_eq!(sizes, [0, 4096]);
    }
}
