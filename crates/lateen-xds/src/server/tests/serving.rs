//! What ends a stream, and the sockets that streams are served on.

use tonic::Code;

use super::*;

#[tokio::test]
async fn what_a_client_does_wrong_ends_its_stream() {
    let check = async |limits: Limits, request: Option<DeltaDiscoveryRequest>, code: Code| {
        let (_store, mut client) = start(limits).await;
        let (requests, sent) = mpsc::channel(1);
        if let Some(request) = request {
            requests.send(request).await.unwrap();
        }
        let status = match client
            .delta_aggregated_resources(ReceiverStream::new(sent))
            .await
        {
            Err(status) => status,
            Ok(response) => response.into_inner().message().await.unwrap_err(),
        };
        assert_eq!(status.code(), code, "{status}");
    };
    let request = |node: Option<Node>, type_url: &str, names: &[&str]| {
        Some(DeltaDiscoveryRequest {
            node,
            type_url: type_url.to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        })
    };
    let defaults = Limits::default;
    check(
        defaults(),
        request(None, Cds.type_url(), &[]),
        Code::InvalidArgument,
    )
    .await;
    check(
        defaults(),
        request(Some(Node::default()), Cds.type_url(), &[]),
        Code::InvalidArgument,
    )
    .await;
    check(
        defaults(),
        request(Some(node()), "", &[]),
        Code::InvalidArgument,
    )
    .await;
    check(
        Limits {
            names: 1,
            ..defaults()
        },
        request(Some(node()), Eds.type_url(), &["a", "b"]),
        Code::ResourceExhausted,
    )
    .await;
    check(
        Limits {
            streams: 0,
            ..defaults()
        },
        None,
        Code::ResourceExhausted,
    )
    .await;
    check(
        Limits {
            first_request: Duration::from_millis(10),
            ..defaults()
        },
        None,
        Code::DeadlineExceeded,
    )
    .await;
    check(
        Limits {
            request_bytes: 16,
            ..defaults()
        },
        request(Some(node()), Cds.type_url(), &["a"]),
        Code::OutOfRange,
    )
    .await;
}

#[tokio::test]
async fn stop_ends_streams_and_the_server() {
    let store = Arc::new(Store::default());
    let server = Server::new(StoreSource(store), Limits::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn({
        let server = server.clone();
        async move { server.serve_tcp(listener).await }
    });
    let mut client = AggregatedDiscoveryServiceClient::connect(address)
        .await
        .unwrap();
    let mut stream = DeltaClient::open(&mut client).await;
    stream.ask(Lds, &[], &[], &[]).await;
    assert_eq!(stream.next().await, "listener");
    server.stop();
    let status = stream.responses.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    tokio::time::timeout(Duration::from_secs(5), serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn unix_socket_serves_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("xds");
    let store = Arc::new(Store::default());
    store.put(&[(Cds, "a", 1)]);
    let server = Server::new(StoreSource(Arc::clone(&store)), Limits::default());
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move { server.serve_unix(listener).await });
    let address = format!("unix://{}", path.display());
    let mut client = AggregatedDiscoveryServiceClient::connect(address)
        .await
        .unwrap();
    let mut stream = DeltaClient::open(&mut client).await;
    stream.ask(Cds, &[], &[], &[]).await;
    assert_eq!(stream.next().await, "cluster +a@1");
}
