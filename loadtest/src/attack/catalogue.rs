//! The table of attacks: a name, what is sent, from where, and what does it.
//!
//! An attack is one line here and one function.

use super::app::{self, Act};
use super::hostile::small_calls as calls;
use super::strike::Strike;
use super::{connections, control, data, headers, hostile, resets, tls};

use Way::{App, Caller, Counted, Mesh, Shapes};

pub type Send = fn(&mut Strike<'_>);

/// Where an attack comes from.
#[derive(Clone, Copy)]
pub enum Way {
    /// The API port, by way of which the honest caller calls as well.
    Caller(Send),
    /// The same; behind the other sidecar an app counts what reaches it.
    Counted(Send),
    /// The internal port, by way of which the honest caller's calls come as well.
    Mesh(Send),
    /// The app behind the other sidecar, when it is called.
    App(Act, Send),
    /// Requests of wrong shapes; told is which of them the app heard.
    Shapes,
}

pub struct Attack {
    pub name: &'static str,
    pub sends: &'static str,
    /// Of what the figures are counted, in the plural.
    pub unit: &'static str,
    pub way: Way,
}

const fn attack(name: &'static str, way: Way, unit: &'static str, sends: &'static str) -> Attack {
    Attack { name, sends, unit, way }
}

pub const ATTACKS: &[Attack] = &[
    attack("nothing", Caller(nothing), "frames", "nothing: the control"),
    attack(
        "busy",
        Caller(hostile::small_calls),
        "calls",
        "right calls, 128 in flight: the control under load",
    ),
    // Resets.
    attack(
        "rapid-reset",
        Caller(resets::rapid),
        "calls",
        "HEADERS and RST_STREAM at once (CVE-2023-44487)",
    ),
    attack("rapid-reset-mtls", Mesh(resets::rapid_internal), "calls", "the same inside mTLS"),
    attack(
        "made-you-reset-overflow",
        Caller(resets::made_by_window_overflow),
        "calls",
        "HEADERS and a WINDOW_UPDATE that overflows the stream's window (CVE-2025-8671)",
    ),
    attack(
        "made-you-reset-zero",
        Caller(resets::made_by_window_of_zero),
        "calls",
        "HEADERS and a WINDOW_UPDATE of 0",
    ),
    attack(
        "made-you-reset-priority",
        Caller(resets::made_by_short_priority),
        "calls",
        "HEADERS and a PRIORITY of 4 octets",
    ),
    attack(
        "made-you-reset-dependency",
        Caller(resets::made_by_own_dependency),
        "calls",
        "HEADERS and a PRIORITY on itself",
    ),
    attack(
        "made-you-reset-late-data",
        Caller(resets::made_by_data_after_the_end),
        "calls",
        "DATA after END_STREAM",
    ),
    attack(
        "made-you-reset-length",
        Caller(resets::made_by_wrong_length),
        "calls",
        "a content-length of 100 and no body",
    ),
    attack(
        "vanish",
        Caller(resets::vanish),
        "calls",
        "16 clients with 160 open calls each close their sockets, again and again",
    ),
    // Field blocks.
    attack(
        "continuation",
        Caller(headers::endless_full),
        "frames",
        "CONTINUATION of 16 KiB without end",
    ),
    attack(
        "continuation-empty",
        Caller(headers::endless_empty),
        "frames",
        "empty CONTINUATION without end",
    ),
    attack(
        "continuation-mtls",
        Mesh(headers::endless_internal),
        "frames",
        "CONTINUATION of 16 KiB without end, inside mTLS",
    ),
    attack("large-heads", Counted(headers::large), "calls", "field blocks of 60 KiB"),
    attack("too-large-heads", Caller(headers::too_large), "calls", "field blocks of 2 MiB"),
    attack("many-fields", Caller(headers::many_fields), "calls", "10,000 fields of one octet"),
    attack(
        "hpack-bomb",
        Caller(headers::bomb),
        "calls",
        "16,000 references to an entry of 3.9 KB: 62 MB from 16 KiB",
    ),
    attack(
        "hpack-small-bomb",
        Counted(headers::small_bomb),
        "calls",
        "200 references to it: 780 KB from 0.3 KB, below the limits of size",
    ),
    attack(
        "hpack-held-bomb",
        Counted(headers::held_bomb),
        "calls",
        "the same on 1,000 calls that stay open, windows 0",
    ),
    attack(
        "hpack-amplified",
        Counted(headers::amplified),
        "calls",
        "one reference: 4 KB toward the app from 0.1 KB",
    ),
    attack("huge-integer", Caller(headers::huge_integers), "calls", "an index of 1,000 octets"),
    attack("huge-string", Caller(headers::huge_string), "calls", "a string that says 2^60 octets"),
    attack(
        "table-sizes",
        Caller(headers::table_sizes),
        "calls",
        "4,000 table size updates in a block",
    ),
    attack("empty-blocks", Caller(headers::empty_blocks), "calls", "HEADERS without a field"),
    attack(
        "endless-trailers",
        Caller(headers::trailers_without_end),
        "calls",
        "second HEADERS without END_STREAM",
    ),
    attack(
        "slow-headers",
        Caller(headers::slow),
        "frames",
        "500 connections, each with a block that never ends, an octet each 100 ms",
    ),
    // Control frames.
    attack("pings", Caller(control::pings), "frames", "PING"),
    attack("unread-pings", Caller(control::unread_pings), "frames", "PING, the answers unread"),
    attack("settings", Caller(control::settings), "frames", "empty SETTINGS"),
    attack(
        "settings-acks",
        Caller(control::acknowledgements),
        "frames",
        "SETTINGS with ACK that nobody asked for",
    ),
    attack(
        "settings-windows",
        Caller(control::settings_with_windows),
        "frames",
        "SETTINGS that change the windows of 1,000 waiting streams",
    ),
    attack(
        "settings-tables",
        Caller(control::settings_with_tables),
        "frames",
        "SETTINGS of table sizes 0 and 4 GiB in turn",
    ),
    attack("window-updates", Caller(control::window_updates), "frames", "WINDOW_UPDATE of 1"),
    attack(
        "window-overflow",
        Caller(control::window_overflows),
        "frames",
        "WINDOW_UPDATE that overflows the connection's window",
    ),
    attack(
        "priorities",
        Caller(control::priorities),
        "frames",
        "PRIORITY on streams nobody opened",
    ),
    attack("goaways", Caller(control::goaways), "frames", "GOAWAY"),
    attack("unknown-frames", Caller(control::unknown), "frames", "frames of an unknown type"),
    attack("oversized-frame", Caller(control::oversized), "KiB", "a DATA frame of 16 MiB"),
    attack(
        "wrong-streams",
        Caller(control::wrong_streams),
        "frames",
        "frames on stream 0, on even, idle and lower streams",
    ),
    attack(
        "no-http2",
        Caller(control::no_http2),
        "connections",
        "HTTP/1.1, half a TLS hello, noise",
    ),
    // Messages.
    attack("empty-data", Caller(data::empty), "frames", "empty DATA on one call"),
    attack("one-octet-data", Caller(data::one_octet), "frames", "DATA of one octet on one call"),
    attack("padding", Caller(data::padding), "frames", "DATA of nothing but 255 octets of padding"),
    attack(
        "beyond-windows",
        Caller(data::beyond_windows),
        "frames",
        "DATA whatever the windows say",
    ),
    attack("huge-messages", Caller(data::huge_messages), "calls", "messages that say 4 GiB"),
    attack(
        "large-requests",
        Caller(data::large_requests),
        "KiB",
        "64 messages of 1 MiB in turn, a KiB at a time",
    ),
    attack(
        "endless-calls",
        Caller(data::endless_calls),
        "calls",
        "100,000 calls on a connection that never end",
    ),
    attack(
        "zero-windows",
        Caller(data::zero_windows),
        "calls",
        "1,000 calls for 100 MiB each, windows 0",
    ),
    attack(
        "unread-socket",
        Caller(data::unread_socket),
        "calls",
        "64 calls for 100 MiB each, windows of 2 GiB, nothing read",
    ),
    attack(
        "unread-sockets",
        Caller(data::unread_sockets),
        "calls",
        "the same on 100 connections of 8 calls",
    ),
    attack("slow-data", Caller(data::slow), "frames", "1,000 calls that send an octet each 100 ms"),
    // Connections.
    attack(
        "silent-connections",
        Caller(connections::silent),
        "connections",
        "2,000 connections that say nothing",
    ),
    attack(
        "slow-preface",
        Caller(connections::slow_preface),
        "octets",
        "1,000 connections that say the preface, an octet each 250 ms",
    ),
    attack(
        "idle-connections",
        Caller(connections::idle),
        "connections",
        "5,000 connections that say preface and SETTINGS",
    ),
    attack(
        "connection-churn",
        Caller(connections::churn),
        "connections",
        "connections that come and go",
    ),
    // TLS.
    attack(
        "tls-silent",
        Mesh(tls::silent),
        "connections",
        "1,024 connections to the internal port that say nothing",
    ),
    attack("tls-half-hello", Mesh(tls::half_hello), "connections", "1,024 halves of a ClientHello"),
    attack("tls-stalled", Mesh(tls::stalled), "connections", "1,024 ClientHellos, and no more"),
    attack("tls-hellos", Mesh(tls::hellos), "handshakes", "a ClientHello, and gone at the answer"),
    attack(
        "tls-handshakes",
        Mesh(tls::handshakes),
        "handshakes",
        "whole handshakes with a good certificate, and gone",
    ),
    attack("tls-key-updates", Mesh(tls::key_updates), "records", "KeyUpdate"),
    attack("tls-empty-records", Mesh(tls::empty_records), "records", "records without an octet"),
    attack(
        "tls-one-octet-records",
        Mesh(tls::one_octet_records),
        "records",
        "a call, an octet in each record",
    ),
    attack(
        "tls-broken-records",
        Mesh(tls::broken_records),
        "connections",
        "a record with a wrong tag",
    ),
    // Requests.
    attack(
        "shapes",
        Shapes,
        "calls",
        "requests that readers read differently: 34 shapes, as NUL, dots, doubles, lengths",
    ),
    // The app.
    attack(
        "app-pings",
        App(hostile::pings, calls),
        "calls",
        "the app: 10,000 PINGs before each answer",
    ),
    attack(
        "app-settings",
        App(hostile::settings, calls),
        "calls",
        "the app: 10,000 SETTINGS before each answer",
    ),
    attack(
        "app-window-updates",
        App(hostile::window_updates, calls),
        "calls",
        "the app: 10,000 WINDOW_UPDATEs before each answer",
    ),
    attack(
        "app-goaways",
        App(hostile::goaways, calls),
        "calls",
        "the app: 10,000 GOAWAYs before each answer",
    ),
    attack("app-leaves", App(hostile::leaves, calls), "calls", "the app: GOAWAY after each answer"),
    attack("app-resets", App(hostile::resets, calls), "calls", "the app: RST_STREAM for each call"),
    attack(
        "app-refuses",
        App(hostile::refuses, calls),
        "calls",
        "the app: REFUSED_STREAM for each call",
    ),
    attack(
        "app-endless-head",
        App(hostile::endless_head, calls),
        "calls",
        "the app: CONTINUATION without end",
    ),
    attack(
        "app-endless-hints",
        App(hostile::endless_hints, calls),
        "calls",
        "the app: 103 heads without end",
    ),
    attack(
        "app-beyond-windows",
        App(hostile::beyond_windows, calls),
        "calls",
        "the app: DATA whatever the windows say",
    ),
    attack(
        "app-crumbs",
        App(hostile::crumbs, calls),
        "calls",
        "the app: 10,000 DATA of one octet as an answer",
    ),
    attack(
        "app-empty-data",
        App(hostile::empty_data, calls),
        "calls",
        "the app: empty DATA without end",
    ),
    attack(
        "app-huge-trailers",
        App(hostile::huge_trailers, calls),
        "calls",
        "the app: trailers of 2 MiB",
    ),
    attack(
        "app-small-bomb",
        App(hostile::small_bomb, calls),
        "calls",
        "the app: heads of 780 KB from 4 KB",
    ),
    attack("app-silent", App(hostile::silent, calls), "calls", "the app: no answers"),
    attack(
        "app-deaf",
        App(hostile::deaf, hostile::large_calls),
        "calls",
        "the app: reads nothing of 128 requests of 60 KiB",
    ),
    attack(
        "app-closes-up",
        App(hostile::closes_up, calls),
        "calls",
        "the app: 0 streams welcome, and REFUSED_STREAM",
    ),
    attack(
        "app-hangs-up",
        App(hostile::hangs_up, calls),
        "calls",
        "the app: closes its connection at each request",
    ),
    attack("app-no-http2", App(hostile::no_http2, calls), "calls", "the app: answers HTTP/1.1"),
];

pub fn named(name: &str) -> Option<&'static Attack> {
    ATTACKS.iter().find(|attack| attack.name == name)
}

impl Way {
    /// What the app behind the other sidecar does, where it is the attack's own.
    pub fn act(self) -> Option<Act> {
        match self {
            Caller(_) | Mesh(_) => None,
            Counted(_) | Shapes => Some(app::polite),
            App(act, _) => Some(act),
        }
    }
}

fn nothing(on: &mut Strike<'_>) {
    on.hold(&mut [], std::time::Duration::from_millis(100), |_, _| ());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_find_their_attacks() {
        let names: BTreeSet<&str> = ATTACKS.iter().map(|attack| attack.name).collect();
        assert_eq!(names.len(), ATTACKS.len());
        assert!(ATTACKS.iter().all(|attack| named(attack.name).is_some()));
        assert!(named("kindness").is_none());
    }

    #[test]
    fn the_table_tells_how_many_shapes_there_are() {
        let shapes = named("shapes").unwrap();
        assert!(shapes.sends.contains(&format!("{} shapes", super::super::shapes::COUNT)));
    }
}
