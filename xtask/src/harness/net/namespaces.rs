//! A network namespace per node, all on one bridge; what is cut goes to a hardware address that
//! nobody has.
//!
//! That needs neither a packet filter nor a queueing discipline: a fixed neighbour entry in the
//! sender's namespace sends what is meant for one receiver nowhere, one way and without a trace, as
//! a broken link does. Names carry our process id; what a killed process left is removed by the
//! next one.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, bail};

use super::Place;

/// What every name of ours begins with.
const PREFIX: &str = "ck";
/// Reserved for tests of network devices (RFC 2544): nobody's addresses. A third byte follows.
const SUBNET: &str = "198.18";
/// A hardware address that no node has.
const NOWHERE: &str = "02:00:00:00:00:fe";
const INTERFACE: &str = "eth0";

/// Numbers the networks of this process.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A bridge, and the namespaces on it. Dropping it removes all.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// What the names of this network begin with.
    name: String,
    third: u8,
    /// Each namespace, and the link that leads into it.
    made: Vec<(String, String)>,
}

impl Namespaces {
    /// Makes the bridge and gives this process an address on it.
    pub(super) fn new() -> anyhow::Result<Self> {
        remove_what_is_left();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{:x}n{number:x}", std::process::id());
        let network = Self {
            third: free_subnet()?,
            name,
            made: Vec::new(),
        };
        let (bridge, address) = (network.bridge(), network.address(254));
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("{address}/24"), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        Ok(network)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.name)
    }

    fn address(&self, last: u8) -> String {
        format!("{SUBNET}.{}.{last}", self.third)
    }

    pub(super) fn add(&mut self, number: u8) -> anyhow::Result<Place> {
        if number > 253 {
            bail!("at most 253 nodes fit on the network");
        }
        let namespace = format!("{}-{number}", self.name);
        let link = format!("{}v{number:x}", self.name);
        let host = self.address(number);
        let address = format!("{host}/24");
        ip(&["netns", "add", &namespace])?;
        self.made.push((namespace.clone(), link.clone()));
        ip(&[
            "link", "add", &link, "type", "veth", "peer", "name", INTERFACE, "netns", &namespace,
        ])?;
        ip(&["link", "set", &link, "master", &self.bridge(), "up"])?;
        ip(&["-n", &namespace, "addr", "add", &address, "dev", INTERFACE])?;
        ip(&["-n", &namespace, "link", "set", INTERFACE, "up"])?;
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        Ok(Place {
            listen: host.clone(),
            host,
            namespace: Some(namespace),
        })
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // Links of their own accord end only with the last socket of the namespace, a minute later.
        for (namespace, link) in &self.made {
            let _ = ip(&["link", "del", link]);
            let _ = ip(&["netns", "del", namespace]);
        }
        let _ = ip(&["link", "del", &self.bridge()]);
    }
}

/// Sends what `source` has for `target` nowhere.
pub(super) fn cut(source: &Place, target: &Place) -> anyhow::Result<()> {
    let namespace = source.namespace.as_deref().unwrap_or_default();
    ip(&[
        "-n",
        namespace,
        "neigh",
        "replace",
        &target.host,
        "lladdr",
        NOWHERE,
        "dev",
        INTERFACE,
        "nud",
        "permanent",
    ])
}

/// Undoes every cut between `places`.
pub(super) fn heal(places: &[&Place]) -> anyhow::Result<()> {
    for place in places {
        let namespace = place.namespace.as_deref().unwrap_or_default();
        ip(&[
            "-n",
            namespace,
            "neigh",
            "flush",
            "dev",
            INTERFACE,
            "nud",
            "permanent",
        ])?;
    }
    Ok(())
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    output(args).map(drop)
}

fn output(args: &[&str]) -> anyhow::Result<String> {
    let done = Command::new("ip").args(args).output();
    let done = done.context("cannot run `ip`")?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("`ip {}`: {}", args.join(" "), said.trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Returns the third byte of a subnet that no interface of this machine is in.
fn free_subnet() -> anyhow::Result<u8> {
    let taken = output(&["-4", "-o", "addr"])?;
    let first = u8::try_from(std::process::id() % 256).unwrap_or_default();
    let mut thirds = (0..=255_u8).map(|offset| first.wrapping_add(offset));
    thirds
        .find(|third| !taken.contains(&format!(" {SUBNET}.{third}.")))
        .with_context(|| format!("every subnet of {SUBNET}.0.0/16 is taken"))
}

/// Removes what processes of ours left that were killed.
fn remove_what_is_left() {
    for line in output(&["netns", "list"]).unwrap_or_default().lines() {
        let name = line.split(' ').next().unwrap_or_default();
        if is_left(name) {
            let _ = ip(&["netns", "del", name]);
        }
    }
    for line in output(&["-o", "link"]).unwrap_or_default().lines() {
        let name = line.split([' ', '@']).nth(1).unwrap_or_default();
        let name = name.trim_end_matches(':');
        if is_left(name) {
            let _ = ip(&["link", "del", name]);
        }
    }
}

/// Tells whether `name` is one of ours whose process is gone.
fn is_left(name: &str) -> bool {
    let owner = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('n'))
        .and_then(|(pid, _)| u32::from_str_radix(pid, 16).ok());
    owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_dead_processes_left_is_removed() {
        let own = format!("{PREFIX}{:x}n0-1", std::process::id());
        assert!(!is_left(&own));
        // Beyond the largest process id of Linux.
        assert!(is_left("ck7fffffffn0-1"));
        for stranger in ["eth0", "lo", "docker0", "ckn1", "ckxyzn1"] {
            assert!(!is_left(stranger), "{stranger}");
        }
    }

    #[test]
    fn names_fit_into_an_interface_name() {
        let longest = format!("{PREFIX}{:x}n{:x}v{:x}", 4_194_304, 255, 253);
        assert!(longest.len() <= 15, "{longest}");
    }

    #[test]
    fn a_dropped_network_is_gone() {
        // Where namespaces cannot be made, the reason must be told.
        let mut network = match Namespaces::new() {
            Ok(network) => network,
            Err(error) => return assert!(format!("{error:#}").contains("ip"), "{error:#}"),
        };
        let place = network.add(1).unwrap();
        let namespace = place.namespace.unwrap();
        let (bridge, link) = (network.bridge(), format!("{}v1", network.name));
        let there = |what: &[&str], name: &str| output(what).unwrap().contains(name);
        assert!(there(&["netns", "list"], &namespace));
        assert!(there(&["-o", "link"], &bridge) && there(&["-o", "link"], &link));
        drop(network);
        assert!(!there(&["netns", "list"], &namespace));
        assert!(!there(&["-o", "link"], &bridge));
        assert!(!there(&["-o", "link"], &link));
    }
}
