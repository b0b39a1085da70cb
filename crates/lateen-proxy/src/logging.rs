//! The level of the log, which the admin interface changes while the process runs.

use std::sync::OnceLock;

/// Takes a filter such as `debug` or `lateen_proxy=debug,info`, if there is a new one, and answers with the filter in
/// effect.
pub type LogControl = Box<dyn Fn(Option<&str>) -> Result<String, String> + Send + Sync>;

static CONTROL: OnceLock<LogControl> = OnceLock::new();

/// Says how the level is changed. Only the first call has an effect: there is one log per process.
pub fn control(control: LogControl) {
    let _ = CONTROL.set(control);
}

/// Changes the level, in Envoy's words: `level` or `logger:level,...`.
pub(crate) fn change(wanted: Option<&str>) -> Result<String, String> {
    let Some(control) = CONTROL.get() else {
        return Err("the level of this process's log cannot be changed".to_owned());
    };
    let Some(wanted) = wanted else {
        return control(None);
    };
    let parts: Result<Vec<String>, String> = wanted.split(',').map(directive).collect();
    control(Some(&parts?.join(",")))
}

/// One part in the words of our filter.
fn directive(part: &str) -> Result<String, String> {
    let level = |name: &str| {
        Ok(match name {
            "trace" | "debug" | "info" | "error" | "off" => name.to_owned(),
            "warning" | "warn" => "warn".to_owned(),
            "critical" => "error".to_owned(),
            _ => return Err(format!("unknown logger level `{name}`")),
        })
    };
    match part.split_once(':') {
        None => level(part),
        Some((logger, name)) => Ok(format!("{logger}={}", level(name)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_understood_in_envoys_words() {
        for (given, ours) in [
            ("debug", Ok("debug")),
            ("warning", Ok("warn")),
            ("critical", Ok("error")),
            ("h2:trace", Ok("h2=trace")),
            ("loud", Err("unknown logger level `loud`")),
        ] {
            assert_eq!(
                directive(given),
                ours.map(str::to_owned).map_err(str::to_owned)
            );
        }
    }
}
