//! What the command line looks like.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// An Istio-compatible service mesh in one binary.
#[derive(Debug, Parser)]
#[command(
    name = "lateen",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring up a mesh on this machine and apply manifests
    #[command(
        after_help = "Examples:\n  lateen up -f app/\n  lateen up -f app.yaml -f routes.yaml --detach"
    )]
    Up(UpArguments),
    /// End the mesh; its state folder stays, and the next `up` continues from it
    Down(DownArguments),
    /// What runs and how to reach it
    Status(StatusArguments),
    /// A guided tour of one scenario, ending with the mesh up
    Demo(DemoArguments),
    /// Call a URL many times and say how long the answers took
    #[command(
        after_help = "Examples:\n  lateen load http://127.0.0.1:8080/\n  lateen load -c 3 -n 30 --rate 0 http://localhost/status/200\n  lateen load --rate 500 -t 30s -o json http://localhost/"
    )]
    Load(LoadArguments),
    /// Images for pods: load, pull, list, remove
    #[command(
        subcommand,
        after_help = "Examples:\n  docker save app:1 | lateen image load -\n  lateen image load app.tar\n  lateen image ls"
    )]
    Image(ImageCommand),
    /// Add the sidecar to the workloads of manifests and print the result
    Inject(InjectArguments),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
    /// Run the control plane (in a pod)
    #[command(hide = true)]
    Controlplane(lateen_control::command::Arguments),
    /// Run the proxy (in a pod)
    #[command(hide = true, disable_help_flag = true)]
    Proxy(Forwarded),
    /// Set a pod's redirect rules (in a pod's init container)
    #[command(hide = true, disable_help_flag = true)]
    Init(Forwarded),
    /// Run a demo workload (in a pod)
    #[command(hide = true)]
    Sample {
        /// Name of the workload
        name: String,
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The process inside the mesh's namespaces
    #[command(hide = true, disable_help_flag = true)]
    Inside(Forwarded),
    /// Remove a folder inside the mesh's namespaces
    #[command(hide = true, disable_help_flag = true)]
    Purge(Forwarded),
    /// Set up a container and run its program
    #[command(hide = true, disable_help_flag = true)]
    Container(Forwarded),
}

