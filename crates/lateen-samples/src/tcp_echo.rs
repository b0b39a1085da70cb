//! An echo of lines over plain TCP, each with a prefix that tells the servers apart.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::Error;
use crate::server;

/// Longest line, in bytes with its end; a longer one is answered in pieces.
const LINE_LIMIT: u64 = 64 * 1024;

/// Connections served at once.
const CONNECTIONS: usize = 2048;

/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_secs(3600);

/// Runs the echo. Arguments: the ports, separated by commas, and the prefix.
pub(crate) async fn run(arguments: &[String]) -> Result<(), Error> {
    let wrong = |why: String| Error::Arguments {
        name: "tcp-echo".to_owned(),
        why,
    };
    let [ports, prefix] = arguments else {
        return Err(wrong(
            "give ports and a prefix, such as: 9000,9001 hello".to_owned(),
        ));
    };
    let ports = ports
        .split(',')
        .map(|port| {
            port.parse()
                .map_err(|_| wrong(format!("{port:?} is not a port")))
        })
        .collect::<Result<Vec<u16>, _>>()?;
    let stop = server::asked_to_stop("tcp-echo")?;
    let mut listeners = Vec::new();
    for port in ports {
        listeners.push(server::listen("tcp-echo", port)?);
        server::log(&format!("listening on [::]:{port}, prefix: {prefix}"));
    }
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    for listener in listeners {
        tokio::spawn(serve(listener, prefix.clone(), slots.clone()));
    }
    stop.await;
    Ok(())
}

/// Echoes on one socket, for ever.
pub(crate) async fn serve(listener: TcpListener, prefix: String, slots: Arc<Semaphore>) {
    loop {
        let (stream, _, slot) = server::accept(&listener, &slots).await;
        let _ = stream.set_nodelay(true);
        let prefix = prefix.clone();
        tokio::spawn(async move {
            // A connection that breaks is the client's affair.
            let _ = echo(stream, &prefix).await;
            drop(slot);
        });
    }
}

/// Answers every line until the client has said its last.
async fn echo(stream: TcpStream, prefix: &str) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut stream).take(LINE_LIMIT);
        let read = limited.read_until(b'\n', &mut line);
        let read = tokio::time::timeout(IDLE, read).await.unwrap_or(Ok(0))?;
        if read == 0 {
            return stream.shutdown().await;
        }
        server::log(&format!(
            "request: {}",
            String::from_utf8_lossy(&line).trim_end()
        ));
        let answer = [prefix.as_bytes(), b" ", &line].concat();
        server::log(&format!(
            "response: {}",
            String::from_utf8_lossy(&answer).trim_end()
        ));
        stream.write_all(&answer).await?;
        stream.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(sent: &str, expected: &str) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let server = tokio::spawn(serve(listener, "one".to_owned(), slots));
        let mut client = TcpStream::connect(address).await.expect("connected");
        client.write_all(sent.as_bytes()).await.expect("sent");
        client.shutdown().await.expect("half closed");
        let mut answered = String::new();
        client.read_to_string(&mut answered).await.expect("an end");
        assert_eq!(answered, expected, "{sent:?}");
        server.abort();
    }

    #[tokio::test]
    async fn every_line_comes_back_with_the_prefix_until_the_client_closes() {
        check("", "").await;
        check("hello\n", "one hello\n").await;
        check("a\nb\n\nc\n", "one a\none b\none \none c\n").await;
        check("no end", "one no end").await;
    }

    #[tokio::test]
    async fn an_answer_does_not_wait_for_the_client_to_close() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let server = tokio::spawn(serve(listener, "two".to_owned(), slots));
        let mut client = TcpStream::connect(address).await.expect("connected");
        for _ in 0..3 {
            client.write_all(b"again\n").await.expect("sent");
            let mut answer = [0; 10];
            let read = client.read_exact(&mut answer);
            tokio::time::timeout(Duration::from_secs(5), read)
                .await
                .expect("in time")
                .expect("an answer");
            assert_eq!(&answer, b"two again\n");
        }
        server.abort();
    }
}
