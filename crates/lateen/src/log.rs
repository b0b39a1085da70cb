//! Where the processes of a mesh write what happens.

use tracing_subscriber::{EnvFilter, reload};

/// Writes log lines to standard error: warnings, or what `LATEEN_LOG` asks for (`debug`, `lateen_node=debug`, ...).
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env("LATEEN_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    // A second call finds the first one's subscriber, which serves as well.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_filter_reloading();
    let filter = builder.reload_handle();
    if builder.try_init().is_ok() {
        lateen_proxy::logging::control(Box::new(move |wanted| {
            if let Some(wanted) = wanted {
                let wanted = EnvFilter::try_new(wanted).map_err(|error| error.to_string())?;
                filter
                    .reload(wanted)
                    .map_err(|error: reload::Error| error.to_string())?;
            }
            filter
                .with_current(ToString::to_string)
                .map_err(|error| error.to_string())
        }));
    }
}
