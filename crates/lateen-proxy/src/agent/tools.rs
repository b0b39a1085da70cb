//! Subcommands of Istio's agent that manifests and tools call inside a pod: `wait` and `request`.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

/// Longest answer that is read, in bytes: a whole configuration dump.
const MAX_ANSWER: u64 = 256 << 20;
/// Longest time for a request to the admin interface.
const REQUEST_TIME: Duration = Duration::from_secs(60);

/// Why a subcommand failed.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The arguments are wrong.
    #[error("{0}")]
    Usage(String),
    /// The proxy did not become ready.
    #[error("the proxy is not ready after {0:?}: {1}")]
    NotReady(Duration, String),
    /// The proxy does not answer, or refuses.
    #[error("{0}")]
    Request(String),
}

/// `wait`: returns when the proxy is ready. Options and defaults are those of Istio's agent.
///
/// # Errors
/// When the time is over or an option is wrong.
pub fn wait(arguments: &[String]) -> Result<(), ToolError> {
    let mut url = "http://localhost:15021/healthz/ready".to_owned();
    let (mut longest, mut request, mut period) = (60_000_u64, 500_u64, 500_u64);
    for (flag, value) in flags(arguments)? {
        let number = || {
            let wrong = || ToolError::Usage(format!("{flag}: `{value}` is not a number"));
            value.parse::<u32>().map(u64::from).map_err(|_| wrong())
        };
        match flag.as_str() {
            "--timeoutSeconds" => longest = number()? * 1000,
            "--requestTimeoutMillis" => request = number()?,
            "--periodMillis" => period = number()?,
            "--url" => url = value,
            _ => return Err(ToolError::Usage(format!("unknown option {flag} of wait"))),
        }
    }
    let (authority, path) = split_url(&url)?;
    let longest = Duration::from_millis(longest);
    let end = Instant::now() + longest;
    loop {
        let limit = Duration::from_millis(request.max(1));
        let problem = match exchange("GET", authority, path, limit) {
            Ok((200, _)) => return Ok(()),
            Ok((status, _)) => format!("status {status}"),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= end {
            return Err(ToolError::NotReady(longest, problem));
        }
        std::thread::sleep(Duration::from_millis(period));
    }
}

/// `request METHOD PATH`: asks the admin interface and prints the answer.
///
/// # Errors
/// When it does not answer with success, or the arguments are wrong.
pub fn request(arguments: &[String]) -> Result<(), ToolError> {
    let mut port = 15_000_u16;
    let mut words = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let value = match argument.strip_prefix("--debug-port") {
            None => {
                words.push(argument.as_str());
                continue;
            }
            Some("") => rest.next().map(String::as_str),
            Some(inline) => inline.strip_prefix('='),
        };
        let wrong = || ToolError::Usage("--debug-port needs a port".to_owned());
        port = value.and_then(|port| port.parse().ok()).ok_or_else(wrong)?;
    }
    let [method, path] = words[..] else {
        return Err(ToolError::Usage(
            "usage: request [--debug-port PORT] METHOD PATH".to_owned(),
        ));
    };
    let path = format!("/{}", path.trim_start_matches('/'));
    let authority = format!("127.0.0.1:{port}");
    let (status, body) = exchange(method, &authority, &path, REQUEST_TIME)
        .map_err(|error| ToolError::Request(format!("{method} {path}: {error}")))?;
    // The agent ends what it prints with a line end of its own. A closed pipe is the reader's wish.
    let _ = std::io::stdout().write_all(&[&body, &b"\n"[..]].concat());
    if (200..300).contains(&status) {
        Ok(())
    } else {
        Err(ToolError::Request(format!(
            "{method} {path}: status {status}"
        )))
    }
}

/// Options with values, `--name value` or `--name=value`.
fn flags(arguments: &[String]) -> Result<Vec<(String, String)>, ToolError> {
    let mut found = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (flag, inline) = match argument.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let missing = || ToolError::Usage(format!("{flag} needs a value"));
        let value = inline
            .or_else(|| rest.next().cloned())
            .ok_or_else(missing)?;
        found.push((flag.to_owned(), value));
    }
    Ok(found)
}

/// Authority and path of a URL.
fn split_url(url: &str) -> Result<(&str, &str), ToolError> {
    let wrong = || {
        ToolError::Usage(format!(
            "`{url}` is not a URL such as http://localhost:15021/healthz/ready"
        ))
    };
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let slash = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    if authority.is_empty() {
        return Err(wrong());
    }
    Ok((authority, if path.is_empty() { "/" } else { path }))
}

/// One request: status and body. The server closes the connection, so that no length has to be understood.
fn exchange(
    method: &str,
    authority: &str,
    path: &str,
    limit: Duration,
) -> std::io::Result<(u16, Vec<u8>)> {
    let unusable = |what: &str| std::io::Error::other(what.to_owned());
    if [method, path]
        .iter()
        .any(|text| text.contains(|c: char| c.is_control() || c == ' '))
    {
        return Err(unusable("method and path have no spaces"));
    }
    let with_port = if authority.contains(':') {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let mut last = unusable("the host has no address");
    for address in with_port.to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&address, limit) {
            Ok(stream) => stream,
            Err(error) => {
                last = error;
                continue;
            }
        };
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        // In one piece: a server may answer and close after the first.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {authority}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
        return parse(answer).ok_or_else(|| unusable("the answer is not HTTP"));
    }
    Err(last)
}

fn parse(answer: Vec<u8>) -> Option<(u16, Vec<u8>)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(&answer).ok()? else {
        return None;
    };
    let status = response.code?;
    Some((status, answer[head..].to_vec()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers each connection in turn with the next text.
    fn serve(answers: Vec<&'static str>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        port
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    const READY: &str = "HTTP/1.0 200 OK\r\n\r\n";
    const NOT_READY: &str = "HTTP/1.0 503 Service Unavailable\r\n\r\n";

    #[test]
    fn waiting_ends_when_the_proxy_is_ready() {
        let port = serve(vec![NOT_READY, NOT_READY, READY]);
        let url = format!("--url http://127.0.0.1:{port}/healthz/ready --periodMillis=1");
        wait(&words(&url)).unwrap();
        let port = serve(vec![NOT_READY]);
        let url = format!("--url http://127.0.0.1:{port}/ --timeoutSeconds 0");
        assert!(matches!(wait(&words(&url)), Err(ToolError::NotReady(..))));
        for wrong in ["--what 1", "--url ftp://x", "--url", "--periodMillis x"] {
            assert!(
                matches!(wait(&words(wrong)), Err(ToolError::Usage(_))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn requests_fail_with_the_status() {
        let port = serve(vec![READY, NOT_READY]);
        request(&words(&format!("--debug-port={port} POST drain"))).unwrap();
        let refused = request(&words(&format!("--debug-port {port} GET /x")));
        assert!(matches!(refused, Err(ToolError::Request(text)) if text.contains("503")));
        for wrong in ["GET", "GET a b", "--debug-port x GET /"] {
            assert!(
                matches!(request(&words(wrong)), Err(ToolError::Usage(_))),
                "{wrong}"
            );
        }
    }
}
