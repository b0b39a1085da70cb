//! `lateen image`: the images that pods of this user's meshes run.

use std::path::{Path, PathBuf};

use lateen_image::{
    ContentStore, Credentials, LoadOptions, Progress, PullOptions, Reference, load, pull,
};
use serde_json::json;

use crate::cli::{ImageCommand, ListFormat};
use crate::exit::{CommandError, Result, chain};
use crate::print;

/// Where images are: `$XDG_DATA_HOME/lateen/images`, `~/.local/share/lateen/images`.
pub(crate) fn folder() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let base = base.or_else(home);
    base.unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("lateen/images")
}

/// `lateen image`.
pub(crate) fn run(command: ImageCommand) -> Result<()> {
    let store = ContentStore::open(folder()).map_err(|error| unavailable(&error))?;
    match command {
        ImageCommand::Load { paths, name } => load_all(&store, &paths, name),
        ImageCommand::Pull { name } => pull_one(&store, &name),
        ImageCommand::Ls { output } => list(&store, output),
        ImageCommand::Rm { names } => remove(&store, &names),
    }
}

fn load_all(store: &ContentStore, paths: &[PathBuf], name: Option<Reference>) -> Result<()> {
    let options = LoadOptions {
        name,
        ..LoadOptions::default()
    };
    for path in paths {
        let input = Path::new("/dev/stdin");
        let path = if path.as_os_str() == "-" { input } else { path };
        let names =
            load(store, path, &options).map_err(|error| CommandError::findings(chain(&error)))?;
        for name in names {
            println!("{name}");
        }
    }
    Ok(())
}

fn pull_one(store: &ContentStore, name: &Reference) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| unavailable(&error))?;
    let (progress, seen) = tokio::sync::watch::channel(Progress::default());
    let options = PullOptions {
        credentials: Credentials::of_docker()
            .map_err(|error| CommandError::usage(chain(&error)))?,
        progress: Some(progress),
        ..PullOptions::default()
    };
    let pulled = runtime.block_on(async {
        tokio::select! {
            pulled = pull(store, name, &options) => pulled,
            () = print::progress_of_bytes(seen) => std::future::pending().await,
        }
    });
    let image = pulled.map_err(|error| CommandError::unavailable(chain(&error)))?;
    println!("{}@{}", image.name, image.digest);
    Ok(())
}

fn list(store: &ContentStore, output: Option<ListFormat>) -> Result<()> {
    let entries = store.list().map_err(|error| unavailable(&error))?;
    match output {
        Some(ListFormat::Json) => {
            let rows: Vec<_> = entries
                .iter()
                .map(|entry| {
                    json!({
                        "name": entry.name.to_string(), "digest": entry.digest.to_string(),
                        "size": entry.size, "created": entry.created,
                    })
                })
                .collect();
            let text = serde_json::to_string_pretty(&rows).map_err(|error| unavailable(&error))?;
            println!("{text}");
        }
        None => {
            let rows = entries.iter().map(|entry| {
                let digest = entry.digest.to_string();
                let short = digest.trim_start_matches("sha256:").get(..12);
                let created = entry.created.as_deref().unwrap_or_default();
                vec![
                    entry.name.to_string(),
                    short.unwrap_or_default().to_owned(),
                    indicatif::HumanBytes(entry.size).to_string(),
                    created.get(..10).unwrap_or(created).to_owned(),
                ]
            });
            println!(
                "{}",
                print::table(&["name", "digest", "size", "created"], rows)
            );
        }
    }
    Ok(())
}

fn remove(store: &ContentStore, names: &[Reference]) -> Result<()> {
    let mut missing = Vec::new();
    for name in names {
        match store.remove(name).map_err(|error| unavailable(&error))? {
            Some(_) => println!("{name}"),
            None => missing.push(name.to_string()),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(
        CommandError::findings(format!("no image is called {}", missing.join(", ")))
            .advise("see what there is with: lateen image ls"),
    )
}

fn unavailable(error: &dyn std::error::Error) -> CommandError {
    CommandError::unavailable(chain(error))
}
