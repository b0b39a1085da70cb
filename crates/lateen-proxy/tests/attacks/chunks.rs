//! Chunks that are not what they should be, beside a small reader that knows nothing but the grammar.

use std::io::{Read, Write};
use std::net::Shutdown;

use serde_json::json;

use crate::endpoint::{Endpoint, Seen};
use crate::stage::Stage;
use crate::support::Client;

const SEEDS: [&[u8]; 8] = [
    b"5\r\nhello\r\n0\r\n\r\n",
    b"0\r\n\r\n",
    b"3;a=b\r\nabc\r\n0\r\n\r\n",
    b"1\r\na\r\n1\r\nb\r\n0\r\nt: u\r\n\r\n",
    b"00a\r\n0123456789\r\n000\r\n\r\n",
    b"A;q=\"x;y\"\r\n0123456789\r\n0;z\r\nt: u\r\nv:\r\n\r\n",
    b"2 ;a\r\nab\r\n0\t\r\n\r\n",
    b"29\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n\r\n0\r\n\r\n",
];

/// Bytes that are put in, or in the place of others.
const MARKS: &[u8] = b"\r\n\t ;:,0123456789abcfFxX-+\"=_\0\x0b\x7f\x80\xff";

const ROUNDS: usize = 1500;

const AFTER: &[u8] = b"GET /after HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

/// The body that these bytes begin with, and how long it was with its framing; nothing when they begin with none
/// (RFC 9112 section 7.1).
fn reference(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = line(&bytes[at..])?;
        at += line.len() + 2;
        let digits = line.iter().take_while(|it| it.is_ascii_hexdigit()).count();
        if !(1..=16).contains(&digits) {
            return None;
        }
        let extension = line[digits..].trim_ascii_start();
        if !extension.is_empty() && extension[0] != b';' {
            return None;
        }
        let size = u64::from_str_radix(str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        let end = at.checked_add(usize::try_from(size).ok()?)?;
        body.extend(bytes.get(at..end)?);
        (bytes.get(end..end.checked_add(2)?)? == b"\r\n").then_some(())?;
        at = end + 2;
    }
    loop {
        let line = line(&bytes[at..])?;
        at += line.len() + 2;
        if line.is_empty() {
            return Some((body, at));
        }
        let colon = line.iter().position(|it| *it == b':')?;
        let is_token = |it: &u8| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(it);
        (colon > 0 && line[..colon].iter().all(is_token)).then_some(())?;
    }
}

/// A line of text and blanks.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(2).position(|it| it == b"\r\n")?;
    let is_text = |it: &u8| matches!(*it, b'\t' | b' '..=b'~' | 0x80..);
    bytes[..end].iter().all(is_text).then_some(&bytes[..end])
}

/// Whether the proxy took the body. If so, it was the one that the reference finds, and what follows it was left.
fn check(stage: &Stage, endpoint: &Endpoint, chunks: &[u8]) -> bool {
    let shown = chunks.escape_ascii();
    let head = b"POST /first HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let all = [chunks, AFTER].concat();
    let expected = reference(&all);
    let mut client = Client::connect(stage.address);
    client.0.write_all(&[&head[..], &all].concat()).unwrap();
    let Some((body, length)) = expected else {
        // Otherwise the proxy could wait for more.
        let _ = client.0.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = client.0.read_to_end(&mut answer);
        let is_taken = answer.starts_with(b"HTTP/1.1 200");
        assert!(!is_taken, "{shown} is no body");
        assert_eq!(endpoint.rest(), [], "{shown}, or the one before");
        return false;
    };
    let first = client.read(false);
    let first = first.unwrap_or_else(|error| panic!("{shown}: {error}"));
    if first.status != 200 {
        assert_eq!(first.status, 400, "{shown}");
        assert!(client.is_closed(), "{shown}");
        assert_eq!(endpoint.rest(), [], "{shown}");
        return false;
    }
    let request = endpoint.request();
    assert_eq!(request.line, "POST /first HTTP/1.1", "{shown}");
    assert_eq!(
        request.body.escape_ascii().to_string(),
        body.escape_ascii().to_string(),
        "{shown}"
    );
    // Empty lines before a request are passed over.
    let rest = all[length..].iter().position(|it| !b"\r\n".contains(it));
    let Some(rest) = rest else {
        // It has swallowed what was to follow.
        assert_eq!(endpoint.rest(), [], "{shown}");
        return true;
    };
    let second = client.read(false);
    let second = second.unwrap_or_else(|error| panic!("{shown}: {error}"));
    if &all[length + rest..] == AFTER {
        assert_eq!(second.status, 200, "{shown}");
        assert_eq!(endpoint.request().line, "GET /after HTTP/1.1", "{shown}");
    } else {
        assert!([400, 426].contains(&second.status), "{shown}");
    }
    assert!(client.is_closed(), "{shown}");
    assert_eq!(endpoint.rest(), [], "{shown}");
    true
}

/// H3: sizes and extensions by the table.
#[test]
fn sizes_and_extensions_are_taken_by_the_letter() {
    let endpoint = Endpoint::start();
    let stage = Stage::new(endpoint.address, json!({}));
    let end = "\r\nabc\r\n0\r\n\r\n";
    for (first, is_taken) in [
        ("3", true),
        ("0000000000000003", true),
        ("3;", true),
        ("3;x", true),
        ("3 ; x = \"y\"", true),
        ("3\t", true),
        ("00000000000000003", false),
        ("ffffffffffffffff", false),
        ("10000000000000003", false),
        ("+3", false),
        ("-3", false),
        (" 3", false),
        ("0x3", false),
        ("3h", false),
        ("3,", false),
        ("3 x", false),
        ("3_", false),
        ("3;\r", false),
        ("3;\n", false),
        ("3\n", false),
        ("3;\0", false),
        ("3;\x0b", false),
        ("", false),
        (";", false),
        ("\u{663}", false),
    ] {
        let chunks = [first, end].concat();
        assert_eq!(
            check(&stage, &endpoint, chunks.as_bytes()),
            is_taken,
            "{first:?}"
        );
    }
}

/// H3: whatever becomes of chunks, the proxy reads the body and the rest as the reference does, or refuses.
#[test]
fn mutated_chunks_are_read_as_by_the_grammar_or_refused() {
    let endpoint = Endpoint::start();
    let stage = Stage::new(endpoint.address, json!({}));
    let mut random = fastrand::Rng::with_seed(3);
    let (mut taken, mut given) = (0, 0);
    for round in 0..ROUNDS {
        let mut chunks = SEEDS[round % SEEDS.len()].to_vec();
        for _ in 0..random.usize(..4) {
            let at = random.usize(..chunks.len());
            let mark = MARKS[random.usize(..MARKS.len())];
            match random.u8(..4) {
                0 => chunks[at] = mark,
                1 => chunks.insert(at, mark),
                2 => chunks.truncate(at + 1),
                _ => drop(chunks.remove(at)),
            }
            if chunks.is_empty() {
                break;
            }
        }
        given += usize::from(reference(&[&chunks, AFTER].concat()).is_some());
        taken += usize::from(check(&stage, &endpoint, &chunks));
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(endpoint.rest(), [] as [Seen; 0]);
    // It is not refused out of hand.
    assert!(
        given > ROUNDS / 4 && taken * 10 > given * 9,
        "{taken} of {given}"
    );
}
