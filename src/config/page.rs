//! The web page: where it is served, and who may see it.

use super::Environment;
use super::flags::OwnFlags;
use super::go;
use std::net::IpAddr;

/// `--ringside-page-port`, `--ringside-page-address`, `RINGSIDE_PAGE_TOKEN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub address: IpAddr,
    pub port: u16,
    /// Asked for, when there is one; always there beyond loopback.
    pub token: Option<String>,
}

impl Page {
    /// `None`: there is no page. Anybody who reaches it would see whom this app talks to, so it is
    /// never open beyond loopback.
    pub fn new(flags: &OwnFlags, env: &Environment) -> Result<Option<Self>, String> {
        if flags.page_port.is_empty() {
            return Ok(None);
        }
        let port = go::atoi(&flags.page_port).ok().and_then(|port| u16::try_from(port).ok());
        let Some(port) = port else {
            let text = &flags.page_port;
            return Err(format!("invalid value for 'ringside-page-port': {text:?} is no port"));
        };
        let given = &flags.page_address;
        let address: IpAddr = given.parse().map_err(|_| {
            format!("invalid value for 'ringside-page-address': {given:?} is no IP address")
        })?;
        let token = env.filled("RINGSIDE_PAGE_TOKEN").map(str::to_owned);
        if !address.is_loopback() && token.is_none() {
            return Err(format!(
                "'ringside-page-address' {address} is open to others: set RINGSIDE_PAGE_TOKEN to a \
                 secret that viewers must know, or keep to 127.0.0.1"
            ));
        }
        Ok(Some(Self { address, port, token }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(port: &str, address: &str, token: &str) -> Result<Option<Page>, String> {
        let flags = OwnFlags {
            page_port: port.into(),
            page_address: address.into(),
            ..OwnFlags::default()
        };
        let env: Environment = [("RINGSIDE_PAGE_TOKEN", token)].into_iter().collect();
        Page::new(&flags, &env)
    }

    #[test]
    fn off_by_default() {
        assert_eq!(page("", "127.0.0.1", ""), Ok(None));
        assert_eq!(Page::new(&OwnFlags::default(), &Environment::default()), Ok(None));
    }

    #[test]
    fn never_open_to_others_without_a_token() {
        let refusal = page("8080", "0.0.0.0", "").unwrap_err();
        assert!(refusal.contains("RINGSIDE_PAGE_TOKEN"), "{refusal}");
        assert!(page("8080", "::", "").is_err());
        for address in ["127.0.0.1", "127.9.9.9", "::1"] {
            assert!(page("8080", address, "").unwrap().is_some(), "{address}");
        }
        let told = page("8080", "0.0.0.0", "secret").unwrap().unwrap();
        assert_eq!((told.port, told.token.as_deref()), (8080, Some("secret")));
    }

    #[test]
    fn refusals_name_the_flag() {
        for port in ["x", "70000", "-1"] {
            let told = page(port, "127.0.0.1", "").unwrap_err();
            assert!(told.contains("ringside-page-port") && told.contains(port), "{told}");
        }
        let told = page("1", "localhost", "").unwrap_err();
        assert!(told.contains("ringside-page-address"), "{told}");
    }
}
