//! TCP through the gateway.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::eventually;
use super::super::mesh::finish;
use super::{Lab, SECONDS, Step, near};

impl Lab<'_> {
    /// F03, F44, F46: TCP at a port of the gateway, to one version; answers before, the end after the client closes.
    pub(super) fn tcp_goes_to_one_version_f44_f46(&self) {
        self.apply(Step::Echo);
        eventually("an echo", SECONDS(15), || self.say(1).map(|_| ()));
        for _ in 0..50 {
            assert_eq!(self.say(1).as_deref(), Ok("one"));
        }
        // An answer comes before the client closes; the end comes after it did.
        let mut stream = self.connect().expect("connected");
        let began = Instant::now();
        stream.write_all(b"line\n").expect("sent");
        let mut answer = [0; 9];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"one line\n");
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
        stream.shutdown(Shutdown::Write).expect("half closed");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("an end");
        assert_eq!(rest, b"");
        // As the lab's own client does, which half-closes after a while and waits for the end.
        let mut client = Command::new("sh");
        let script = "(date; sleep 0.2) | timeout 10 busybox nc $0 $1";
        client.args(["-c", script]).args(self.address().split(':'));
        let said = finish(client, None);
        let date = said.stdout.strip_prefix("one ").unwrap_or_default();
        assert!(said.code == 0 && date.lines().count() == 1, "{said:?}");
    }

    /// F45: TCP by weight, connection by connection.
    pub(super) fn tcp_is_divided_by_connection_f45(&self) {
        self.apply(Step::EchoShift);
        eventually("the other version", SECONDS(15), || match self.say(1)? {
            prefix if prefix == "two" => Ok(()),
            other => Err(other),
        });
        let prefixes: Vec<_> = (0..500).map(|_| self.say(3).expect("an echo")).collect();
        let second = prefixes.iter().filter(|prefix| *prefix == "two").count();
        near(second, 500, 0.2, "connections to v2");
    }

    /// Says some lines on a connection of its own; the prefix of all answers.
    fn say(&self, lines: usize) -> Result<String, String> {
        let text = |error: std::io::Error| error.to_string();
        let stream = self.connect().map_err(text)?;
        let mut reader = BufReader::new(stream.try_clone().map_err(text)?);
        let mut prefixes = BTreeSet::new();
        for _ in 0..lines {
            (&stream).write_all(b"hello\n").map_err(text)?;
            let mut line = String::new();
            reader.read_line(&mut line).map_err(text)?;
            let (prefix, rest) = line.split_once(' ').ok_or_else(|| format!("{line:?}"))?;
            assert_eq!(rest, "hello\n");
            prefixes.insert(prefix.to_owned());
        }
        assert_eq!(
            prefixes.len(),
            1,
            "one connection, several versions: {prefixes:?}"
        );
        prefixes
            .pop_first()
            .ok_or_else(|| "nothing said".to_owned())
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(SECONDS(10)))?;
        Ok(stream)
    }

    /// Address and port of TCP at the gateway.
    fn address(&self) -> &'static str {
        let read = |path: &str| {
            let path = format!("jsonpath={path}");
            let service = [
                "-n",
                "istio-system",
                "get",
                "service",
                "istio-ingressgateway",
                "-o",
                &path,
            ];
            self.mesh.kubectl(&service)
        };
        static ADDRESS: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        ADDRESS.get_or_init(|| {
            format!(
                "{}:{}",
                read("{.status.loadBalancer.ingress[0].ip}"),
                read("{.spec.ports[?(@.name==\"tcp\")].port}")
            )
        })
    }
}
