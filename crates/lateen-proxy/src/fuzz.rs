//! Any bytes at the beginning of a connection, and from a peer about itself.

use std::sync::Arc;

use bytes::BytesMut;
use futures_util::FutureExt;

use crate::proxy_protocol::{self, Acceptor, Ends};
use crate::sniff::{self, Verdict};
use crate::stats::PerWorker;
use crate::telemetry::peer::Workload;

/// What the first bytes decide, no later byte changes.
#[test]
fn first_bytes() {
    fn check<T: PartialEq + std::fmt::Debug>(bytes: &[u8], look: impl Fn(&[u8]) -> Verdict<T>) {
        let mut decided = None;
        for length in 0..=bytes.len() {
            match (look(&bytes[..length]), &decided) {
                (Verdict::More, None) => {}
                (Verdict::More, Some(_)) => panic!("undecided again after {length} bytes"),
                (Verdict::Known(now), Some(before)) => {
                    assert_eq!(now, *before, "after {length} bytes");
                }
                (Verdict::Known(now), None) => decided = Some(now),
            }
        }
    }
    bolero::check!(name = "first-bytes")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            check(bytes, sniff::http);
            check(bytes, sniff::tls);
        });
}

/// A header of the PROXY protocol is taken off whole, and its addresses are those that it is written with again.
#[test]
fn proxy_headers() {
    bolero::check!(name = "proxy-headers")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            let Some((Some(ends), rest)) = accept(bytes) else {
                return;
            };
            assert!(bytes.ends_with(&rest));
            for version in [proxy_protocol::Version::V1, proxy_protocol::Version::V2] {
                let mut again = proxy_protocol::header(version, Some(ends), ends);
                again.extend_from_slice(&rest);
                assert_eq!(accept(&again), Some((Some(ends), rest.clone())));
            }
        });
}

/// What a header says, and what follows it; nothing when it is refused.
fn accept(mut bytes: &[u8]) -> Option<(Option<Ends>, BytesMut)> {
    let acceptor = Acceptor {
        optional: true,
        v1: true,
        v2: true,
        disabled: None,
        stats: Arc::new(PerWorker::new(1)),
    };
    let mut prefix = BytesMut::new();
    let accepted = acceptor.accept(&mut bytes, &mut prefix).now_or_never();
    let ends = accepted.expect("bytes in memory are there").ok()?;
    prefix.extend_from_slice(bytes);
    Some((ends, prefix))
}

/// What a peer says about its workload.
#[test]
fn peers() {
    bolero::check!(name = "peers")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            if let Some(workload) = Workload::from_header(bytes) {
                let told = workload.name.len() + workload.namespace.len() + workload.app.len();
                assert!(told <= bytes.len());
            }
        });
}
