//! Endpoints that do with a connection what a test wants.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use crate::support::PATIENCE;

/// The endpoint.
pub struct Script {
    pub address: SocketAddr,
    results: Receiver<Vec<u8>>,
}

impl Script {
    /// Gives `act` each connection with its number, in a thread of its own.
    pub fn start(
        act: impl Fn(TcpStream, usize) -> io::Result<Vec<u8>> + Send + Sync + Clone + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, results) = channel();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let (act, sender) = (act.clone(), sender.clone());
                std::thread::spawn(move || {
                    let result =
                        act(stream, number).unwrap_or_else(|error| error.to_string().into());
                    let _ = sender.send(result);
                });
            }
        });
        Self { address, results }
    }

    /// What the next connection that ends gave.
    #[track_caller]
    pub fn next(&self) -> Vec<u8> {
        self.results.recv_timeout(PATIENCE).unwrap()
    }
}

/// Reads the head of a message, and nothing behind it.
pub fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
