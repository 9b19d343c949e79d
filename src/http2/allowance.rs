//! What a peer may have of each [`Limit`]: for somebody who wants to know, never on the way of a
//! frame.

use super::abuse::ERRORS_BURST;
use super::connection::{SETTLE_TIMEOUT, UNENDED_TIMEOUT};
use super::{Limit, Limits};
use std::time::Duration;

/// How much of it a peer may have, and of what that is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// Of these at the same time, on a connection.
    Streams(u32),
    /// Of these in one field block.
    Frames(u32),
    /// Decoded octets of one field section.
    SectionOctets(u32),
    /// Octets of a connection that wait to be written.
    WaitingOctets(u32),
    /// At once on a connection, and so many more in each second.
    Burst(u32, u32),
    Time(Duration),
}

impl Limits {
    /// Of a connection with these limits.
    pub fn allowance(&self, limit: Limit) -> Allowance {
        match limit {
            Limit::RapidResets => Allowance::Burst(self.resets_burst, self.resets_per_second),
            Limit::Cancels | Limit::LateResets => {
                Allowance::Burst(self.cancels_burst, self.cancels_per_second)
            }
            Limit::StreamErrors => Allowance::Burst(ERRORS_BURST, self.resets_per_second),
            Limit::Pings
            | Limit::Settings
            | Limit::Priorities
            | Limit::Goaways
            | Limit::WindowUpdates
            | Limit::UnknownFrames
            | Limit::EmptyData
            | Limit::TinyData
            | Limit::InformationalHeads
            | Limit::RefusedStreams => {
                Allowance::Burst(self.control_burst, self.control_per_second)
            }
            Limit::Continuations => Allowance::Frames(self.continuations_max),
            Limit::SlowHeaders => Allowance::Time(UNENDED_TIMEOUT),
            Limit::SlowPreface => Allowance::Time(SETTLE_TIMEOUT),
            Limit::FieldSection => Allowance::SectionOctets(self.header_list_size),
            Limit::Streams => {
                Allowance::Streams(self.max_concurrent_streams.unwrap_or(self.streams_max))
            }
            Limit::UnreadAnswers => Allowance::WaitingOctets(self.control_bytes_max),
        }
    }
}
