//! Where the processes of a mesh write what happens.

use tracing_subscriber::EnvFilter;

/// Writes log lines to standard error: warnings, or what `LATEEN_LOG` asks for (`debug`, `lateen_node=debug`, ...).
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env("LATEEN_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    // A second call finds the first one's subscriber, which serves as well.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}
