//! `/exec`: a program in a container, its streams at the client. `/attach`: the container's own streams.

use std::io;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::channels::{self, PROTOCOLS, Wish};
use super::session::{self, Ended, Source, Target};
use super::upgrade::Link;
use super::{Body, Query, text};
use crate::pods::console::Wanted;
use crate::pods::exec::{self, KillOnDrop};
use crate::pods::shared::Shared;
use crate::pods::supervise::Run;

/// What is to be connected with the client.
enum Program {
    /// A further program, started for it.
    Exec(Vec<String>),
    /// The container's own.
    Attach,
}

/// Answers a request for `/exec`; the session then runs by itself.
pub(super) fn answer(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
    container: &str,
    query: &Query,
) -> Response<Body> {
    let command = query.all("command").map(str::to_owned).collect();
    begin(request, shared, container, query, Program::Exec(command))
}

/// Answers a request for `/attach`; the session then runs by itself.
pub(super) fn attach(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
    container: &str,
    query: &Query,
) -> Response<Body> {
    begin(request, shared, container, query, Program::Attach)
}

fn begin(
    request: Request<Incoming>,
    shared: &Arc<Shared>,
    container: &str,
    query: &Query,
    program: Program,
) -> Response<Body> {
    let Some(run) = shared.run(container) else {
        return text(
            StatusCode::BAD_REQUEST,
            format!("container {container} is not running"),
        );
    };
    let wish = Wish {
        input: query.is_true("input") || query.is_true("stdin"),
        output: query.is_true("output") || query.is_true("stdout"),
        error: query.is_true("error") || query.is_true("stderr"),
        terminal: query.is_true("tty"),
    };
    let agreed = match PROTOCOLS.agree(request.headers()) {
        Ok(agreed) => agreed,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let response = agreed.response();
    tokio::spawn(async move {
        let served = match agreed.open(hyper::upgrade::on(request)).await {
            Ok(link) => serve(link, &run, wish, program).await,
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = served {
            // The client is gone: nobody is left to be told.
            tracing::debug!(%error, "exec or attach broke off");
        }
    });
    response
}

async fn serve(link: Link, run: &Run, wish: Wish, program: Program) -> io::Result<()> {
    let (mut sender, events) = channels::open(link, wish).await?;
    let status = match program {
        Program::Attach => {
            let console = &run.console;
            let source = Source::Followed {
                pieces: console.followers.follow(),
                output: wish.output,
                error: wish.error,
            };
            let target = Target {
                input: console.input.clone().filter(|_| wish.input),
                closes: console.input_once,
                terminal: wish
                    .terminal
                    .then(|| console.terminal.as_ref()?.try_clone().ok())
                    .flatten(),
            };
            match session::connect(&mut sender, events, &run.running, source, target).await? {
                // How the container ended is in the pod's status.
                Ended::Program(_) => session::status(0),
                Ended::Client => return Ok(()),
            }
        }
        Program::Exec(command) => {
            let wanted = Wanted {
                input: wish.input,
                output: wish.output,
                error: wish.error,
                terminal: wish.terminal,
                user: run.program.user,
            };
            let (streams, mut ends) = wanted.open()?;
            match exec::start(run, command, streams).await {
                Ok(running) => {
                    // Ends the program when the client is gone.
                    let running = KillOnDrop(running);
                    ends.take_terminal()?;
                    let source = Source::Pipes {
                        output: ends.output,
                        error: ends.error,
                    };
                    let target = Target {
                        input: ends.input,
                        closes: true,
                        terminal: ends.terminal,
                    };
                    match session::connect(&mut sender, events, &running.0, source, target).await? {
                        Ended::Program(code) => session::status(code),
                        Ended::Client => return Ok(()),
                    }
                }
                Err(error) => {
                    session::failure(format!("error executing command in container: {error}"))
                }
            }
        }
    };
    sender.finish(&status).await
}
