//! Any request: the server answers, and blames itself for nothing.

use std::panic::AssertUnwindSafe;
use std::sync::Mutex;

use http::{Request, Uri};
use http_body_util::BodyExt;
use tokio::runtime::{Builder, Runtime};

use super::{Server, User, full};

/// Inputs that a server takes before a new one is made. Objects of earlier inputs are part of the game.
const INPUTS: usize = 5000;

/// The first line is a method, a path with its query, and a media type; the rest is the body.
#[test]
fn requests() {
    let target = AssertUnwindSafe(Target {
        runtime: Builder::new_current_thread().enable_all().build().unwrap(),
        server: Mutex::new((0, None)),
    });
    bolero::check!(name = "api-requests")
        .with_iterations(0)
        .for_each(|bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (line, body) = bytes.split_at(end.unwrap_or(bytes.len()));
            let line = String::from_utf8_lossy(line);
            if let [method, path, media] = line.split(' ').collect::<Vec<_>>()[..] {
                target.take(method, path, media, body.get(1..).unwrap_or_default());
            }
        });
}

struct Target {
    runtime: Runtime,
    /// With the inputs that it has taken.
    server: Mutex<(usize, Option<Server>)>,
}

impl Target {
    fn take(&self, method: &str, path: &str, media: &str, body: &[u8]) {
        // A watch ends when its time does.
        if path.contains("watch") || Uri::try_from(path).is_err() {
            return;
        }
        let request = Request::builder().method(method).uri(path);
        let request = { request }.header("content-type", media);
        let Ok(request) = request.body(full(body.to_vec())) else {
            return;
        };
        let mut server = self.server.lock().unwrap();
        server.0 += 1;
        if server.0 % INPUTS == 1 {
            server.1 = Some(self.runtime.block_on(Server::start()));
        }
        let api = server.1.as_ref().unwrap().api.clone();
        let (code, body) = self.runtime.block_on(async {
            let response = api.handle(request, Some(User::admin())).await;
            let code = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (code, String::from_utf8_lossy(&body).into_owned())
        });
        // Without a node, and what it runs, some requests cannot be served.
        let known = code < 500 || matches!(code, 503 | 504)
            // Kubernetes blames itself for this.
            || body.contains("does not contain declared merge key");
        assert!(known, "{code}: {method} {path}: {body}");
    }
}
