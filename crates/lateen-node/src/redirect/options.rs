//! The options of `lateen init`: those of `istio-iptables`.
//!
//! Source: the flags and environment of Istio's `tools/istio-iptables`. What changes how traffic flows is followed or
//! refused; what only says how rules are written with iptables has no meaning here and is passed over.

use super::{Redirect, RedirectError, Targets};

/// Options that take no value and only concern iptables, or the order of steps.
const PASSED_SWITCHES: [&str; 7] = [
    "--force-apply",
    "--reconcile",
    "--native-nftables",
    "--restore-format",
    "--log_as_json",
    "--cni-mode",
    // Both address families always have rules.
    "--dual-stack",
];
/// The same with a value.
const PASSED: [&str; 8] = [
    "--log_output_level",
    "--iptables-version",
    "--iptables-probe-port",
    "--probe-timeout",
    "--iptables-trace-logging",
    // Nothing is redirected to a tunnel: its port is left alone, see the module.
    "-e",
    "--inbound-tunnel-port",
    // Marks and routing table of the TPROXY mode, which is refused.
    "--istio-inbound-tproxy-mark",
];
/// Variables that set an option which the arguments leave out.
const VARIABLES: [(&str, &str); 3] = [
    ("INVALID_DROP", "--drop-invalid"),
    ("ISTIO_META_DNS_CAPTURE", "--redirect-dns"),
    ("REDIRECT_DNS", "--redirect-dns"),
];

impl Redirect {
    /// The options of arguments and of the environment, where arguments win.
    ///
    /// # Errors
    /// As [`Redirect::parse`].
    pub fn from_environment(
        arguments: &[String],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, RedirectError> {
        let mut all = Vec::new();
        for (name, option) in VARIABLES {
            if let Some(value) = variable(name).filter(|value| !value.is_empty()) {
                all.push(format!("{option}={value}"));
            }
        }
        all.extend_from_slice(arguments);
        Self::parse(&all)
    }

    /// Reads `istio-iptables` options, in short (`-p 15001`) and long (`--envoy-port=15001`) form.
    ///
    /// # Errors
    /// [`RedirectError::Usage`] for an unknown option or a bad value.
    pub fn parse(arguments: &[String]) -> Result<Self, RedirectError> {
        let mut redirect = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let (name, given) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            match name {
                _ if PASSED_SWITCHES.contains(&name) => {}
                "--clean" | "--cleanup-only" => redirect.clean = switch(name, given)?,
                "-n" | "--dry-run" => redirect.dry_run = switch(name, given)?,
                "--drop-invalid" => redirect.drop_invalid = switch(name, given)?,
                "--skip-rule-apply" | "--run-validation" if !switch(name, given.clone())? => {}
                "--redirect-dns" | "--capture-all-dns" if !switch(name, given.clone())? => {}
                "--redirect-dns" | "--capture-all-dns" => {
                    return Err(RedirectError::Usage(
                        "DNS capture is not supported: the proxy resolves no names for the \
                         application; unset ISTIO_META_DNS_CAPTURE"
                            .to_owned(),
                    ));
                }
                _ => {
                    let missing = || RedirectError::Usage(format!("{name} needs a value"));
                    let value = given
                        .or_else(|| arguments.next().cloned())
                        .ok_or_else(missing)?;
                    redirect.set(name, &value)?;
                }
            }
        }
        Ok(redirect)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), RedirectError> {
        match name {
            "-p" | "--envoy-port" => self.outbound_port = number(name, value)?,
            "-z" | "--inbound-capture-port" => self.inbound_port = number(name, value)?,
            "-u" | "--proxy-uid" => self.proxy_users = numbers(name, value)?,
            "-g" | "--proxy-gid" => self.proxy_groups = numbers(name, value)?,
            "-m" | "--istio-inbound-interception-mode" if value == "REDIRECT" => {}
            "-m" | "--istio-inbound-interception-mode" => {
                let message = format!("{name} {value} is not supported; use REDIRECT");
                return Err(RedirectError::Usage(message));
            }
            "-i" | "--istio-service-cidr" => self.include_ranges = targets(value, checked_range)?,
            "-x" | "--istio-service-exclude-cidr" => {
                self.exclude_ranges = list(value).map(checked_range).collect::<Result<_, _>>()?;
            }
            "-b" | "--istio-inbound-ports" => {
                self.include_ports = targets(value, |port| {
                    number::<u16>(name, port).map(|n| n.to_string())
                })?;
            }
            "-d" | "--istio-local-exclude-ports" => self.exclude_ports = numbers(name, value)?,
            "-q" | "--istio-outbound-ports" => {
                self.include_outbound_ports = numbers(name, value)?;
            }
            "-o" | "--istio-local-outbound-ports-exclude" => {
                self.exclude_outbound_ports = numbers(name, value)?;
            }
            "-c" | "--istio-exclude-interfaces" => {
                self.exclude_interfaces = list(value)
                    .map(checked_interface)
                    .collect::<Result<_, _>>()?;
            }
            "-k" | "--kube-virt-interfaces" => {
                self.virtual_interfaces = list(value)
                    .map(checked_interface)
                    .collect::<Result<_, _>>()?;
            }
            _ if PASSED.contains(&name) => {}
            _ => return Err(RedirectError::Usage(format!("unknown option {name}"))),
        }
        Ok(())
    }
}