/// Arguments that another part of the program parses.
#[derive(Debug, Args)]
pub(crate) struct Forwarded {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StateArguments {
    /// Folder of the mesh's state [default: $XDG_STATE_HOME/lateen or ~/.local/state/lateen]
    #[arg(long, value_name = "DIR", env = "LATEEN_STATE")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DownArguments {
    /// Remove the state folder, too: the next `up` starts afresh
    #[arg(long)]
    pub(crate) purge: bool,
    #[command(flatten)]
    pub(crate) state: StateArguments,
}

#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// Manifests to apply: files, folders, or - for standard input; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub(crate) files: Vec<PathBuf>,
    /// Return once everything is ready, and leave the mesh running
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Address of the Kubernetes API [default: port 6443 on a loopback address of the mesh's own]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) api_address: Option<std::net::SocketAddr>,
    /// Nameserver for names outside the mesh; may be repeated [default: those of /etc/resolv.conf]
    #[arg(long = "nameserver", value_name = "ADDRESS[:PORT]", value_parser = nameserver)]
    pub(crate) nameservers: Vec<std::net::SocketAddr>,
    #[command(flatten)]
    pub(crate) state: StateArguments,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Output format
    #[arg(short, long, default_value = "table")]
    pub(crate) output: OutputFormat,
    #[command(flatten)]
    pub(crate) state: StateArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people
    Table,
    /// For programs
    Json,
    /// For programs, as YAML
    Yaml,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// The scenario
    pub(crate) scenario: Scenario,
    /// For sticky-sessions: time without a call after which a user is free, 1s to 10m; the documents say 60s
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub(crate) idle: Idle,
    #[command(flatten)]
    pub(crate) state: StateArguments,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArguments {
    /// What to call
    pub(crate) url: String,
    /// Connections, each with one request at a time
    #[arg(short, long, default_value_t = 8)]
    pub(crate) connections: usize,
    /// Requests a second, all connections together; 0 is as fast as answers come
    #[arg(short = 'q', long, value_name = "RATE", default_value_t = 0.0)]
    pub(crate) rate: f64,
    /// Number of requests, instead of a time
    #[arg(short = 'n', long, value_name = "NUMBER")]
    pub(crate) requests: Option<u64>,
    /// How long to go on
    #[arg(short = 't', long, value_name = "TIME", default_value = "5s")]
    pub(crate) duration: Time,
    /// Longest wait for an answer
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub(crate) timeout: Time,
    /// Method [default: GET, POST with --data]
    #[arg(short = 'X', long)]
    pub(crate) method: Option<String>,
    /// Header, NAME: VALUE; may be repeated
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,
    /// Body
    #[arg(short, long)]
    pub(crate) data: Option<String>,
    /// Speak HTTP/2
    #[arg(long)]
    pub(crate) http2: bool,
    /// Authorities to trust, as PEM, instead of the system's
    #[arg(long, value_name = "PATH")]
    pub(crate) ca: Option<PathBuf>,
    /// Trust every server
    #[arg(short = 'k', long)]
    pub(crate) insecure: bool,
    /// Output format
    #[arg(short, long, default_value = "table")]
    pub(crate) output: OutputFormat,
}

/// A time above zero, e.g. `500ms` or `1m`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(pub(crate) Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed: lateen_api::Duration = text.parse().map_err(|error| format!("{error}"))?;
        match u64::try_from(parsed.as_nanos()) {
            Ok(nanos) if nanos > 0 => Ok(Self(Duration::from_nanos(nanos))),
            _ => Err("must be above zero".to_owned()),
        }
    }
}

/// A time as Kubernetes writes it, e.g. `60s`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle(pub(crate) Duration);

impl FromStr for Idle {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Time(time) = text.parse()?;
        if (Duration::from_secs(1)..=Duration::from_secs(600)).contains(&time) {
            Ok(Self(time))
        } else {
            Err("must be 1s to 10m".to_owned())
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Three stateful backends behind a gateway: routing by header or body, users who stay while replicas come and go
    StickySessions,
    /// The book store of Istio's documentation: versions by user and by weight, delays, faults, timeouts
    Bookinfo,
    /// A second version of a site for a tenth of the requests, then for half
    Canary,
    /// One connection and one waiting request: what the sidecar answers itself, counted
    CircuitBreaking,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Load images from archives of `docker save`, or from folders or archives with an OCI layout
    Load {
        /// Archives or folders; - is an archive on standard input
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// A name for the one image of an archive, instead of its own
        #[arg(long, value_name = "NAME")]
        name: Option<lateen_image::Reference>,
    },
    /// Pull an image from its registry, with the credentials of Docker's configuration
    Pull {
        /// The image
        name: lateen_image::Reference,
    },
    /// List the images that are here
    Ls {
        /// Print JSON instead of a table
        #[arg(short, long)]
        output: Option<ListFormat>,
    },
    /// Remove images; pods that run them go on
    Rm {
        /// The images
        #[arg(required = true, value_name = "NAME")]
        names: Vec<lateen_image::Reference>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// One JSON document
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct InjectArguments {
    /// Manifests: files, folders, or - for standard input; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// A nameserver's address; the port is 53 if there is none.
fn nameserver(text: &str) -> Result<std::net::SocketAddr, String> {
    let whole = text.parse::<std::net::SocketAddr>();
    let address = whole.or_else(|_| text.parse::<std::net::IpAddr>().map(|ip| (ip, 53).into()));
    address.map_err(|_| {
        "an IP address is needed, with or without a port: 10.0.0.1, 10.0.0.1:5353, [fd00::1]:53"
            .into()
    })
}
