//! The floor of the benchmarks: copies bytes between a client and one address, on one thread, and understands nothing.
//!
//! `forward LISTEN TARGET`

use std::io;

use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(target)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: forward LISTEN TARGET"));
    };
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (mut client, _) = listener.accept().await?;
        let target = target.clone();
        tokio::spawn(async move {
            // A connection that fails is over.
            let _ = carry(&mut client, &target).await;
        });
    }
}

async fn carry(client: &mut TcpStream, target: &str) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(client, &mut server).await?;
    Ok(())
}
