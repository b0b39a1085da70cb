//! Both halves of the joint over a real socket pair.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::*;

fn joint() -> (Outside, OutsideServer) {
    let (inner, outer) = lateen_sys::socket::message_pair().unwrap();
    (Outside::start(inner).unwrap(), OutsideServer::new(outer))
}

#[tokio::test]
async fn a_listener_and_a_connection_from_outside_talk_to_each_other() {
    let (outside, server) = joint();
    tokio::spawn(server.serve(|_| ()));
    let listener = outside
        .listen("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let mut client = outside
        .connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    client.set_nonblocking(false).unwrap();
    client.write_all(b"hello").unwrap();
    drop(client);
    listener.set_nonblocking(false).unwrap();
    let mut said = String::new();
    listener
        .accept()
        .unwrap()
        .0
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(said, "hello");
}

#[tokio::test]
async fn a_taken_port_is_reported_as_such() {
    let (outside, server) = joint();
    tokio::spawn(server.serve(|_| ()));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = outside
        .listen(taken.local_addr().unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_unix_listener_has_its_mode_and_replaces_a_stale_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    drop(UnixListener::bind(&path).unwrap());
    let (outside, server) = joint();
    tokio::spawn(server.serve(|_| ()));
    let _listener = outside.listen_unix(&path, 0o600).await.unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    std::os::unix::net::UnixStream::connect(&path).unwrap();
}

#[tokio::test]
async fn news_and_the_request_to_stop_pass() {
    let (outside, server) = joint();
    let stopper = server.stopper().unwrap();
    let (sender, mut news) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(server.serve(move |value| sender.send(value).unwrap()));
    outside.tell(json!({"ready": true})).await.unwrap();
    assert_eq!(news.recv().await.unwrap(), json!({"ready": true}));
    stopper.stop().unwrap();
    outside.asked_to_stop().await;
}

#[tokio::test]
async fn a_lost_outer_process_counts_as_the_request_to_stop() {
    let (outside, server) = joint();
    drop(server);
    outside.asked_to_stop().await;
    let error = outside
        .listen("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn nameservers_are_those_that_were_given_and_no_others() {
    let (inner, outer) = lateen_sys::socket::message_pair().unwrap();
    // A port that is free for both.
    let (nameserver, stream) = std::iter::repeat_with(|| {
        let stream = TcpListener::bind("127.0.0.1:0").unwrap();
        let nameserver = UdpSocket::bind(stream.local_addr().unwrap());
        nameserver.map(|nameserver| (nameserver, stream))
    })
    .find_map(Result::ok)
    .unwrap();
    let server = OutsideServer::new(outer).with_nameservers(vec![stream.local_addr().unwrap()]);
    let outside = Outside::start(inner).unwrap();
    tokio::spawn(server.serve(|_| ()));
    outside.nameserver(0).await.unwrap().send(b"ask").unwrap();
    let mut buffer = [0; 8];
    assert_eq!(nameserver.recv(&mut buffer).unwrap(), 3);
    outside.nameserver_stream(0).await.unwrap();
    for error in [
        outside.nameserver(1).await.unwrap_err(),
        outside.nameserver_stream(1).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
