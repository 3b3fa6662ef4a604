//! Loopback ports that are free now and that nobody takes by chance.
//!
//! They come from below the range the kernel hands to outgoing connections (32768 and up), so that
//! a killed node finds its own port free again when it restarts.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::bail;

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// How far into the range the next port is looked for; 0 until the first call.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// Returns a port that nothing listens on and that was not returned before by this process.
pub(super) fn free_port() -> anyhow::Result<u16> {
    if NEXT.load(Ordering::Relaxed) == 0 {
        // Two harnesses at once start at different places.
        let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or_default();
        let _ = NEXT.compare_exchange(0, start.max(1), Ordering::Relaxed, Ordering::Relaxed);
    }
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!(
        "no free port on 127.0.0.1 between {FIRST} and {}",
        FIRST + COUNT - 1
    );
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_are_free_and_differ() {
        let ports: BTreeSet<u16> = (0..20).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 20);
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, *ports.first().unwrap())).unwrap();
        drop(held);
    }
}
