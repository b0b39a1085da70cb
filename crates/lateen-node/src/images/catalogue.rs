//! Which program an image name stands for: the catalogue in `data/images.yaml`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use regex::Regex;
use serde::Deserialize;
use thiserror::Error;

use super::Program;
use crate::container::EXECUTABLE;
use crate::enter::find_program;

/// The catalogue that is built in; its head documents the format.
const BUILT_IN: &str = include_str!("../../data/images.yaml");

/// Why a row cannot be run. The message is what `kubectl describe` shows.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum CatalogueError {
    /// The row has nothing to run and the pod gives no command either.
    #[error("image {0:?} runs the host's programs: give the container a command")]
    NoCommand(String),
    /// The image stands for a program of this machine, which it lacks.
    #[error("image {image:?} runs {program:?} of this machine, which is not there: {install}")]
    Missing {
        /// The image.
        image: String,
        /// The program.
        program: String,
        /// How to get it.
        install: String,
    },
}

/// The rows, in order.
#[derive(Debug)]
pub(crate) struct Catalogue {
    rows: Vec<(Vec<Regex>, Row)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    images: Vec<String>,
    #[serde(default)]
    entrypoint: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    programs: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    fixed: bool,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    network_admin: bool,
    refused: Option<String>,
    host: Option<HostProgram>,
}

/// A program that the host must have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostProgram {
    program: String,
    install: String,
}

impl Catalogue {
    /// The catalogue that is built in.
    ///
    /// # Errors
    /// What is wrong with it, and where: a mistake in this repository.
    pub(crate) fn built_in() -> Result<Self, String> {
        Self::read(BUILT_IN)
    }

    fn read(yaml: &str) -> Result<Self, String> {
        let rows: Vec<Row> = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
        let compile = |pattern: &String| {
            Regex::new(&format!("^(?:{pattern})$")).map_err(|error| error.to_string())
        };
        let compiled = rows.into_iter().map(|row| {
            let patterns = row.images.iter().map(compile).collect::<Result<_, _>>()?;
            Ok((patterns, row))
        });
        Ok(Self {
            rows: compiled.collect::<Result<_, String>>()?,
        })
    }

    /// Does something run in the image's place?
    pub(crate) fn knows(&self, image: &str) -> bool {
        self.find(&normal(image))
            .is_some_and(|(row, _)| row.refused.is_none())
    }

    /// What may be used instead of an image that nothing stands in for.
    pub(crate) fn advice(&self, image: &str) -> Option<String> {
        self.find(&normal(image))?.0.refused.clone()
    }

    /// The program for a container with this image, `command` and `args`; nothing when nothing stands in for it.
    ///
    /// # Errors
    /// When the row leaves nothing to run.
    pub(crate) fn program(
        &self,
        image: &str,
        command: &[String],
        args: &[String],
    ) -> Result<Option<Program>, CatalogueError> {
        let name = normal(image);
        let found = self.find(&name);
        let Some((row, pattern)) = found.filter(|(row, _)| row.refused.is_none()) else {
            return Ok(None);
        };
        let fill = |words: &[String]| -> Vec<String> {
            let words = words
                .iter()
                .map(|word| pattern.replace(&name, word.as_str()).into_owned());
            words.collect()
        };
        let mut words = fill(&row.entrypoint);
        match (row.fixed, command, args) {
            (true, ..) | (false, [], []) => words.extend(fill(&row.args)),
            (false, [], args) => words.extend_from_slice(args),
            (false, command, args) => words = [command, args].concat(),
        }
        let Some(first) = words.first() else {
            return Err(CatalogueError::NoCommand(image.into()));
        };
        if let Some(replacement) = row.programs.get(first) {
            words.splice(..1, replacement.iter().cloned());
        }
        if words[0] == "lateen" {
            EXECUTABLE.clone_into(&mut words[0]);
        }
        Ok(Some(Program {
            command: words,
            environment: row.env.clone(),
            network_admin: row.network_admin,
            shown: row
                .host
                .as_ref()
                .map(|host| host.locate(image))
                .transpose()?,
            ..Program::default()
        }))
    }

