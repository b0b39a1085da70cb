//! httpbin: answers that say what was asked, or that behave as asked (status, delay, size, pace).
//!
//! Two forms are known under this name: the older one, whose echoed headers are strings (`httpbin`), and the one rewritten
//! in Go, whose echoed headers are lists (`go-httpbin`). Not served: `/digest-auth`, `/brotli`, `/range`, JPEG and WebP.

mod access_log;
mod auth;
mod echo;
mod formats;
mod json;
mod multipart;
mod navigation;
mod pace;
mod status;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::Error;
use crate::respond::{self, FullResponse};
use crate::server::{self, FullRequest};

/// Which of the two programs this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Echoed values are strings.
    Python,
    /// Echoed values are lists of strings.
    Go,
}

/// The server.
#[derive(Debug)]
pub(crate) struct Httpbin {
    form: Form,
    access_log: bool,
}

/// What [`run`] was told.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    port: u16,
    access_log: bool,
}

/// Runs the server. Arguments: those of the server program that the original runs in, of which the address to bind
/// (`-b`) and `--access-logfile -` matter here.
pub(crate) async fn run(form: Form, arguments: &[String]) -> Result<(), Error> {
    let (name, port) = match form {
        Form::Python => ("httpbin", 80),
        Form::Go => ("go-httpbin", 8080),
    };
    let settings = settings(arguments, port).map_err(|why| Error::Arguments {
        name: name.to_owned(),
        why,
    })?;
    let httpbin = Arc::new(Httpbin {
        form,
        // The one in Go always logs.
        access_log: settings.access_log || form == Form::Go,
    });
    server::serve(name, settings.port, move |request| {
        let httpbin = httpbin.clone();
        async move { httpbin.answer(request).await }
    })
    .await
}

fn settings(arguments: &[String], port: u16) -> Result<Settings, String> {
    let mut settings = Settings {
        port,
        access_log: false,
    };
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let (option, inline) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (word, None),
        };
        if !option.starts_with('-') {
            // The name of the application, which is this one.
            continue;
        }
        let value = inline
            .or_else(|| words.next())
            .ok_or_else(|| format!("{option} needs a value"))?;
        match option {
            "-b" | "--bind" => settings.port = bound_port(value)?,
            "-port" | "--port" => {
                settings.port = value
                    .parse()
                    .map_err(|_| format!("{value:?} is not a port"))?;
            }
            "--access-logfile" if value == "-" => settings.access_log = true,
            // How the original is run inside; nothing of it can be seen from outside.
            "-k" | "--worker-class" | "-w" | "--workers" | "-t" | "--timeout" | "--threads"
            | "--log-level" | "--capture-output" => {}
            _ => {
                return Err(format!(
                    "{option} {value} is not known; known: -b 0.0.0.0:PORT, --access-logfile -"
                ));
            }
        }
    }
    Ok(settings)
}

fn bound_port(bind: &str) -> Result<u16, String> {
    let (host, port) = bind.rsplit_once(':').unwrap_or((bind, "8000"));
    if !matches!(host, "0.0.0.0" | "[::]" | "*" | "") {
        return Err(format!(
            "cannot bind to {bind:?} alone: give 0.0.0.0:PORT or [::]:PORT"
        ));
    }
    port.parse().map_err(|_| format!("{port:?} is not a port"))
}

impl Httpbin {
    /// Answers one request, and logs it once the answer is sent.
    pub(crate) async fn answer(&self, request: FullRequest) -> FullResponse {
        let line = self.access_log.then(|| access_log::Line::of(&request));
        let cors = cross_origin(&request);
        let path = request.uri().path().to_owned();
        let segments: Vec<String> = path
            .split('/')
            .skip(1)
            .map(|part| {
                percent_encoding::percent_decode_str(part)
                    .decode_utf8_lossy()
                    .into_owned()
            })
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let mut response = self.respond(&segments, &request).await;
        response.headers_mut().extend(cors);
        match line {
            Some(line) => line.logged_when_sent(response),
            None => response,
        }
    }

