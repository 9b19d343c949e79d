//! What is told of one call: to the log of the API's calls, and to whoever looks on.
//!
//! Of what a caller sent it holds the path and the user agent only, and what the messages held when
//! that was asked for: no token gets in.

use super::cells::Hop;
use std::time::Duration;

/// A call that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub hop: Hop,
    /// It belongs into the log of the API's calls.
    pub logged: bool,
    /// The SPIFFE ID that its certificate showed, else the address.
    pub caller: String,
    /// The app ID that was called, with its namespace where that is not ours.
    pub callee: String,
    pub method: String,
    pub user_agent: Option<String>,
    pub status: u8,
    /// Of DATA, as they came in: messages with their prefixes.
    pub request_octets: u64,
    pub response_octets: u64,
    /// Whom the call went on to last; `None`: nobody.
    pub upstream: Option<String>,
    /// Until a stream to the upstream was opened.
    pub waited: Option<Duration>,
    /// Until the head of the response came.
    pub answered: Option<Duration>,
    pub total: Duration,
    /// The first octets of request and response.
    pub contents: Option<Box<Contents>>,
}

/// The beginning of what a call carried each way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub request: Vec<u8>,
    pub response: Vec<u8>,
}

impl Account {
    /// Of a call that has begun.
    pub fn new(hop: Hop, caller: String, callee: String, method: String) -> Self {
        Self {
            hop,
            logged: false,
            caller,
            callee,
            method,
            user_agent: None,
            status: 0,
            request_octets: 0,
            response_octets: 0,
            upstream: None,
            waited: None,
            answered: None,
            total: Duration::ZERO,
            contents: None,
        }
    }
}
