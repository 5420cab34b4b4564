//! The listener before a hand: nobody can connect before there is something to say, and no more at a time than are allowed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::relays::board::Board;

/// Connections that the system keeps waiting.
const BACKLOG: u32 = 1024;

/// An address that is ours, but that does not listen yet.
pub(super) struct Closed {
    socket: TcpSocket,
    address: SocketAddr,
    seats: usize,
}

/// One that listens.
pub(super) struct Open {
    listener: TcpListener,
    seats: Arc<Semaphore>,
}

impl Closed {
    /// Takes the address.
    pub(super) fn new(key: &str, address: SocketAddr, connections_max: u32) -> anyhow::Result<Self> {
        let taken = || format!("{key}.listen {address}: cannot be listened on; is another instance running?");
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.with_context(taken)?;
        socket.set_reuseaddr(true).and_then(|()| socket.bind(address)).with_context(taken)?;
        let address = socket.local_addr().with_context(taken)?;
        Ok(Self { socket, address, seats: connections_max as usize })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens once it is known what is in force. Until then a connection is refused, which lets mail through and leaves relays
    /// as they are; one that is taken and not answered would make its client wait.
    pub(super) async fn open(self, board: &Board) -> std::io::Result<Open> {
        let mut changed = board.watch();
        while !board.is_read() {
            if changed.changed().await.is_err() {
                break;
            }
        }
        let listener = self.socket.listen(BACKLOG)?;
        Ok(Open { listener, seats: Arc::new(Semaphore::new(self.seats)) })
    }
}

impl Open {
    /// The next connection, on a seat. One that finds none is closed at once: its client then does what it does without us.
    pub(super) async fn accept(&self) -> (TcpStream, OwnedSemaphorePermit) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if let Ok(seat) = Arc::clone(&self.seats).try_acquire_owned() {
                        // Small answers, each awaited: none may wait for the one before to be acknowledged.
                        let _ = stream.set_nodelay(true);
                        return (stream, seat);
                    }
                }
                // Most likely out of file descriptors, which passes.
                Err(e) => {
                    tracing::warn!("a connection was not taken: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}
