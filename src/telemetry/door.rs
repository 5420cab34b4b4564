//! The listener behind the HTTP answers: so many connections at a time, and none that waits for ever.
//!
//! `axum::serve` sets neither bound. A connection that comes when all seats are taken waits in the system's backlog.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// A listener with a number of seats.
#[derive(Debug)]
pub(super) struct Door {
    listener: TcpListener,
    seats: Arc<Semaphore>,
    patience: Duration,
}

impl Door {
    /// At most `seats` connections at a time; a request and a response may take `patience` each.
    pub(super) fn new(listener: TcpListener, seats: usize, patience: Duration) -> Self {
        Self { listener, seats: Arc::new(Semaphore::new(seats)), patience }
    }
}

impl Listener for Door {
    type Io = Guest;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guest, SocketAddr) {
        // Nobody closes the semaphore; if it were closed there would be no bound, rather than no service.
        let seat = Arc::clone(&self.seats).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let turn = Turn { writes: false, ends: Box::pin(tokio::time::sleep(self.patience)), patience: self.patience };
        (Guest { stream, turn, _seat: seat }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection on its seat.
#[derive(Debug)]
pub(super) struct Guest {
    stream: TcpStream,
    turn: Turn,
    _seat: Option<OwnedSemaphorePermit>,
}

/// Whose turn it is, and until when. Bytes alone gain no time, or a client that sends one now and then would stay for ever: only
/// a whole request is answered, and only then does the turn change.
#[derive(Debug)]
struct Turn {
    writes: bool,
    ends: Pin<Box<Sleep>>,
    patience: Duration,
}

impl Turn {
    fn change(&mut self, writes: bool) {
        if self.writes != writes {
            self.writes = writes;
            self.ends.as_mut().reset(Instant::now() + self.patience);
        }
    }

    /// Fails when it is over; wakes the caller then otherwise.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.ends.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Guest {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() && buf.filled().len() > before {
            self.turn.change(false);
        }
        self.turn.check(cx)?;
        read
    }
}

impl AsyncWrite for Guest {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.turn.change(true);
        self.turn.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.turn.change(true);
        self.turn.check(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net;
    use std::time;

    use axum::Router;
    use axum::routing::get;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(400);

    /// Serves "here" through a door with two seats, for as long as the runtime lives.
    fn open() -> (tokio::runtime::Runtime, SocketAddr) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            let door = Door::new(TcpListener::from_std(listener).unwrap(), 2, PATIENCE);
            axum::serve(door, Router::new().route("/", get(|| async { "here" }))).await
        });
        (runtime, address)
    }

    fn connect(address: SocketAddr) -> net::TcpStream {
        let stream = net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    #[test]
    fn a_client_that_only_dribbles_loses_its_seat() {
        let (_runtime, address) = open();
        let begun = time::Instant::now();
        let mut slow = connect(address);
        let mut reader = slow.try_clone().unwrap();
        // Each byte comes well within the patience.
        std::thread::spawn(move || {
            for byte in b"GET / HTTP/1.1\r\nHost: h\r\nX: ".iter().chain(std::iter::repeat_n(&b'x', 200)) {
                std::thread::sleep(PATIENCE / 8);
                if slow.write_all(&[*byte]).is_err() {
                    return;
                }
            }
        });
        let mut got = Vec::new();
        // Closed or reset, but without an answer.
        let _ = reader.read_to_end(&mut got);
        assert!(begun.elapsed() >= PATIENCE && begun.elapsed() < PATIENCE * 20, "{:?}", begun.elapsed());
        assert!(!String::from_utf8_lossy(&got).contains("200 OK"));
    }

    #[test]
    fn a_guest_waits_for_a_seat_and_gets_it() {
        let (_runtime, address) = open();
        let silent = [connect(address), connect(address)];
        std::thread::sleep(PATIENCE / 4);
        let begun = time::Instant::now();
        let mut third = connect(address);
        third.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        let mut got = String::new();
        third.read_to_string(&mut got).unwrap();
        assert!(got.starts_with("HTTP/1.1 200 OK") && got.ends_with("here"), "{got}");
        // Not before one of the silent ones had to go.
        assert!(begun.elapsed() >= PATIENCE / 2, "{:?}", begun.elapsed());
        drop(silent);
    }

    #[test]
    fn a_connection_may_ask_again_and_again() {
        let (_runtime, address) = open();
        let mut stream = connect(address);
        for _ in 0..6 {
            std::thread::sleep(PATIENCE / 3);
            stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            let mut got = Vec::new();
            while !got.ends_with(b"here") {
                let mut some = [0; 512];
                let n = stream.read(&mut some).unwrap();
                assert!(n > 0, "closed after {}", String::from_utf8_lossy(&got));
                got.extend_from_slice(&some[..n]);
            }
        }
    }
}