    async fn respond(&self, segments: &[&str], request: &FullRequest) -> FullResponse {
        let allowed = methods(segments);
        if *request.method() == Method::OPTIONS {
            let mut response = respond::typed(StatusCode::OK, "text/html; charset=utf-8", "");
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static(allowed));
            return response;
        }
        if !allowed
            .split(", ")
            .any(|method| method == request.method().as_str())
        {
            return respond::method_not_allowed(allowed);
        }
        let form = self.form;
        match segments {
            ["get"] => echo::get(form, request),
            ["post" | "put" | "patch" | "delete"] => echo::with_body(form, request),
            ["anything", ..] => echo::anything(form, request),
            ["headers"] => echo::headers(form, request),
            ["ip"] => echo::ip(form, request),
            ["user-agent"] => echo::user_agent(form, request),
            ["hostname"] => echo::hostname(form),
            ["status", codes] => status::status(codes),
            ["unstable"] => status::unstable(request),
            ["delay", seconds] => pace::delay(form, seconds, request).await,
            ["drip"] => pace::drip(request).await,
            ["bytes", count] => pace::bytes(count, request),
            ["stream-bytes", count] => pace::stream_bytes(count, request),
            ["stream", count] => pace::stream(form, count, request),
            ["redirect", count] => navigation::redirect(count, request),
            ["relative-redirect", count] => navigation::relative_redirect(count),
            ["absolute-redirect", count] => navigation::absolute_redirect(count, request),
            ["redirect-to"] => navigation::redirect_to(request),
            ["cookies"] => navigation::cookies(form, request),
            ["cookies", "set"] => navigation::set_cookies(request),
            ["cookies", "set", name, value] => navigation::set_cookie(name, value),
            ["cookies", "delete"] => navigation::delete_cookies(request),
            ["links", count, ..] => navigation::links(count, segments.get(2).copied()),
            ["cache"] => navigation::cache(form, request),
            ["cache", seconds] => navigation::cache_for(form, seconds, request),
            ["etag", tag] => navigation::etag(form, tag, request),
            ["response-headers"] => navigation::response_headers(form, request),
            ["basic-auth", user, password] => auth::basic(form, user, password, false, request),
            ["hidden-basic-auth", user, password] => {
                auth::basic(form, user, password, true, request)
            }
            ["bearer"] => auth::bearer(form, request),
            ["gzip"] => formats::gzip(form, request),
            ["deflate"] => formats::deflate(form, request),
            ["base64", value] => formats::base64(value),
            ["uuid"] => formats::uuid(form),
            ["image"] => formats::image(request),
            ["image", kind] => formats::image_of(kind),
            [name] | [name, "utf8" | "post"] => {
                formats::fixed(form, name, segments.get(1).copied())
            }
            _ => formats::not_found(),
        }
    }
}

/// The methods of a path.
fn methods(segments: &[&str]) -> &'static str {
    match segments {
        ["post"] => "POST, OPTIONS",
        ["put"] => "PUT, OPTIONS",
        ["patch"] => "PATCH, OPTIONS",
        ["delete"] => "DELETE, OPTIONS",
        ["anything", ..] | ["status" | "delay", _] | ["redirect-to" | "unstable"] => {
            "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE"
        }
        ["response-headers"] => "GET, HEAD, POST, OPTIONS",
        _ => "GET, HEAD, OPTIONS",
    }
}

/// The headers that let scripts of any page read the answer.
fn cross_origin(request: &FullRequest) -> HeaderMap {
    let asked = request.headers();
    let mut headers = HeaderMap::new();
    let origin = asked.get(header::ORIGIN).cloned();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        origin.unwrap_or(HeaderValue::from_static("*")),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        HeaderValue::from_static("true"),
    );
    if *request.method() == Method::OPTIONS {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, PUT, DELETE, PATCH, OPTIONS"),
        );
        headers.insert(
            header::ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from_static("3600"),
        );
        if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
    }
    headers
}

/// The first value of a parameter of the query.
fn parameter(request: &FullRequest, name: &str) -> Option<String> {
    let query = request.uri().query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes())
        .find_map(|(known, value)| (known == name).then(|| value.into_owned()))
}
