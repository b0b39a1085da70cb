//! `lateen inject`: adds the sidecar to the workloads of manifests.

use lateen_control::inject::{InjectConfig, inject_documents};

use crate::cli::InjectArguments;
use crate::exit::{CommandError, Result, chain};
use crate::{manifests, print};

/// Prints the manifests with the sidecar added, as a YAML stream; what was left alone, and why, goes to standard error.
pub(crate) fn run(arguments: &InjectArguments) -> Result<()> {
    let config = InjectConfig::default();
    for (file, text) in manifests::texts(&arguments.files).map_err(CommandError::usage)? {
        let (injected, reports) = inject_documents(&text, &config).map_err(|error| {
            CommandError::usage(format!("{}: {}", file.display(), chain(&error)))
        })?;
        for report in reports {
            if let Some(skipped) = report.skipped {
                print::note(&format!(
                    "{}: {} was left alone: {skipped}",
                    file.display(),
                    report.workload
                ));
            }
            for warning in report.warnings {
                print::note(&format!(
                    "{}: {}: {warning}",
                    file.display(),
                    report.workload
                ));
            }
        }
        println!("---\n{}", injected.trim_end());
    }
    Ok(())
}
