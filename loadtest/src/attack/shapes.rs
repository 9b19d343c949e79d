//! Requests that mean different things to different readers; none may reach the app.

use super::app::State;
use super::line::now;
use super::strike::{Door, Strike, pause};
use super::wire::{self, END_HEADERS, END_STREAM, HEADERS, field};
use crate::serve;
use std::collections::BTreeSet;
use std::time::Duration;

/// What one shape may take to be refused, answered or passed on.
const PATIENCE: Duration = Duration::from_millis(60);
/// What was passed on before it was refused may reach the app after the refusal reached us.
const GRACE: Duration = Duration::from_millis(15);

const PATH: &[u8] = serve::UNARY.as_bytes();
const METHOD_POST: u8 = 0x83;
const SCHEME_HTTP: u8 = 0x86;

fn path(out: &mut Vec<u8>, path: &[u8]) {
    field(out, b":path", path);
}

type Pseudo = fn(&mut Vec<u8>);
type Fields = &'static [(&'static [u8], &'static [u8])];

/// A name, the pseudo-fields, the fields after them.
struct Shape(&'static str, Pseudo, Fields);

fn right(out: &mut Vec<u8>) {
    out.extend_from_slice(&[METHOD_POST, SCHEME_HTTP]);
    path(out, PATH);
}

macro_rules! at_path {
    ($path:expr) => {
        |out| {
            out.extend_from_slice(&[METHOD_POST, SCHEME_HTTP]);
            path(out, $path);
        }
    };
}

const SHAPES: &[Shape] = &[
    Shape("NUL in :path", at_path!(b"/loadtest.Echo/Un\0ary"), &[]),
    Shape("line break in :path", at_path!(b"/loadtest.Echo/Unary\r\nx: y"), &[]),
    Shape("space in :path", at_path!(b"/loadtest.Echo/Unary HTTP/1.1"), &[]),
    Shape(":path without a slash", at_path!(b"loadtest.Echo/Unary"), &[]),
    Shape("empty :path", at_path!(b""), &[]),
    Shape("dots in :path", at_path!(b"/other/../loadtest.Echo/Unary"), &[]),
    Shape("two slashes in :path", at_path!(b"//loadtest.Echo/Unary"), &[]),
    Shape("fragment in :path", at_path!(b"/loadtest.Echo/Unary#x"), &[]),
    Shape("query in :path", at_path!(b"/loadtest.Echo/Unary?x=y"), &[]),
    Shape("no :path", |out| out.extend_from_slice(&[METHOD_POST, SCHEME_HTTP]), &[]),
    Shape(
        "no :method",
        |out| {
            out.push(SCHEME_HTTP);
            path(out, PATH);
        },
        &[],
    ),
    Shape(
        "no :scheme",
        |out| {
            out.push(METHOD_POST);
            path(out, PATH);
        },
        &[],
    ),
    Shape(
        "two :path",
        |out| {
            right(out);
            path(out, b"/other/Method");
        },
        &[],
    ),
    Shape(
        "two :method",
        |out| {
            right(out);
            out.push(METHOD_POST);
        },
        &[],
    ),
    Shape(
        "two :authority",
        |out| {
            right(out);
            field(out, b":authority", b"one");
            field(out, b":authority", b"two");
        },
        &[],
    ),
    Shape(
        "unknown pseudo-field",
        |out| {
            right(out);
            field(out, b":other", b"x");
        },
        &[],
    ),
    Shape(
        ":status in a request",
        |out| {
            right(out);
            field(out, b":status", b"200");
        },
        &[],
    ),
    Shape(
        "pseudo-field after a field",
        |out| {
            out.push(METHOD_POST);
            field(out, b"x-early", b"1");
            out.push(SCHEME_HTTP);
            path(out, PATH);
        },
        &[],
    ),
    Shape("upper case in a name", right, &[(b"X-Upper", b"1")]),
    Shape("space in a name", right, &[(b"x one", b"1")]),
    Shape("colon in a name", right, &[(b"x:one", b"1")]),
    Shape("empty name", right, &[(b"", b"1")]),
    Shape("line break in a value", right, &[(b"x-one", b"1\r\nx-two: 2")]),
    Shape("NUL in a value", right, &[(b"x-one", b"1\x002")]),
    Shape("connection", right, &[(b"connection", b"x-one")]),
    Shape("transfer-encoding", right, &[(b"transfer-encoding", b"chunked")]),
    Shape("upgrade", right, &[(b"upgrade", b"h2c")]),
    Shape("keep-alive", right, &[(b"keep-alive", b"1")]),
    Shape("proxy-connection", right, &[(b"proxy-connection", b"1")]),
    Shape("te: gzip", right, &[(b"te", b"gzip")]),
    Shape("content-length too small", right, &[(b"content-length", b"3")]),
    Shape("content-length too large", right, &[(b"content-length", b"3000")]),
    Shape("two content-lengths", right, &[(b"content-length", b"105"), (b"content-length", b"3")]),
    Shape("content-length with a sign", right, &[(b"content-length", b"+105")]),
];

#[cfg(test)]
pub const COUNT: usize = SHAPES.len();

/// All shapes in turn until the end; the names of those that the app heard.
pub fn send(on: &mut Strike<'_>, app: &State) -> BTreeSet<&'static str> {
    let mut passed = BTreeSet::new();
    let body = serve::message::payload(100);
    for Shape(name, pseudo, fields) in SHAPES.iter().cycle() {
        let Some(mut line) = on.greeted(Door::Api, &[]) else { break };
        let before = app.requests();
        let mut block = Vec::new();
        pseudo(&mut block);
        wire::rest_of_call(&mut block, on.callee);
        for (name, value) in *fields {
            field(&mut block, name, value);
        }
        wire::frame(&mut line.out, HEADERS, END_HEADERS, 1, &block);
        if name.starts_with("two content-lengths") {
            // Without a message: whichever length is believed, it is wrong.
            wire::frame(&mut line.out, wire::DATA, END_STREAM, 1, &[]);
        } else {
            wire::message(&mut line.out, 1, &body);
        }
        line.heard.units += 1;
        let end = now() + PATIENCE;
        while line.outstanding(1) > 0 && now() < end && line.listen(PATIENCE) {}
        pause(GRACE);
        if app.requests() > before {
            passed.insert(*name);
        }
    }
    passed
}