/// A switch, alone or with `=true` or `=false`.
fn switch(name: &str, given: Option<String>) -> Result<bool, RedirectError> {
    match given.as_deref() {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(RedirectError::Usage(format!(
            "{name}: {other:?} is not true or false"
        ))),
    }
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, RedirectError> {
    value
        .trim()
        .parse()
        .map_err(|_| RedirectError::Usage(format!("{name}: {value:?} is not a valid number")))
}

fn numbers<T: std::str::FromStr>(name: &str, value: &str) -> Result<Vec<T>, RedirectError> {
    list(value).map(|item| number(name, item)).collect()
}

fn targets(
    value: &str,
    check: impl Fn(&str) -> Result<String, RedirectError>,
) -> Result<Targets, RedirectError> {
    if value.trim() == "*" {
        return Ok(Targets::All);
    }
    list(value)
        .map(check)
        .collect::<Result<_, _>>()
        .map(Targets::Listed)
}

/// A CIDR range, refused when it is none: it becomes part of a script.
fn checked_range(text: &str) -> Result<String, RedirectError> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "0"));
    let valid = address.parse::<std::net::IpAddr>().is_ok()
        && prefix.parse::<u8>().is_ok_and(|prefix| prefix <= 128);
    if valid {
        Ok(text.to_owned())
    } else {
        Err(RedirectError::Usage(format!(
            "{text:?} is not an address range"
        )))
    }
}

/// The name of an interface, refused when it is none: it becomes part of a script.
fn checked_interface(text: &str) -> Result<String, RedirectError> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'@');
    if !text.is_empty() && text.len() < 16 && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(RedirectError::Usage(format!(
            "{text:?} is not the name of an interface"
        )))
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn parse(arguments: &str) -> Result<Redirect, RedirectError> {
        let words: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        Redirect::parse(&words)
    }

    #[test]
    fn istios_usual_options_are_the_defaults() {
        let usual = "-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x  -b * -d 15090,15021,15020";
        let usual = usual.replace("-x  ", "");
        let redirect = parse(&usual).unwrap();
        assert_eq!(
            redirect,
            Redirect {
                exclude_ports: vec![15090, 15021, 15020],
                ..Redirect::default()
            }
        );
    }

    #[test]
    fn long_options_and_lists_are_read() {
        let redirect =
            parse("--envoy-port=16001 -i 10.0.0.0/8,fd00::/8 -b 80,443 -o 3306 --clean").unwrap();
        assert_eq!(redirect.outbound_port, 16001);
        assert_eq!(
            redirect.include_ranges,
            Targets::Listed(vec!["10.0.0.0/8".into(), "fd00::/8".into()])
        );
        assert_eq!(
            redirect.include_ports,
            Targets::Listed(vec!["80".into(), "443".into()])
        );
        assert_eq!(redirect.exclude_outbound_ports, [3306]);
        assert!(redirect.clean);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            "-p x",
            "-p",
            "-m TPROXY",
            "-i 10.0.0.0/x",
            "--what 1",
            "-x ;drop",
        ] {
            assert!(matches!(parse(bad), Err(RedirectError::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn the_environment_sets_what_the_arguments_leave_out() {
        let from = |arguments: &str, variables: &[(&str, &str)]| {
            let words: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
            Redirect::from_environment(&words, |name| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(from("", &[("INVALID_DROP", "true")]).unwrap().drop_invalid);
        assert!(!from("", &[("INVALID_DROP", "false")]).unwrap().drop_invalid);
        let won = from("--drop-invalid=false", &[("INVALID_DROP", "true")]);
        assert!(!won.unwrap().drop_invalid);
        assert!(from("", &[("ISTIO_META_DNS_CAPTURE", "false")]).is_ok());
        let refused = from("", &[("ISTIO_META_DNS_CAPTURE", "true")]).unwrap_err();
        assert!(refused.to_string().contains("DNS capture"), "{refused}");
    }

    #[test]
    fn interfaces_and_invalid_packets_get_rules_of_their_own() {
        let script = parse("-c eth1,eth2 -k tap0 --drop-invalid --force-apply --log_as_json")
            .unwrap()
            .script();
        for rule in [
            "iifname { \"eth1\", \"eth2\" } return",
            "oifname { \"eth1\", \"eth2\" } return",
            "iifname { \"tap0\" } meta l4proto tcp redirect to :15001",
            "ct state invalid drop",
        ] {
            assert_eq!(script.matches(rule).count(), 2, "{rule}\n{script}");
        }
        for bad in ["-c eth0;drop", "-k a_name_that_is_too_long"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cleaning_only_deletes() {
        let script = parse("--clean").unwrap().script();
        assert_eq!(
            script
                .lines()
                .filter(|line| !line.contains("delete") && !line.contains("add"))
                .count(),
            0
        );
    }
}
