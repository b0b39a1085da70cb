//! Preparing a container and starting it: image, environment, volumes, rights, log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Container;

use super::console::{Console, Ends, Followers, Wanted};
use super::security::Security;
use super::shared::Shared;
use super::supervise::Run;
use super::{environment, volumes};
use crate::container::{Base, Bind, EXECUTABLE, Launch, ProgramSpec, RootSpec, Spec, launch};
use crate::events::Severity;
use crate::images::{News, Program};
use crate::logs;

/// Size of each in-memory folder of a container (root, `/tmp`, `/run`, ...), in bytes.
const MEMORY_LIMIT: u64 = 256 << 20;

/// Why a run did not begin.
pub(super) struct NotStarted {
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// The reason shown while the next try is waited for.
    pub(super) waiting: &'static str,
    /// Was a process started at all, so that it counts as a run?
    pub(super) ran: bool,
}

/// Finds out what the container runs, and fetches what that needs. May take long; it is no harm to drop it.
pub(super) async fn program(shared: &Shared, container: &Container) -> Result<Program, NotStarted> {
    let context = &shared.context;
    let pod = shared.pod();
    let image = container.image.as_deref().unwrap_or_default();
    let tell = |news: News| {
        let (severity, reason, message) = match news {
            News::Present => (
                Severity::Normal,
                "Pulled",
                format!("Container image \"{image}\" already present on machine"),
            ),
            News::Pulling => (
                Severity::Normal,
                "Pulling",
                format!("Pulling image \"{image}\""),
            ),
            News::Pulled(took, bytes) => (
                Severity::Normal,
                "Pulled",
                format!(
                    "Successfully pulled image \"{image}\" in {:.3}s. Image size: {bytes} bytes.",
                    took.as_secs_f64()
                ),
            ),
            News::Stale(why) => (
                Severity::Warning,
                "Pulled",
                format!(
                    "Container image \"{image}\" is the one on machine; it cannot be pulled: {why}"
                ),
            ),
        };
        shared.tell(&container.name, severity, reason, message);
    };
    let images = &context.images;
    let program = images.program(&context.config.client, &pod, container, tell);
    program.await.map_err(|error| NotStarted {
        reason: "Failed",
        waiting: error.waiting(),
        message: error.to_string(),
        ran: false,
    })
}

/// Prepares and starts one run.
pub(super) async fn start(
    shared: &Arc<Shared>,
    container: &Container,
    program: Program,
) -> Result<Run, NotStarted> {
    let config = |message: String| NotStarted {
        reason: "Failed",
        message,
        waiting: "CreateContainerConfigError",
        ran: false,
    };
    let context = &shared.context;
    let pod = shared.pod();
    let network = shared
        .network()
        .ok_or_else(|| config("the pod has no network".into()))?;
    let path = shared.field_path(&container.name);
    let services = context.world.services();
    let sources = environment::Sources {
        client: &context.config.client,
        pod: &pod,
        address: network.address(),
        node_address: context.config.network.node_address(),
        services: &services,
    };
    let variables = environment::build(&sources, container, &program.environment)
        .await
        .map_err(|error| config(error.to_string()))?;
    let mut binds = shared.binds();
    let mounted = volumes::binds(&pod, &shared.folder, container, &variables);
    binds.extend(mounted.map_err(|error| config(error.to_string()))?);
    if let Some(source) = program.shown.clone() {
        let name = source.file_name().unwrap_or_default();
        let target = Path::new(EXECUTABLE).with_file_name(name);
        binds.push(Bind {
            source,
            target,
            read_only: true,
        });
    }
    let message_file = shared
        .folder
        .termination_message(&container.name)
        .map_err(|error| config(error.to_string()))?;
    let target = container
        .termination_message_path
        .as_deref()
        .unwrap_or("/dev/termination-log");
    binds.push(Bind {
        source: message_file,
        target: target.into(),
        read_only: false,
    });

    let security = Security::of(shared, container, &program).map_err(config)?;
    let image = program.image.as_ref();
    let folder = container
        .working_dir
        .clone()
        .or_else(|| image?.folder.clone());
    let base = match image {
        None => Base::Host,
        Some(image) => Base::Image {
            layers: image.layers.clone(),
            writable: shared
                .folder
                .writable(&container.name)
                .map_err(|error| config(error.to_string()))?,
            folder: folder.as_ref().map(PathBuf::from),
        },
    };
    let image_id = image.map(|image| image.id.clone()).unwrap_or_default();
    shared.update(&container.name, |record| record.image_id = image_id);
    let expand = |word: &String| environment::expand(word, &variables);
    let spec = ProgramSpec {
        command: program.command.iter().map(expand).collect(),
        folder,
        user: security.user,
        group: security.group,
        groups: security.groups,
        capabilities: security.capabilities,
        stand_in: image.is_none(),
        terminal: container.tty.unwrap_or(false),
        environment: variables,
    };
    let root = RootSpec {
        staging: shared
            .folder
            .staging()
            .map_err(|error| config(error.to_string()))?,
        executable: context.config.executable.clone(),
        base,
        binds,
        hostname: super::files::hostname(&pod),
        read_only: security.read_only,
        memory_limit: MEMORY_LIMIT,
        user: security.user,
    };
    let failed = |error: io::Error| NotStarted {
        reason: "Failed",
        message: error.to_string(),
        waiting: "RunContainerError",
        ran: true,
    };
    let (streams, ends) = wanted(container, security.user).open().map_err(failed)?;
    context.events.pod(
        &pod,
        Some(&path),
        Severity::Normal,
        "Created",
        format!("Created container: {}", container.name),
    );
    let namespace = network.namespace().try_clone().map_err(failed)?;
    let order = Launch {
        executable: context.config.executable.clone(),
        spec: Spec::Container {
            root,
            program: spec.clone(),
        },
        streams,
    };
    let running = launch(namespace, order).await.map_err(failed)?;
    let console = follow(shared, container, ends).map_err(failed)?;
    context.events.pod(
        &pod,
        Some(&path),
        Severity::Normal,
        "Started",
        format!("Started container {}", container.name),
    );
    Ok(Run {
        container: container.clone(),
        network,
        running,
        program: spec,
        console: Arc::new(console),
        executable: context.config.executable.clone(),
        stop_signal: image.and_then(|image| image.stop_signal),
    })
}

/// The streams that a container asks for.
fn wanted(container: &Container, user: Option<u32>) -> Wanted {
    Wanted {
        input: container.stdin.unwrap_or(false),
        output: true,
        error: true,
        terminal: container.tty.unwrap_or(false),
        user,
    }
}

/// Lets the output of a container that was started go to its log and to those who attach.
fn follow(shared: &Arc<Shared>, container: &Container, mut ends: Ends) -> io::Result<Console> {
    ends.take_terminal()?;
    let path = shared.log(&container.name);
    shared.forget_old_logs(&container.name);
    let followers = Arc::new(Followers::new());
    let capturing = logs::capture(path, ends.output, ends.error, followers.clone());
    let task = tokio::spawn(async move {
        if let Err(error) = capturing.await {
            tracing::warn!(%error, "a container's log is lost");
        }
    });
    shared.set_log_task(&container.name, task);
    let console = Console {
        input: ends.input,
        input_once: container.stdin_once.unwrap_or(false),
        terminal: ends.terminal,
        followers,
    };
    Ok(console)
}
