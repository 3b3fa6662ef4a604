//! Addresses as operators write them, and the one that others are told.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use clusterkit_core::config::ConfigError;
use clusterkit_http::net::Network;

/// `host:port`; an empty host stands for every interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl HostPort {
    /// Parses `text`, the value of `field`.
    pub(crate) fn parse(field: &str, text: &str) -> Result<Self, ConfigError> {
        let refused = || ConfigError::new(field, text, "host:port, or :port for every interface");
        let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
        let port = port.parse().map_err(|_| refused())?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or_else(refused)?,
            None if host.contains(':') => return Err(refused()),
            None => host,
        };
        if host
            .bytes()
            .any(|byte| byte.is_ascii_whitespace() || byte == b'/')
        {
            return Err(refused());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }

    /// Tells whether it names one host: neither every interface nor port 0.
    pub(crate) fn is_reachable(&self) -> bool {
        !self.is_wildcard() && self.port != 0
    }

    fn is_wildcard(&self) -> bool {
        self.host.is_empty()
            || self
                .host
                .parse()
                .is_ok_and(|ip: IpAddr| ip.is_unspecified())
    }

    fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }

    /// Returns the address with the loopback in the place of "every interface".
    pub(crate) fn or_loopback(self) -> Self {
        if self.is_wildcard() {
            Self {
                host: Ipv4Addr::LOCALHOST.to_string(),
                port: self.port,
            }
        } else {
            self
        }
    }
}

/// Tells whether the node listening on `listen` is the first of `seeds`.
pub(crate) fn is_first(seeds: &[HostPort], listen: &HostPort, network: &dyn Network) -> bool {
    seeds.first().is_some_and(|seed| {
        seed.port == listen.port
            && (seed.host == listen.host || (listen.is_wildcard() && network.is_own(&seed.host)))
    })
}

/// Returns the address to tell others for a node bound to `listen`.
///
/// Every interface is told as the loopback when all seeds are on it, and as the interface that
/// leads to the first seed otherwise. Without seeds it is the interface that leads outside.
pub(crate) fn advertised(listen: &HostPort, seeds: &[HostPort], network: &dyn Network) -> HostPort {
    if !listen.is_wildcard() {
        return listen.clone();
    }
    let local = !seeds.is_empty() && seeds.iter().all(HostPort::is_loopback);
    // The address without a seed is one reserved for documentation (RFC 5737), so the default route
    // answers for it.
    let (host, port) = seeds
        .first()
        .map_or(("192.0.2.1", 9), |seed| (seed.host.as_str(), seed.port));
    let routed = if local {
        None
    } else {
        network.address_toward(host, port)
    };
    let ip = routed.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    HostPort {
        host: ip.to_string(),
        port: listen.port,
    }
}

#[cfg(test)]
mod tests {
    use clusterkit_http::net::TcpNetwork;

    use super::*;

    fn parse(text: &str) -> HostPort {
        HostPort::parse("field", text).unwrap()
    }

    fn advertised(listen: &HostPort, seeds: &[HostPort]) -> HostPort {
        super::advertised(listen, seeds, &TcpNetwork::default())
    }

    fn is_first(seeds: &[HostPort], listen: &HostPort) -> bool {
        super::is_first(seeds, listen, &TcpNetwork::default())
    }

    #[test]
    fn addresses_are_host_and_port() {
        assert_eq!(parse("[::1]:80").to_string(), "[::1]:80");
        assert_eq!(parse(":80").host, "");
        for bad in [
            "",
            "host",
            "host:",
            "host:70000",
            "::1:80",
            "http://a:1",
            "a b:1",
        ] {
            assert!(HostPort::parse("field", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bare_port_is_told_as_loopback_only_among_loopback_seeds() {
        let seeds = [parse("127.0.0.1:1"), parse("localhost:2")];
        assert_eq!(
            advertised(&parse(":80"), &seeds).to_string(),
            "127.0.0.1:80"
        );
        assert_eq!(
            advertised(&parse("10.1.2.3:80"), &seeds).to_string(),
            "10.1.2.3:80"
        );
    }

    #[test]
    fn the_first_seed_is_recognised_as_oneself() {
        let seeds = [parse("127.0.0.1:80"), parse("127.0.0.1:81")];
        assert!(is_first(&seeds, &parse("127.0.0.1:80")));
        assert!(is_first(&seeds, &parse(":80")));
        assert!(!is_first(&seeds, &parse("127.0.0.1:81")));
    }
}
