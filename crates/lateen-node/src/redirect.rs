//! The redirect rules of a pod: what `lateen init` sets up before the proxy starts, as Istio's
//! `istio-iptables` does, with the same options.
//!
//! ```text
//! out  prerouting is not involved; in the output hook:
//!      from the proxy itself (mark 1337, or user or group 1337)       passes,
//!         except to the pod's own address over loopback               -> inbound port (the app calls itself)
//!      to 127.0.0.1, over loopback from the application, excluded     passes
//!      all other TCP                                                  -> outbound port 15001
//! in   in the prerouting hook: TCP to included ports, none of the
//!      proxy's own (15008, 15020, 15021, 15090) or excluded           -> inbound port 15006
//! ```
//!
//! **How the proxy's own traffic is told apart.** On Kubernetes the proxy runs as user and group 1337.
//! A rootless mesh may have a single user id; then the proxy keeps `CAP_NET_ADMIN` and marks its
//! sockets ([`lateen_sys::mark_own_socket`]). The rules let either pass, so the same rules serve both.
//!
//! The rules are nftables, in the table `lateen_redirect` of both address families, replaced as a
//! whole: running this twice leaves one set.

mod options;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};

use thiserror::Error;

use crate::enter::find_program;

/// Ports of the proxy that are never redirected to itself: HBONE, merged metrics, health, Envoy
/// metrics.
const PROXY_PORTS: [u16; 4] = [15008, 15020, 15021, 15090];

const TABLE: &str = "lateen_redirect";

/// Before the kernel answers such a packet with a reset, which would end a connection that lives.
const DROP_INVALID: &str = "  chain invalid {\n    type filter hook prerouting priority -150; policy accept;\n    meta l4proto tcp ct state invalid drop\n  }\n";

/// Why the rules could not be set; `lateen init` prints it and exits with 1 (2 for bad options).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RedirectError {
    /// An option is unknown or its value makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The `nft` program was not found.
    #[error("the program nft was not found; install the package nftables into the image")]
    NftMissing,
    /// `nft` refused.
    #[error("nft refused the redirect rules: {0}; does the container have NET_ADMIN?")]
    Refused(String),
}

/// What to redirect; the defaults are Istio's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `-p`: where outgoing connections go.
    pub outbound_port: u16,
    /// `-z`: where incoming connections go.
    pub inbound_port: u16,
    /// `-u`: the proxy's user ids.
    pub proxy_users: Vec<u32>,
    /// `-g`: the proxy's group ids.
    pub proxy_groups: Vec<u32>,
    /// `-i`: destinations (CIDR) whose traffic is redirected; `*` for all.
    pub include_ranges: Targets,
    /// `-x`: destinations (CIDR) that are left alone.
    pub exclude_ranges: Vec<String>,
    /// `-b`: incoming ports that are redirected; `*` for all.
    pub include_ports: Targets,
    /// `-d`: incoming ports that are left alone.
    pub exclude_ports: Vec<u16>,
    /// `-q`: outgoing ports that are redirected whatever the destination.
    pub include_outbound_ports: Vec<u16>,
    /// `-o`: outgoing ports that are left alone.
    pub exclude_outbound_ports: Vec<u16>,
    /// `-c`: interfaces whose traffic is left alone.
    pub exclude_interfaces: Vec<String>,
    /// `-k`: interfaces of virtual machines, whose traffic is outgoing although it arrives.
    pub virtual_interfaces: Vec<String>,
    /// `--drop-invalid`, `INVALID_DROP`: packets that belong to no connection are dropped instead of answered.
    pub drop_invalid: bool,
    /// `--clean`: take the rules away instead.
    pub clean: bool,
    /// `--dry-run`: print the rules only.
    pub dry_run: bool,
}

/// All, or those listed (empty: none).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// `*`
    All,
    /// A list; may be empty.
    Listed(Vec<String>),
}

impl Default for Redirect {
    fn default() -> Self {
        Self {
            outbound_port: 15001,
            inbound_port: 15006,
            proxy_users: vec![1337],
            proxy_groups: vec![1337],
            include_ranges: Targets::All,
            exclude_ranges: Vec::new(),
            include_ports: Targets::All,
            exclude_ports: Vec::new(),
            include_outbound_ports: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            exclude_interfaces: Vec::new(),
            virtual_interfaces: Vec::new(),
            drop_invalid: false,
            clean: false,
            dry_run: false,
        }
    }
}

/// The subcommand `lateen init`: reads the options, sets the rules.
pub fn main(arguments: &[String]) -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let done =
        Redirect::from_environment(arguments, variable).and_then(|redirect| redirect.apply());
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lateen init: {error}");
            ExitCode::from(if matches!(error, RedirectError::Usage(_)) {
                2
            } else {
                1
            })
        }
    }
}