    fn find(&self, name: &str) -> Option<(&Row, &Regex)> {
        self.rows.iter().find_map(|(patterns, row)| {
            let pattern = patterns.iter().find(|pattern| pattern.is_match(name))?;
            Some((row, pattern))
        })
    }
}

impl HostProgram {
    /// Where the program is: in `PATH`, or where its installers put it.
    fn locate(&self, image: &str) -> Result<PathBuf, CatalogueError> {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let usual = home.map(|home| home.join("go/bin").join(&self.program));
        find_program(&self.program)
            .or_else(|| usual.filter(|path| path.is_file()))
            .ok_or_else(|| CatalogueError::Missing {
                image: image.into(),
                program: self.program.clone(),
                install: self.install.clone(),
            })
    }
}

/// An image name without what does not tell images apart, and always with a tag.
fn normal(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn program(catalogue: &Catalogue, image: &str, command: &[String], args: &[String]) -> Program {
        match catalogue.program(image, command, args) {
            Ok(Some(program)) => program,
            other => panic!("{image}: {other:?}"),
        }
    }

    fn check(image: &str, command: &[&str], args: &[&str], expected: &[&str]) {
        let catalogue = Catalogue::built_in().unwrap();
        let program = program(&catalogue, image, &words(command), &words(args));
        assert_eq!(
            program.command,
            words(expected),
            "{image} {command:?} {args:?}"
        );
    }

    #[test]
    fn well_known_images_become_samples() {
        for n in ["1", "2", "3"] {
            let image = format!("kaleeswarankaruppusamy/k8s:backend{n}");
            let name = format!("backend-{n}");
            check(&image, &[], &[], &[EXECUTABLE, "sample", "backend", &name]);
        }
        let sample = [EXECUTABLE, "sample", "backend", "backend-2"];
        check("lateen.dev/samples/backend:1", &[], &["backend-2"], &sample);
    }

    #[test]
    fn images_of_the_book_store_become_its_services() {
        for (image, expected) in [
            (
                "istio/examples-bookinfo-productpage-v1:1.20.3",
                &["productpage"][..],
            ),
            ("docker.io/istio/examples-bookinfo-details-v1", &["details"]),
            (
                "registry.local:5000/x/examples-bookinfo-reviews-v3:1.10.1",
                &["reviews", "v3", "1.10.1"],
            ),
            (
                "istio/examples-bookinfo-reviews-v2",
                &["reviews", "v2", "latest"],
            ),
            (
                "istio/examples-bookinfo-ratings-v1:1.20.3",
                &["ratings", "v1"],
            ),
            (
                "istio/examples-bookinfo-ratings-v2:1.20.3",
                &["ratings", "v2"],
            ),
            (
                "istio/examples-bookinfo-ratings-v-faulty:1.20.3",
                &["ratings", "v-faulty"],
            ),
            ("singharunk/flaskfrontend:latest", &["flaskfrontend", "v1"]),
            ("singharunk/flaskfrontend:v2", &["flaskfrontend", "v2"]),
            ("singharunk/flaskbackend", &["flaskbackend"]),
            ("mccutchen/go-httpbin:v2.15.0", &["go-httpbin"]),
        ] {
            let expected = [&[EXECUTABLE, "sample"], expected].concat();
            check(image, &[], &[], &expected);
        }
    }

    #[test]
    fn httpbin_and_the_echo_take_the_arguments_of_their_images() {
        let httpbin = [EXECUTABLE, "sample", "httpbin"];
        let default = [&httpbin[..], &["-b", "0.0.0.0:80"]].concat();
        check("kennethreitz/httpbin", &[], &[], &default);
        check("docker.io/kong/httpbin:0.1.0", &[], &[], &default);
        let gunicorn = [
            "gunicorn",
            "--access-logfile",
            "-",
            "-b",
            "0.0.0.0:80",
            "httpbin:app",
        ];
        let expected = [&httpbin[..], &gunicorn[1..]].concat();
        check("kennethreitz/httpbin", &gunicorn, &[], &expected);
        check(
            "istio/tcp-echo-server:1.1",
            &[],
            &["9000", "one"],
            &[EXECUTABLE, "sample", "tcp-echo", "9000", "one"],
        );
    }

    #[test]
    fn curl_images_run_the_hosts_curl_or_another_program() {
        for image in [
            "tutum/curl",
            "curlimages/curl:8.16.0",
            "governmentpaas/curl-ssl",
        ] {
            check(
                image,
                &["/bin/sleep", "infinity"],
                &[],
                &["/bin/sleep", "infinity"],
            );
            check(image, &[], &["-s", "x"], &["curl", "-s", "x"]);
        }
    }

    #[test]
    fn images_that_nothing_stands_in_for_may_come_with_advice() {
        let catalogue = Catalogue::built_in().unwrap();
        for (image, advised) in [
            ("istio/examples-bookinfo-mongodb:1.20.3", true),
            ("istio/examples-bookinfo-mysqldb", true),
            ("example.com/app:1", false),
        ] {
            assert_eq!(catalogue.program(image, &[], &[]), Ok(None), "{image}");
            assert_eq!(catalogue.advice(image).is_some(), advised, "{image}");
            assert!(!catalogue.knows(image));
        }
        assert!(catalogue.knows("docker.io/library/busybox"));
    }

    #[test]
    fn programs_of_the_host_that_are_missing_are_named() {
        let yaml = "- {images: ['a:.*'], entrypoint: [a], host: {program: no-such-program, install: get it}}\n";
        let catalogue = Catalogue::read(yaml).unwrap();
        let error = catalogue.program("a", &[], &[]).unwrap_err().to_string();
        assert!(
            error.contains("no-such-program") && error.contains("get it"),
            "{error}"
        );
        let yaml = "- {images: ['a:.*'], entrypoint: [sh], host: {program: sh, install: get it}}\n";
        let shown = program(&Catalogue::read(yaml).unwrap(), "a", &[], &[]).shown;
        assert!(shown.is_some_and(|path| path.ends_with("sh")));
        let nothing = Catalogue::built_in().unwrap().program("host", &[], &[]);
        assert_eq!(nothing, Err(CatalogueError::NoCommand("host".into())));
    }

    #[test]
    fn lateen_runs_with_the_arguments_given() {
        let expected = [EXECUTABLE, "proxy", "sidecar"];
        check(
            "lateen.dev/lateen:0.1.0",
            &[],
            &["proxy", "sidecar"],
            &expected,
        );
        check(
            "lateen.dev/lateen:0.1.0",
            &["lateen"],
            &["proxy", "sidecar"],
            &expected,
        );
    }

    #[test]
    fn a_command_replaces_entry_point_and_arguments_as_in_kubernetes() {
        check("curlimages/curl", &[], &["-s", "x"], &["curl", "-s", "x"]);
        check("curlimages/curl:8", &["sleep"], &["1"], &["sleep", "1"]);
        check("docker.io/library/busybox", &[], &[], &["sh"]);
        check("host", &["sleep", "1"], &[], &["sleep", "1"]);
        check("busybox@sha256:00", &["true"], &[], &["true"]);
    }

    #[test]
    fn a_fixed_row_ignores_the_pods_command_and_programs_are_renamed() {
        let yaml = "- {images: ['a:.*'], entrypoint: [lateen, sample, a], args: [x], fixed: true}\n\
                    - {images: ['b:.*'], programs: {/bin/b: [lateen, sample, b]}}\n";
        let catalogue = Catalogue::read(yaml).unwrap();
        let a = program(&catalogue, "a", &words(&["gunicorn"]), &words(&["y"]));
        assert_eq!(a.command, words(&[EXECUTABLE, "sample", "a", "x"]));
        let b = program(&catalogue, "b", &words(&["/bin/b"]), &words(&["9000"]));
        assert_eq!(b.command, words(&[EXECUTABLE, "sample", "b", "9000"]));
    }
}
