//! The store of sessions that several proxies share: a Redis server (6.2 or later).
//!
//! Every request asks it once: "this key belongs to this endpoint, unless it belongs to another already", which begins
//! the idle time anew and says where the key belongs. What the table in memory knows, or the ring, is the proposal. A
//! request waits for the answer for a few milliseconds at most; without one it goes where the proposal says.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lateen_route::hash::xx64;
use parking_lot::Mutex;

use super::connection::Unanswered;
use super::resp::{self, Reply};
use crate::secret::SecretSlot;
use crate::tls::client::ClientTls;
use crate::worker::Worker;

/// Longest time that a request waits for the store.
const PATIENCE: Duration = Duration::from_millis(5);

/// Longer keys of clients are stored as their beginning and two hashes.
const LONGEST_KEY: usize = 128;

/// Moves a key from one endpoint to another, unless somebody else was faster. Returns where it belongs.
const REPLACE: &[u8] = b"local now = redis.call('GET', KEYS[1])\n\
if now and now ~= ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[3]) return now end\n\
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])\n\
return ARGV[2]";

/// Where the sessions of a cluster are shared.
#[derive(Debug, Clone)]
pub(crate) struct StoreSettings {
    /// Everything that follows in words: settings are the same when this is.
    pub(crate) identity: String,
    /// `host:port`, for people.
    pub(crate) server: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) database: u16,
    /// Nothing: the server takes everybody.
    pub(crate) password: Option<Arc<SecretSlot>>,
    /// Nothing for plaintext.
    pub(crate) tls: Option<Arc<ClientTls>>,
}

impl PartialEq for StoreSettings {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for StoreSettings {}

/// A store that the sessions of one cluster are shared in, for all workers.
#[derive(Debug)]
pub(crate) struct Store {
    /// Unique in the process.
    pub(crate) id: u64,
    pub(crate) settings: StoreSettings,
    pub(crate) counts: StoreCounts,
    /// What was told of connections since the last good one.
    pub(super) troubles: Mutex<BTreeSet<String>>,
    /// What the keys of the cluster begin with.
    prefix: Vec<u8>,
}

/// How a store was used.
#[derive(Debug, Default)]
pub(crate) struct StoreCounts {
    /// Workers that are connected now.
    pub(crate) connected: AtomicU64,
    /// Requests that went on without the store because it was away or refused.
    pub(crate) errors: AtomicU64,
    /// Requests that went on without the store because it did not answer in time.
    pub(crate) timeouts: AtomicU64,
    /// Requests that went where another proxy had sent their key.
    pub(crate) adopted: AtomicU64,
}

impl Store {
    /// The store for the sessions of a cluster.
    pub(crate) fn new(settings: StoreSettings, cluster: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            settings,
            counts: StoreCounts::default(),
            troubles: Mutex::default(),
            prefix: format!("lateen:{cluster}:").into_bytes(),
        }
    }

    /// Where a key belongs, which is `proposed` when it had no endpoint; nothing when the store does not say.
    pub(super) async fn agree(
        self: &Arc<Self>,
        worker: &Rc<Worker>,
        key: &[u8],
        proposed: SocketAddr,
        idle: Duration,
    ) -> Option<SocketAddr> {
        let (key, idle) = (self.key(key), idle.as_millis().to_string());
        let mut request = Vec::new();
        let proposed = proposed.to_string();
        let words: [&[u8]; 6] = [
            b"SET",
            &key,
            proposed.as_bytes(),
            b"NX",
            b"PX",
            idle.as_bytes(),
        ];
        resp::write(&mut request, &words);
        resp::write(&mut request, &[b"GETEX", &key, b"PX", idle.as_bytes()]);
        self.ask(worker, request, 2).await
    }

    /// Moves a key away from an endpoint. Where it belongs now; nothing when the store does not say.
    pub(super) async fn replace(
        self: &Arc<Self>,
        worker: &Rc<Worker>,
        key: &[u8],
        (from, to): (SocketAddr, SocketAddr),
        idle: Duration,
    ) -> Option<SocketAddr> {
        let (key, idle) = (self.key(key), idle.as_millis().to_string());
        let (from, to) = (from.to_string(), to.to_string());
        let mut request = Vec::new();
        let words: [&[u8]; 7] = [
            b"EVAL",
            REPLACE,
            b"1",
            &key,
            from.as_bytes(),
            to.as_bytes(),
            idle.as_bytes(),
        ];
        resp::write(&mut request, &words);
        self.ask(worker, request, 1).await
    }

    /// The address in the last reply.
    async fn ask(
        self: &Arc<Self>,
        worker: &Rc<Worker>,
        request: Vec<u8>,
        replies: usize,
    ) -> Option<SocketAddr> {
        let connection = worker.store(self);
        let answered = connection.ask(request, replies, PATIENCE).await;
        let count = match answered.as_deref().map(|replies| replies.last()) {
            Ok(Some(Reply::Text(text))) => {
                let address = std::str::from_utf8(text)
                    .ok()
                    .and_then(|text| text.parse().ok());
                if address.is_some() {
                    return address;
                }
                &self.counts.errors
            }
            Err(Unanswered::Late) => &self.counts.timeouts,
            Ok(_) | Err(Unanswered::Away) => &self.counts.errors,
        };
        count.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// The key in the store. All proxies have to make the same of a client's key.
    fn key(&self, key: &[u8]) -> Vec<u8> {
        let mut all = self.prefix.clone();
        if key.len() <= LONGEST_KEY {
            all.extend_from_slice(key);
        } else {
            all.extend_from_slice(&key[..LONGEST_KEY / 2]);
            let hashes = (xx64(key, 0), xx64(key, 1));
            all.extend_from_slice(format!("...{:016x}{:016x}", hashes.0, hashes.1).as_bytes());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_short_and_the_same_everywhere() {
        let settings = StoreSettings {
            identity: String::new(),
            server: String::new(),
            host: String::new(),
            port: 1,
            database: 0,
            password: None,
            tls: None,
        };
        let store = Store::new(settings.clone(), "c");
        assert_eq!(store.key(b"ann"), b"lateen:c:ann");
        let mut long = vec![b'a'; 100_000];
        let first = store.key(&long);
        assert_eq!(first, Store::new(settings, "c").key(&long));
        assert!(first.len() < 200);
        long[99_999] = b'b';
        assert_ne!(store.key(&long), first);
    }
}
