//! `loadtest serve`: the app under test as a process.

use super::Ended;
use crate::serve;
use clap::{Arg, ArgMatches, Command, value_parser};
use std::io::Write;
use std::net::{IpAddr, TcpListener};

pub const NAME: &str = "serve";

pub fn grammar() -> Command {
    Command::new(NAME)
        .about("Runs the app under test: an echo of every kind of call, on one thread")
        .long_about(
            "Runs the app under test: an echo of every kind of call, on one thread, plaintext \
             HTTP/2 with prior knowledge. Its address is the one line on stdout.\n\n\
             Methods (loadtest/echo.proto): /loadtest.Echo/Unary, /loadtest.Echo/Collect, \
             /loadtest.Echo/Stream, /loadtest.Echo/PingPong.",
        )
        .arg(
            Arg::new("port")
                .long("port")
                .value_name("PORT")
                .value_parser(value_parser!(u16))
                .default_value("0")
                .help("TCP port; 0: any that is free"),
        )
        .arg(
            Arg::new("address")
                .long("address")
                .value_name("IP")
                .value_parser(value_parser!(IpAddr))
                .default_value("127.0.0.1")
                .help("Address to listen on"),
        )
}

pub fn run(matches: &ArgMatches) -> Ended {
    let port = *matches.get_one::<u16>("port").expect("has a default");
    let address = *matches.get_one::<IpAddr>("address").expect("has a default");
    let listener = TcpListener::bind((address, port))
        .map_err(|error| format!("cannot listen on {address}, port {port}: {error}"))?;
    let bound = listener.local_addr().map_err(|error| format!("has no address: {error}"))?;
    // Whoever started it may not care to read.
    let _ = writeln!(std::io::stdout(), "{bound}");
    serve::serve(listener).map_err(|error| format!("cannot go on at {bound}: {error}"))
}
