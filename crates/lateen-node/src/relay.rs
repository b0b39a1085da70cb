//! Carrying a connection from one network to another.

use std::time::Duration;

use tokio::net::TcpStream;

/// Size of each relay buffer, in bytes.
const BUFFER: usize = 32 << 10;

/// Moves bytes both ways until both have ended. Each direction is closed on its own, as the peers do.
pub(crate) async fn relay(mut client: TcpStream, mut server: TcpStream) {
    // Failures only mean a little more delay.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let copied =
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await;
    if copied.is_err() {
        // One peer's reset is passed on to the other.
        reset(&client);
        reset(&server);
    }
}

/// Lets the connection end with a reset when it is dropped: an orderly close would look like an answer.
pub(crate) fn reset(stream: &TcpStream) {
    // A connection that is gone cannot be told anything.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
