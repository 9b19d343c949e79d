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

/// Which calls somebody wants to see: those that all of it fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The app ID of caller or callee.
    pub app: Option<String>,
    /// Part of the method's path.
    pub method: Option<String>,
    pub status: Option<u8>,
}

impl Filter {
    /// Could a call to this method fit, before it is known how it ends? `is_of`: is the app its
    /// caller or its callee?
    pub fn may_fit(&self, method: &[u8], is_of: impl Fn(&str) -> bool) -> bool {
        let holds = |text: &String| match std::str::from_utf8(method) {
            Ok(method) => method.contains(text),
            // As it will be shown: that is seen then.
            Err(_) => true,
        };
        self.app.as_ref().is_none_or(|app| is_of(app)) && self.method.as_ref().is_none_or(holds)
    }

    pub fn fits(&self, account: &Account) -> bool {
        let is_of = |app: &String| {
            // A callee may have a namespace behind its ID, a caller an identity before it.
            let callee = account.callee.split('.').next();
            let caller = account.caller.rsplit('/').next().filter(|_| account.has_identity());
            account.callee == *app || callee == Some(app) || caller == Some(app)
        };
        self.app.as_ref().is_none_or(is_of)
            && self.method.as_ref().is_none_or(|text| account.method.contains(text))
            && self.status.is_none_or(|status| status == account.status)
    }
}

/// The beginning of what a call carried each way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub request: Vec<u8>,
    pub response: Vec<u8>,
}

impl Account {
    fn has_identity(&self) -> bool {
        self.caller.starts_with("spiffe://")
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let caller = "spiffe://public/ns/default/client".to_owned();
        let (callee, method) = ("server.prod".to_owned(), "/a.B/C".to_owned());
        let account = Account { status: 5, ..Account::new(Hop::Inbound, caller, callee, method) };
        let of = |app: &str| Filter { app: Some(app.to_owned()), ..Filter::default() };
        assert!(Filter::default().fits(&account));
        for app in ["server", "server.prod", "client"] {
            assert!(of(app).fits(&account), "{app}");
        }
        for app in ["serve", "prod", "default", ""] {
            assert!(!of(app).fits(&account), "{app}");
        }
        let method = |text: &str| Filter { method: Some(text.to_owned()), ..of("server") };
        assert!(method("B/C").fits(&account) && !method("/C/").fits(&account));
        let status = |status| Filter { status: Some(status), ..method("a.B") };
        assert!(status(5).fits(&account) && !status(0).fits(&account));
        let unnamed = Account { caller: "10.0.0.1:5/client".to_owned(), ..account };
        assert!(!of("client").fits(&unnamed), "an address is nobody's name");
    }
}
