//! The options of `lateen init`: those of `istio-iptables`.

use super::{Redirect, RedirectError, Targets};

impl Redirect {
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
                "-c" | "--clean" | "--cleanup-only" => redirect.clean = true,
                "-n" | "--dry-run" => redirect.dry_run = true,
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
            // Istio passes it; it only sets how much is logged.
            "--log_output_level" => {}
            _ => return Err(RedirectError::Usage(format!("unknown option {name}"))),
        }
        Ok(())
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