impl Redirect {
    /// Sets the rules in the network namespace of this process, or prints or removes them.
    ///
    /// # Errors
    /// When `nft` is missing or refuses.
    pub fn apply(&self) -> Result<(), RedirectError> {
        let script = self.script();
        if self.dry_run {
            print!("{script}");
            return Ok(());
        }
        let program = find_program("nft").ok_or(RedirectError::NftMissing)?;
        let refused = |error: std::io::Error| RedirectError::Refused(error.to_string());
        let mut child = Command::new(program)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(refused)?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(script.as_bytes()).map_err(refused)?;
        }
        let output = child.wait_with_output().map_err(refused)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(RedirectError::Refused(
            said.lines().take(3).collect::<Vec<_>>().join("; "),
        ))
    }

    /// The nftables script that makes it so, whatever was there before.
    pub fn script(&self) -> String {
        let mut script = String::new();
        for family in [
            Family {
                name: "ip",
                local: "127.0.0.1",
            },
            Family {
                name: "ip6",
                local: "::1",
            },
        ] {
            let name = family.name;
            // Writing to a String cannot fail. Adding first makes deleting always possible.
            let _ = writeln!(
                script,
                "add table {name} {TABLE}\ndelete table {name} {TABLE}"
            );
            if !self.clean {
                let _ = writeln!(script, "table {name} {TABLE} {{");
                self.write_inbound(&mut script);
                self.write_outbound(&mut script, &family);
                if self.drop_invalid {
                    script.push_str(DROP_INVALID);
                }
                script.push_str("}\n");
            }
        }
        script
    }

    fn write_inbound(&self, script: &mut String) {
        let mut rules = vec!["meta l4proto != tcp return".to_owned()];
        // Loopback traffic was decided in the output hook.
        rules.push("iifname \"lo\" return".to_owned());
        if !self.exclude_interfaces.is_empty() {
            rules.push(format!(
                "iifname {} return",
                quoted(&self.exclude_interfaces)
            ));
        }
        if !self.virtual_interfaces.is_empty() {
            let interfaces = quoted(&self.virtual_interfaces);
            let target = format!("redirect to :{}", self.outbound_port);
            rules.push(format!("iifname {interfaces} meta l4proto tcp {target}"));
        }
        let own = PROXY_PORTS.iter().chain(&self.exclude_ports);
        rules.push(format!("tcp dport {} return", set(own)));
        let target = format!("redirect to :{}", self.inbound_port);
        match &self.include_ports {
            Targets::All => rules.push(format!("meta l4proto tcp {target}")),
            Targets::Listed(ports) if ports.is_empty() => {}
            Targets::Listed(ports) => rules.push(format!("tcp dport {} {target}", set(ports))),
        }
        chain(script, "inbound", "prerouting", &rules);
    }

    fn write_outbound(&self, script: &mut String, family: &Family) {
        let Family { name, local } = family;
        let own = self.own_traffic("");
        let to_inbound = format!("redirect to :{}", self.inbound_port);
        let mut rules = vec!["meta l4proto != tcp return".to_owned()];
        if !self.exclude_interfaces.is_empty() {
            rules.push(format!(
                "oifname {} return",
                quoted(&self.exclude_interfaces)
            ));
        }
        // The proxy reaches its own pod through a service address: as if from outside. Probes
        // (15020) and direct tunnels (15008) excepted. 127.0.0.6 marks what the proxy hands to the
        // application.
        if *name == "ip" {
            rules.push("oifname \"lo\" ip saddr 127.0.0.6 return".to_owned());
        }
        for own in &own {
            rules.push(format!(
                "oifname \"lo\" {name} daddr != {local} tcp dport != {} {own} {to_inbound}",
                set([15008u16].iter())
            ));
        }
        // The application calls itself directly: not the proxy's business.
        let not_own: Vec<_> = self.own_traffic("!= ");
        rules.push(format!("oifname \"lo\" {} return", not_own.join(" ")));
        rules.extend(own.iter().map(|own| format!("{own} return")));
        if !self.exclude_outbound_ports.is_empty() {
            rules.push(format!(
                "tcp dport {} return",
                set(&self.exclude_outbound_ports)
            ));
        }
        rules.push(format!("{name} daddr {local} return"));
        let fits = |range: &&String| range.contains(':') == (*name == "ip6");
        let excluded: Vec<_> = self.exclude_ranges.iter().filter(fits).collect();
        if !excluded.is_empty() {
            rules.push(format!("{name} daddr {} return", set(excluded)));
        }
        let target = format!("redirect to :{}", self.outbound_port);
        if !self.include_outbound_ports.is_empty() {
            rules.push(format!(
                "tcp dport {} {target}",
                set(&self.include_outbound_ports)
            ));
        }
        match &self.include_ranges {
            Targets::All => rules.push(format!("meta l4proto tcp {target}")),
            Targets::Listed(ranges) => {
                let ranges: Vec<_> = ranges.iter().filter(fits).collect();
                if !ranges.is_empty() {
                    rules.push(format!(
                        "{name} daddr {} meta l4proto tcp {target}",
                        set(ranges)
                    ));
                }
            }
        }
        chain(script, "outbound", "output", &rules);
    }

    /// What the proxy's own packets match, each alone; with `not` being `!= `, what others match,
    /// all together.
    fn own_traffic(&self, not: &str) -> Vec<String> {
        let mut own = vec![format!("meta mark {not}{}", lateen_sys::PROXY_MARK)];
        own.extend(
            self.proxy_users
                .iter()
                .map(|user| format!("meta skuid {not}{user}")),
        );
        own.extend(
            self.proxy_groups
                .iter()
                .map(|group| format!("meta skgid {not}{group}")),
        );
        own
    }
}

struct Family {
    name: &'static str,
    local: &'static str,
}

fn chain(script: &mut String, name: &str, hook: &str, rules: &[String]) {
    // Writing to a String cannot fail. nft refuses the priority's name in the output hook.
    let _ = writeln!(
        script,
        "  chain {name} {{\n    type nat hook {hook} priority -100; policy accept;"
    );
    for rule in rules {
        let _ = writeln!(script, "    {rule}");
    }
    script.push_str("  }\n");
}

/// A set of names.
fn quoted(names: &[String]) -> String {
    set(names.iter().map(|name| format!("\"{name}\"")))
}

fn set<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    format!("{{ {} }}", items.join(", "))
}
