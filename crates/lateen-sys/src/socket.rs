//! Sockets: original destinations, marks, and handing descriptors to another process.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use socket2::SockRef;

/// The packet mark (and, in Kubernetes, the user id) by which a pod's redirect rules recognise
/// traffic of the proxy itself and let it pass. The number is Istio's.
pub const PROXY_MARK: u32 = 1337;

/// Most descriptors that [`receive_with_descriptors`] accepts with one message.
const MOST_DESCRIPTORS: usize = 16;

/// Where the client of a redirected TCP connection wanted to go, before netfilter's REDIRECT
/// (`SO_ORIGINAL_DST`, `IP6T_SO_ORIGINAL_DST`).
///
/// Works for IPv4, IPv6, and IPv4 clients of a dual-stack listener (the answer is then IPv4).
///
/// # Errors
/// A connection that was not redirected gives either `NotFound` (no connection tracking entry)
/// or, where the kernel tracks it, its own local address: a caller compares the answer with the
/// listener's address to tell the two apart.
pub fn original_dst<S: AsFd>(socket: &S) -> io::Result<SocketAddr> {
    let socket = SockRef::from(socket);
    let local = socket.local_addr()?.as_socket();
    let plain_v6 = match local.map(|address| address.ip()) {
        Some(IpAddr::V6(ip)) => ip.to_ipv4_mapped().is_none(),
        _ => false,
    };
    let answer = if plain_v6 {
        socket.original_dst_v6()
    } else {
        socket.original_dst_v4()
    }?;
    answer
        .as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no internet address"))
}

/// Marks a socket of the proxy with [`PROXY_MARK`], so that the pod's redirect rules do not catch
/// the proxy's own connections. Call it before `connect` (and on listeners whose accepted sockets
/// answer on the pod's behalf it is not needed: replies follow their connection).
///
/// The rules that `lateen init` installs (see `lateen_node::redirect`) let a packet pass when
/// **either** its mark is 1337 **or** its sender's user or group id is 1337. On Kubernetes the
/// proxy runs as user 1337 and needs no mark. In a rootless mesh only one user id may exist, so
/// the proxy keeps `CAP_NET_ADMIN` in its pod and marks its sockets instead.
///
/// # Returns
/// `true` when the socket is marked, `false` when the process may not set marks (then the user id
/// must be 1337).
///
/// # Errors
/// Any failure other than a missing capability.
pub fn mark_own_socket<S: AsFd>(socket: &S) -> io::Result<bool> {
    match SockRef::from(socket).set_mark(PROXY_MARK) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(error),
    }
}

/// Two connected Unix sockets that keep message boundaries (`SOCK_SEQPACKET`), close-on-exec.
///
/// # Errors
/// When the process is out of descriptors.
pub fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// Sends one message together with descriptors (at most 16) over a Unix socket.
///
/// # Errors
/// `BrokenPipe` when the other side is gone (no signal is raised), `WouldBlock` when the socket
/// does not block and is full, `InvalidInput` for too many descriptors.
pub fn send_with_descriptors(
    socket: BorrowedFd<'_>,
    message: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if descriptors.len() > MOST_DESCRIPTORS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors",
        ));
    }
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(message)],
        control,
        flags,
        None,
    )?;
    Ok(())
}

/// Receives one message and the descriptors that came with it; they are close-on-exec.
///
/// Returns the length of the message within `buffer`; 0 means that the other side closed.
///
/// # Errors
/// `InvalidData` when the message is longer than `buffer` or carries more than 16 descriptors;
/// otherwise what `recvmsg` says.
pub fn receive_with_descriptors(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; MOST_DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let mut descriptors = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            for fd in raw {
                // SAFETY: the kernel has just installed this descriptor into our table for this
                // message, so it is open and nobody else owns it.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    if received
        .flags
        .intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC)
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "message does not fit",
        ));
    }
    Ok((received.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_descriptor_arrives_open_and_usable() {
        let (here, there) = message_pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        send_with_descriptors(here.as_fd(), b"take this", &[listener.as_fd()]).unwrap();
        drop(listener);

        let mut buffer = [0; 64];
        let (length, mut descriptors) =
            receive_with_descriptors(there.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"take this");
        let listener = TcpListener::from(descriptors.pop().unwrap());
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn a_closed_peer_reads_as_zero_and_writes_as_broken_pipe() {
        let (here, there) = message_pair().unwrap();
        drop(there);
        assert_eq!(
            receive_with_descriptors(here.as_fd(), &mut [0; 8])
                .unwrap()
                .0,
            0
        );
        let error = send_with_descriptors(here.as_fd(), b"x", &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_message_longer_than_the_buffer_is_refused() {
        let (here, there) = message_pair().unwrap();
        send_with_descriptors(here.as_fd(), b"0123456789", &[]).unwrap();
        let error = receive_with_descriptors(there.as_fd(), &mut [0; 4]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_connection_that_was_not_redirected_never_reports_another_destination() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(bind) else {
                continue;
            };
            let address = listener.local_addr().unwrap();
            let _client = TcpStream::connect(address).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            if let Ok(destination) = original_dst(&accepted) {
                assert_eq!(destination, address);
            }
        }
    }
}
