//! The arguments of the command, in the words of Istio's agent.

use super::{CommandError, usage};

/// Flags of Istio's agent that have no meaning here, as logs are configured differently.
const IGNORED_FLAGS: [&str; 13] = [
    "--proxyLogLevel",
    "--proxyComponentLogLevel",
    "--log_output_level",
    "--log_caller",
    "--log_stacktrace_level",
    "--log_target",
    "--log_rotate",
    "--outlierLogPath",
    "--trust-domain",
    "--stsPort",
    "--serviceCluster",
    "--meshConfig",
    "--templateFile",
];

/// The same without a value.
const IGNORED_SWITCHES: [&str; 1] = ["--log_as_json"];

/// The arguments.
pub(super) struct Arguments {
    /// `sidecar` or `router`.
    pub(super) role: String,
    /// Domain of the node; that of its namespace unless it is given.
    pub(super) domain: Option<String>,
    /// Threads that serve traffic; zero for one per core.
    pub(super) concurrency: Option<usize>,
}

impl Arguments {
    pub(super) fn parse(arguments: &[String]) -> Result<Self, CommandError> {
        let mut words = arguments.iter();
        let role = words.next().map_or("", String::as_str);
        if !matches!(role, "sidecar" | "router") {
            return Err(usage(format!(
                "expected `proxy sidecar` or `proxy router`, not `{role}`"
            )));
        }
        let mut parsed = Self {
            role: role.to_owned(),
            domain: None,
            concurrency: None,
        };
        while let Some(word) = words.next() {
            let (flag, inline) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let mut value = || {
                inline
                    .clone()
                    .or_else(|| words.next().cloned())
                    .ok_or_else(|| usage(format!("flag `{flag}` needs a value")))
            };
            match flag {
                "--domain" => parsed.domain = Some(value()?),
                "--concurrency" => {
                    let count = value()?;
                    let count = count.parse();
                    parsed.concurrency = Some(
                        count.map_err(|_| usage("--concurrency must be a number".to_owned()))?,
                    );
                }
                _ if IGNORED_SWITCHES.contains(&flag) => {}
                _ if IGNORED_FLAGS.contains(&flag) => {
                    value()?;
                }
                _ => return Err(usage(format!("unknown argument `{word}` of proxy {role}"))),
            }
        }
        Ok(parsed)
    }
}
