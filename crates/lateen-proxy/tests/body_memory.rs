//! What a body that is looked at costs: its own size while it comes, twice that at the end, and no more however finely
//! it is cut.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the other tests of the proxy use the rest"
)]
#[path = "proxy/support.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use lateen_sys::allocation::CountingAllocator;
use serde_json::json;

use support::{Client, Proxy, filters, to};

#[global_allocator]
static MEMORY: CountingAllocator = CountingAllocator::new();

/// Length of the body.
const LENGTH: usize = 1 << 20;

/// Longest time without progress. A million chunks take seconds, and a busy machine many of them.
const SLOW: Duration = Duration::from_secs(120);

/// What is allowed for buffers of connections, and for this test's own.
const BUFFERS: usize = 1 << 20;

/// An upstream that answers once a request has ended with `end`, and says how many bytes came.
fn sink(end: &'static [u8]) -> (SocketAddr, JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SLOW)).unwrap();
        let (mut buffer, mut kept, mut count) = (vec![0; 1 << 16], 0, 0);
        while !buffer[..kept].ends_with(end) {
            // The last bytes stay, as the end may come in two parts.
            let last = kept.min(end.len());
            buffer.copy_within(kept - last..kept, 0);
            let read = stream.read(&mut buffer[last..]).unwrap();
            assert!(read > 0, "the request broke off");
            (kept, count) = (last + read, count + read);
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(answer).unwrap();
        count
    });
    (address, thread)
}

/// Sends a body of `length` bytes, one in each chunk, and gives the status and the peak of the memory in use.
fn check(what: &str, most_bytes: usize, bound: usize) {
    let (upstream, sunk) = sink(b"\r\n0\r\n\r\n");
    let mut proxy = Proxy::start(1);
    proxy.cluster("a", &[upstream], json!({}));
    let filter = json!({
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
        "typeUrl": "type.googleapis.com/lateen.body_to_headers.v1.BodyToHeaders",
        "value": {
            "fields": [{ "pointer": "/user", "header": "x-user" }],
            "content_types": ["application/json"],
            "max_bytes": most_bytes,
        },
    });
    let routes = json!([to("a", json!({ "timeout": "0s" }))]);
    let address = proxy.http(routes, filters(&[("lateen.body_to_headers", filter)]));
    let mut client = Client::connect(address);
    client.0.set_write_timeout(Some(SLOW)).unwrap();
    client.0.set_read_timeout(Some(SLOW)).unwrap();
    let send = |stream: &mut TcpStream| {
        let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let start = br#"{"user":"ann"}"#;
        stream.write_all(&one_by_one(start)).unwrap();
        let space = one_by_one(&[b' '; 1 << 10]);
        for _ in 0..LENGTH / (1 << 10) {
            stream.write_all(&space).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    };
    let (answer, peak) = MEMORY.peak_of(|| {
        send(&mut client.0);
        client.read(false).unwrap()
    });
    assert_eq!(answer.status, 200, "{what}");
    let sunk = sunk.join().unwrap();
    assert!(sunk > LENGTH, "{what}: {sunk} bytes came");
    assert!(peak <= bound, "{what}: {peak} bytes instead of {bound}");
}

/// The bytes in a chunk each.
fn one_by_one(bytes: &[u8]) -> Vec<u8> {
    let chunk = |byte: &u8| [b'1', b'\r', b'\n', *byte, b'\r', b'\n'];
    bytes.iter().flat_map(chunk).collect()
}

#[test]
fn memory_stays_near_the_size_of_the_body() {
    check("one that is read", LENGTH + 100, 2 * LENGTH + BUFFERS);
    check("one that is too long", LENGTH / 2, LENGTH + BUFFERS);
}
