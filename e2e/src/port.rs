//! Ports that stay with whom they were given to, also while nobody listens at them.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use tokio::net::TcpSocket;

/// A port at 127.0.0.1 for a program that is told its number, and that may end and come back to it.
///
/// A port that was found free and let go is anybody's: of the hundreds of connections that tests running beside open meanwhile, one may
/// get it. This one is held by a socket that is bound and does not listen. Linux then gives it to nobody who asks for any port, and lets
/// whoever names it listen there, since both say `SO_REUSEADDR`, as servers do.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _held: TcpSocket,
}

impl Port {
    /// A port that nobody else has until this value is dropped.
    pub fn hold() -> Result<Self> {
        let socket = TcpSocket::new_v4().context("opening a socket")?;
        socket.set_reuseaddr(true).context("sharing a port")?;
        // At every address: a program that is told this port may listen at another than this machine's own.
        socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).context("holding a port")?;
        let port = socket.local_addr().context("holding a port")?.port();
        Ok(Self { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), _held: socket })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn number(&self) -> u16 {
        self.address.port()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_port_that_is_held_is_given_to_nobody_who_asks_for_any() {
        let held: Vec<Port> = (0..300).map(|_| Port::hold().unwrap()).collect();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let others: Vec<(TcpListener, TcpStream, TcpStream)> = (0..200)
            .map(|_| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let connection = TcpStream::connect(server.local_addr().unwrap()).unwrap();
                // What is not taken stands in a queue that is soon full.
                (listener, connection, server.accept().unwrap().0)
            })
            .collect();
        for port in &held {
            for (listener, connection, _) in &others {
                assert_ne!(listener.local_addr().unwrap().port(), port.number());
                assert_ne!(connection.local_addr().unwrap().port(), port.number());
            }
        }
    }

    #[test]
    fn whoever_is_told_it_listens_there_again_and_again() {
        let port = Port::hold().unwrap();
        for _ in 0..3 {
            let server = TcpListener::bind(port.address()).unwrap();
            let client = TcpStream::connect(port.address()).unwrap();
            drop((server, client));
        }
    }
}
