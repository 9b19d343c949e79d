//! `loadtest relay`: a byte relay in this process.

use super::Ended;
use clap::{Arg, ArgMatches, Command, value_parser};
use std::net::{SocketAddr, TcpListener};

pub fn grammar() -> Command {
    let address = |name: &'static str| {
        Arg::new(name).long(name).value_name("ADDRESS").value_parser(value_parser!(SocketAddr))
    };
    Command::new("relay")
        .about("Pass bytes on from one port to another: the floor of what a hop costs")
        .arg(address("listen").default_value("127.0.0.1:0").help("Where to listen"))
        .arg(address("to").required(true).help("Where every connection goes"))
}

pub fn run(matches: &ArgMatches) -> Ended {
    let (Some(listen), Some(to)) =
        (matches.get_one::<SocketAddr>("listen"), matches.get_one::<SocketAddr>("to"))
    else {
        return Err("--listen and --to are addresses".to_owned());
    };
    crate::topology::raise_open_files();
    let listener =
        TcpListener::bind(listen).map_err(|e| format!("cannot listen on {listen}: {e}"))?;
    let at = listener.local_addr().map_err(|e| format!("the port has no address: {e}"))?;
    println!("listening on {at}");
    Err(crate::relay::run(&listener, *to).to_string())
}
