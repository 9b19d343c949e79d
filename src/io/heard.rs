//! Calls that are over, on their way to whoever asked to hear of them.
//!
//! The log's queue is bounded, and counts what it drops: nothing here waits.

use crate::observe::account::{Account, Contents};
use crate::observe::cells::Hop;

/// Scopes; the first one is daprd's.
const API_CALLS: &str = "dapr.runtime.grpc.api-info";
const CONTENTS: &str = "ringside.contents";

/// The lines that the log shall have of a call.
#[cold]
pub(super) fn log(account: &Account) {
    let (method, code) = (account.method.as_str(), u64::from(account.status));
    let duration = u64::try_from(account.total.as_millis()).unwrap_or(u64::MAX);
    if account.logged {
        let useragent = account.user_agent.as_deref();
        tracing::info!(scope = API_CALLS, method, code, duration, useragent, "gRPC API Called");
    }
    if let Some(contents) = &account.contents {
        let Contents { request, response } = &**contents;
        tracing::info!(
            scope = CONTENTS,
            method,
            code,
            duration,
            hop = match account.hop {
                Hop::Outbound => "outbound",
                Hop::Inbound => "inbound",
            },
            request = %request.escape_ascii(),
            request_octets = account.request_octets,
            response = %response.escape_ascii(),
            response_octets = account.response_octets,
            "Contents of a call"
        );
    }
}
