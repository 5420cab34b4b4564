//! A connection that a server cannot abuse: it reads no more than a bound, and before TLS nothing in advance.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that a server may say in an attempt, certificates included.
const READ_BYTES_MAX: usize = 1 << 20;
/// The first byte of a TLS handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// See the module.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    peer: SocketAddr,
    left: usize,
    /// Whether to read byte by byte, until we begin a TLS handshake: what somebody on the way sends behind the answer to
    /// STARTTLS would otherwise lie in a buffer, and be taken for an answer that TLS protects (CVE-2011-0411).
    by_byte: bool,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, peer: SocketAddr, until_tls: bool) -> Self {
        Self { stream, peer, left: READ_BYTES_MAX, by_byte: until_tls }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other("the server says too much")));
        }
        let before = buf.filled().len();
        if self.by_byte && buf.remaining() > 0 {
            let mut byte = [0];
            let mut one = ReadBuf::new(&mut byte);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut one))?;
            buf.put_slice(one.filled());
        } else {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        }
        self.left = self.left.saturating_sub(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.first() == Some(&HANDSHAKE) {
            self.by_byte = false;
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug> AsyncTokioStream for Guarded<S> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}
