//! A connection of this process to itself, and known bytes through it: what the witness tries itself on.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
};

/// Both ends: the one that connected, and the one that was accepted.
pub(super) fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    Ok((near, far))
}

/// Sends so many bytes from one end, and takes them at the other. They must fit into the sockets' buffers.
pub(super) fn pass(from: &mut TcpStream, to: &mut TcpStream, bytes: usize) -> io::Result<()> {
    let mut buffer = vec![0x5a; bytes];
    from.write_all(&buffer)?;
    to.read_exact(&mut buffer)
}
