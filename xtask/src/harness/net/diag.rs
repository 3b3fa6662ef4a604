//! Which socket of this machine has an address: one question to the kernel over netlink.
//!
//! The list in `/proc/net/tcp` says the same, but takes longer to read than a heartbeat lasts once
//! a few thousand closed connections are in it. The format is that of `linux/inet_diag.h`.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::SocketAddrV4;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
/// The message type of both question and answer.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const AF_INET: u8 = 2;
const IPPROTO_TCP: u8 = 6;
const EVERY_STATE: u32 = u32::MAX;
const NO_COOKIE: [u8; 8] = [0xff; 8];

const HEADER_BYTES: usize = 16;
const QUESTION_BYTES: u32 = 72;
/// Where an answer holds the inode: behind the header, the addresses and five numbers.
const INODE_AT: usize = HEADER_BYTES + 4 + 48 + 4 * 4;
/// The kernel answers at once.
const LIMIT: Duration = Duration::from_secs(1);

/// Returns the inode of the TCP socket that is bound to `local` and connected to `remote`.
pub(super) fn inode(local: SocketAddrV4, remote: SocketAddrV4) -> std::io::Result<u32> {
    let domain = Domain::from(AF_NETLINK);
    let mut socket = Socket::new(domain, Type::DGRAM, Some(Protocol::from(NETLINK_SOCK_DIAG)))?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.write_all(&question(local, remote))?;
    let mut answer = [0; 1_024];
    let length = socket.read(&mut answer)?;
    read(&answer[..length])
}

fn question(local: SocketAddrV4, remote: SocketAddrV4) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(QUESTION_BYTES.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port: there is one question and one who asks.
    bytes.extend([0; 8]);
    bytes.extend([AF_INET, IPPROTO_TCP, 0, 0]);
    bytes.extend(EVERY_STATE.to_ne_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(remote.port().to_be_bytes());
    for host in [local.ip(), remote.ip()] {
        bytes.extend(host.octets());
        bytes.extend([0; 12]);
    }
    // Any interface.
    bytes.extend([0; 4]);
    bytes.extend(NO_COOKIE);
    bytes
}

fn read(answer: &[u8]) -> std::io::Result<u32> {
    let number = |at: usize| {
        let bytes = answer.get(at..at + 4)?;
        bytes.try_into().ok().map(u32::from_ne_bytes)
    };
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok());
    if kind.map(u16::from_ne_bytes) != Some(SOCK_DIAG_BY_FAMILY) {
        return Err(Error::from(ErrorKind::NotFound));
    }
    number(INODE_AT).ok_or_else(|| Error::from(ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    fn v4(address: SocketAddr) -> SocketAddrV4 {
        match address {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(address) => panic!("{address}"),
        }
    }

    #[test]
    fn each_end_of_a_connection_has_its_inode() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        for end in [&client, &server] {
            let found = inode(v4(end.local_addr().unwrap()), v4(end.peer_addr().unwrap()));
            let link = format!("/proc/self/fd/{}", end.as_raw_fd());
            let link = std::fs::read_link(link).unwrap();
            assert_eq!(
                link.to_string_lossy(),
                format!("socket:[{}]", found.unwrap())
            );
        }
    }

    #[test]
    fn a_connection_that_does_not_exist_is_not_found() {
        let nobody = SocketAddrV4::new(Ipv4Addr::new(127, 1, 2, 3), 9);
        assert_eq!(
            inode(nobody, nobody).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
}
