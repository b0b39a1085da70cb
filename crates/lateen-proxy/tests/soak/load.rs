//! Clients that expect every request to be answered.

use std::collections::HashSet;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use crate::mesh::Addresses;
use crate::support::{Client, PATIENCE};
use crate::tls_support::{ClientOptions, Identity, TlsClient};

/// Time that a client leaves between requests, so that changes get their share of two cores.
const PAUSE: Duration = Duration::from_millis(1);

/// Lines on a TCP connection before the next.
const LINES: usize = 50;

/// HTTP/2 streams at the same time.
const STREAMS: usize = 8;

/// Requests and connections that were answered.
#[derive(Default)]
pub(crate) struct Served {
    http1: AtomicUsize,
    http2: AtomicUsize,
    tcp: AtomicUsize,
    mutual_tls: AtomicUsize,
    /// Certificates of the server that clients saw.
    certificates: AtomicUsize,
}

impl Served {
    fn all(&self) -> [(&'static str, usize); 5] {
        [
            ("HTTP/1.1 requests", &self.http1),
            ("HTTP/2 requests", &self.http2),
            ("TCP lines", &self.tcp),
            ("mutual TLS requests", &self.mutual_tls),
            ("certificates", &self.certificates),
        ]
        .map(|(what, count)| (what, count.load(Ordering::Relaxed)))
    }

    #[track_caller]
    pub(crate) fn assert_all(&self) {
        for (what, count) in self.all() {
            let least = if what == "certificates" { 2 } else { 100 };
            assert!(count >= least, "only {count} {what}");
        }
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.all().map(|(what, count)| format!("{count} {what}"));
        f.write_str(&all.join(", "))
    }
}

pub(crate) struct Load {
    addresses: Addresses,
    identity: Arc<RwLock<Identity>>,
    pub(crate) served: Served,
}

impl Load {
    pub(crate) fn new(addresses: Addresses, identity: &Arc<RwLock<Identity>>) -> Self {
        Self {
            addresses,
            identity: identity.clone(),
            served: Served::default(),
        }
    }

    /// Starts the clients. One that is not answered panics.
    pub(crate) fn start<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        stop: &'s AtomicBool,
    ) -> Vec<ScopedJoinHandle<'s, ()>> {
        let go_on = || !stop.load(Ordering::Relaxed);
        vec![
            scope.spawn(move || self.http1(go_on)),
            scope.spawn(move || self.http1(go_on)),
            scope.spawn(move || self.http2(go_on)),
            scope.spawn(move || self.tcp(go_on)),
            scope.spawn(move || self.mutual_tls(go_on)),
            scope.spawn(move || self.mutual_tls(go_on)),
        ]
    }

    fn http1(&self, go_on: impl Fn() -> bool) {
        let mut client = Client::connect(self.addresses.http);
        while go_on() {
            let answer = client.get("/", &[]).expect("a connection broke");
            assert_eq!(answer.status, 200, "{answer:?}");
            self.served.http1.fetch_add(1, Ordering::Relaxed);
            // Told to close, a client opens another connection.
            if answer.header("connection") == Some("close") {
                client = Client::connect(self.addresses.http);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn http2(&self, go_on: impl Fn() -> bool) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            while go_on() {
                self.http2_connection(&go_on).await;
            }
        });
    }

    /// Requests on one connection until the proxy wants no more of them.
    async fn http2_connection(&self, go_on: impl Fn() -> bool) {
        let stream = tokio::net::TcpStream::connect(self.addresses.http)
            .await
            .unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let ask = || async {
            // A connection that is going away takes no request, which is no failure.
            while go_on()
                && let Ok(mut sender) = sender.clone().ready().await
            {
                let request = http::Request::get("http://test/").body(()).unwrap();
                let Ok((response, _)) = sender.send_request(request, true) else {
                    return;
                };
                let response = tokio::time::timeout(PATIENCE, response);
                let response = match response.await.expect("no answer") {
                    Ok(response) => response,
                    // It crossed with the last word of the proxy, which says that it did not see it (RFC 9113, 6.8).
                    Err(error)
                        if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) =>
                    {
                        return;
                    }
                    Err(error) => panic!("a stream broke: {error:?}"),
                };
                assert_eq!(response.status(), 200, "{response:?}");
                let mut body = response.into_body();
                while let Some(data) = body.data().await {
                    let length = data.expect("a body broke").len();
                    body.flow_control().release_capacity(length).unwrap();
                }
                self.served.http2.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE * 4).await;
            }
        };
        let streams: Vec<_> = (0..STREAMS).map(|_| ask()).collect();
        futures_util::future::join_all(streams).await;
        drop(sender);
        // Either the proxy closed it, or it is closed as nobody sends any more.
        let _ = tokio::time::timeout(PATIENCE, driver).await;
    }

    fn tcp(&self, go_on: impl Fn() -> bool) {
        while go_on() {
            let mut stream = connect(self.addresses.tcp);
            for number in 0..LINES {
                let line = format!("line {number}");
                stream
                    .write_all(line.as_bytes())
                    .expect("a connection broke");
                let mut echo = vec![0; line.len()];
                stream.read_exact(&mut echo).expect("a connection broke");
                assert_eq!(echo, line.as_bytes());
                self.served.tcp.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(PAUSE * 2);
            }
        }
    }

    fn mutual_tls(&self, go_on: impl Fn() -> bool) {
        let mut certificates = HashSet::new();
        while go_on() {
            let identity = self.identity.read().unwrap();
            let options = ClientOptions {
                identity: Some(&identity),
                server_name: "secured.test",
                protocols: &["http/1.1"],
            };
            let mut client = TlsClient::connect(self.addresses.mutual_tls, &options)
                .expect("a handshake failed");
            certificates.insert(client.server_certificate());
            let answer = client.get("/", &[]).expect("a connection broke");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            drop(identity);
            self.served.mutual_tls.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(PAUSE * 10);
        }
        let seen = &self.served.certificates;
        seen.fetch_max(certificates.len(), Ordering::Relaxed);
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}
