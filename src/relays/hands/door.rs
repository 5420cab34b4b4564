//! The listener before a hand: nobody can connect before there is something to say, and no more at a time than are allowed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::relays::board::Board;

/// Connections that the system keeps waiting.
const BACKLOG: u32 = 1024;
/// The wait where somebody else listens, and how often that is said.
const AGAIN: Duration = Duration::from_secs(2);
const SAY: Duration = Duration::from_secs(60);

/// An address that is ours, but that does not listen yet.
pub(super) struct Closed {
    key: &'static str,
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
    pub(super) fn new(key: &'static str, address: SocketAddr, connections_max: u32) -> anyhow::Result<Self> {
        let taken = || format!("{key}.listen {address}: cannot be listened on; is another instance running?");
        let socket = bound(address).with_context(taken)?;
        let address = socket.local_addr().with_context(taken)?;
        Ok(Self { key, socket, address, seats: connections_max as usize })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens once it is known what is in force. Until then a connection is refused, which lets mail through and leaves relays
    /// as they are; one that is taken and not answered would make its client wait.
    ///
    /// An address that nobody listens on can be taken twice, so that two instances which are started together find out only here:
    /// the second says so, and waits for the first to end.
    pub(super) async fn open(self, board: &Board) -> Open {
        let mut changed = board.watch();
        while !board.is_read() {
            if changed.changed().await.is_err() {
                break;
            }
        }
        let (mut listened, mut said) = (self.socket.listen(BACKLOG), None::<Instant>);
        loop {
            match listened {
                Ok(listener) => return Open { listener, seats: Arc::new(Semaphore::new(self.seats)) },
                Err(e) if said.is_none_or(|at| at.elapsed() > SAY) => {
                    said = Some(Instant::now());
                    tracing::error!(
                        "{}.listen {}: another instance of this host listens there, this one does not: {e}. Give it an address \
                         of its own, or none",
                        self.key,
                        self.address
                    );
                }
                Err(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
            listened = bound(self.address).and_then(|socket| socket.listen(BACKLOG));
        }
    }
}

/// A socket that has the address. Without the option a restart would have to wait for connections of before to be forgotten.
fn bound(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_have_an_address_one_listens_and_the_other_when_that_has_ended() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _entered = runtime.enter();
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let first = Closed::new("relays.policy", loopback, 1).unwrap();
        let address = first.address();
        let second = Closed::new("relays.policy", address, 1).unwrap();
        let board = Arc::new(Board::default());
        board.set_read();
        let first = runtime.block_on(first.open(&board));
        assert!(Closed::new("relays.policy", address, 1).is_err(), "somebody listens by now");
        let opening = runtime.spawn(async move { second.open(&board).await });
        let ask = || std::net::TcpStream::connect(address).unwrap();
        let answers = ask();
        runtime.block_on(async {
            let (_, seat) = first.accept().await;
            drop(seat);
        });
        assert!(!opening.is_finished(), "the first has it");
        drop((answers, first));
        let second = runtime.block_on(opening).unwrap();
        assert_eq!(second.listener.local_addr().unwrap(), address);
        ask();
    }
}
