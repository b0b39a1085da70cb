//! The demo workloads, each a small server that behaves as its original does.
//!
//! A workload runs as `lateen sample NAME [ARGUMENT]...`; the node's image catalogue maps well-known image names to such
//! commands. Nothing here knows of the mesh: a workload is an ordinary server that reads its environment.
//!
//! Start with [`run`].

mod backend;
mod bookinfo;
mod client;
mod flask;
mod html;
mod httpbin;
mod identity;
mod respond;
mod server;
mod tcp_echo;

#[cfg(test)]
mod testing;

/// The workloads that [`run`] knows, with one line each for help texts.
pub const NAMES: &[(&str, &str)] = &[
    (
        "backend",
        "answers /hit_backend with its own identity (arguments: SERVICE-NAME [PORT])",
    ),
    ("productpage", "the page of the book store"),
    ("details", "the book store's facts about books"),
    (
        "reviews",
        "the book store's reviews (arguments: v1|v2|v3 [RELEASE])",
    ),
    (
        "ratings",
        "the book store's stars (argument: v1, v2, v-faulty, v-delayed, v-unavailable, v-unhealthy)",
    ),
    (
        "flaskfrontend",
        "front end of the canary scenario (arguments: v1|v2 [PORT])",
    ),
    (
        "flaskbackend",
        "back end of the canary scenario (argument: [PORT])",
    ),
    (
        "httpbin",
        "answers that say what was asked (arguments: [-b 0.0.0.0:PORT] [--access-logfile -])",
    ),
    (
        "go-httpbin",
        "the same with lists of values, as the one in Go (argument: [-port PORT])",
    ),
    (
        "tcp-echo",
        "echoes lines with a prefix (arguments: PORT[,PORT]... PREFIX)",
    ),
];

/// Why a workload could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument is missing or makes no sense.
    #[error("sample {name}: {why}")]
    Arguments {
        /// The workload.
        name: String,
        /// What is wrong, and what to give.
        why: String,
    },
    /// The port could not be opened.
    #[error("sample {name}: cannot listen on port {port}: {source}")]
    Listen {
        /// The workload.
        name: String,
        /// The port.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// The runtime could not be started.
    #[error("sample {name}: cannot start: {source}")]
    Start {
        /// The workload.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no such workload.
    #[error("no sample is called {name:?}; known: {known}", known = known_names())]
    Unknown {
        /// What was asked for.
        name: String,
    },
}

/// Runs the workload `name` until the process is asked to stop (SIGTERM or SIGINT).
pub fn run(name: &str, arguments: &[String]) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Start {
            name: name.to_owned(),
            source,
        })?;
    runtime.block_on(async {
        match name {
            "backend" => backend::run(arguments).await,
            "productpage" => bookinfo::productpage::run(arguments).await,
            "details" => bookinfo::details::run(arguments).await,
            "reviews" => bookinfo::reviews::run(arguments).await,
            "ratings" => bookinfo::ratings::run(arguments).await,
            "flaskfrontend" => flask::frontend::run(arguments).await,
            "flaskbackend" => flask::backend::run(arguments).await,
            "httpbin" => httpbin::run(httpbin::Form::Python, arguments).await,
            "go-httpbin" => httpbin::run(httpbin::Form::Go, arguments).await,
            "tcp-echo" => tcp_echo::run(arguments).await,
            _ => Err(Error::Unknown {
                name: name.to_owned(),
            }),
        }
    })
}

fn known_names() -> String {
    NAMES
        .iter()
        .map(|(name, _)| *name)
        .collect::<Vec<_>>()
        .join(", ")
}
