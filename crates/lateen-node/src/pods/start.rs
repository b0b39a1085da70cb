//! Preparing a container and starting it: image, environment, volumes, rights, log.

use std::io;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, SecurityContext};

use super::console::{Console, Followers, Wanted};
use super::shared::Shared;
use super::supervise::Run;
use super::{environment, volumes};
use crate::container::{Bind, EXECUTABLE, Launch, ProgramSpec, RootSpec, Spec, Streams, launch};
use crate::events::Severity;
use crate::{images, logs};

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

/// Prepares and starts one run.
pub(super) async fn start(shared: &Arc<Shared>, container: &Container) -> Result<Run, NotStarted> {
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
    let image = container.image.as_deref().unwrap_or_default();
    let command = container.command.as_deref().unwrap_or_default();
    let args = container.args.as_deref().unwrap_or_default();
    let program = context
        .catalogue
        .program(image, command, args)
        .map_err(|error| NotStarted {
            reason: "Failed",
            message: error.to_string(),
            waiting: match error {
                images::ImageError::NoCommand(_) => "CreateContainerError",
                _ => "ErrImagePull",
            },
            ran: false,
        })?;
    let path = shared.field_path(&container.name);
    let message = format!("Container image \"{image}\" already present on machine");
    context
        .events
        .pod(&pod, Some(&path), Severity::Normal, "Pulled", message);

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

    let security = Security::of(shared, container);
    let expand = |word: &String| environment::expand(word, &variables);
    let spec = ProgramSpec {
        command: program.command.iter().map(expand).collect(),
        folder: container.working_dir.clone(),
        user: security.user,
        group: security.group,
        groups: security.groups,
        network_admin: program.network_admin || security.network_admin,
        terminal: container.tty.unwrap_or(false),
        environment: variables,
    };
    let root = RootSpec {
        staging: shared
            .folder
            .staging()
            .map_err(|error| config(error.to_string()))?,
        executable: context.config.executable.clone(),
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
    let (streams, console) = open_streams(shared, container, security.user).map_err(failed)?;
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
    })
}

/// Makes the run's streams, whose output goes to its log and to those who attach.
fn open_streams(
    shared: &Arc<Shared>,
    container: &Container,
    user: Option<u32>,
) -> io::Result<(Streams, Console)> {
    let wanted = Wanted {
        input: container.stdin.unwrap_or(false),
        output: true,
        error: true,
        terminal: container.tty.unwrap_or(false),
        user,
    };
    let (streams, ends) = wanted.open()?;
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
    Ok((streams, console))
}

/// User, group and rights of a container: its own settings before the pod's.
struct Security {
    user: Option<u32>,
    group: Option<u32>,
    groups: Vec<u32>,
    network_admin: bool,
    read_only: bool,
}

impl Security {
    fn of(shared: &Shared, container: &Container) -> Self {
        let pod = shared.pod();
        let of_pod = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.security_context.as_ref());
        let own: Option<&SecurityContext> = container.security_context.as_ref();
        let id = |id: Option<i64>| id.and_then(|id| u32::try_from(id).ok());
        let user = own
            .and_then(|own| id(own.run_as_user))
            .or_else(|| of_pod.and_then(|of_pod| id(of_pod.run_as_user)));
        let group = own
            .and_then(|own| id(own.run_as_group))
            .or_else(|| of_pod.and_then(|of_pod| id(of_pod.run_as_group)));
        let mut groups: Vec<u32> = of_pod
            .and_then(|of_pod| of_pod.supplemental_groups.as_ref())
            .into_iter()
            .flatten()
            .filter_map(|group| u32::try_from(*group).ok())
            .collect();
        groups.extend(of_pod.and_then(|of_pod| id(of_pod.fs_group)));
        let added = own.and_then(|own| own.capabilities.as_ref()?.add.as_ref());
        let network_admin = added.into_iter().flatten().any(|name| {
            matches!(
                name.trim_start_matches("CAP_"),
                "NET_ADMIN" | "NET_RAW" | "ALL"
            )
        });
        let read_only = own
            .and_then(|own| own.read_only_root_filesystem)
            .unwrap_or(false);
        // With one user id only, everybody is that user.
        let range = shared.context.config.user_range;
        let exists = |id: &u32| range && *id < 65_536;
        Self {
            user: user.filter(exists),
            group: group.or(user).filter(exists),
            groups: groups.into_iter().filter(exists).collect(),
            network_admin,
            read_only,
        }
    }
}
