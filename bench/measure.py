#!/usr/bin/env python3
"""Measures Lateen's proxy beside Envoy, HAProxy and nginx. See README.md."""

import argparse
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "conformance/envoy"))

import run as conformance  # noqa: E402  conformance/envoy/run.py, whose packages are used here

PROGRAMS = {"h2load": "nghttp2-client", "haproxy": "haproxy", "nginx": "nginx-light", "openssl": "openssl"}
SCENARIOS = {
    "http1": ["--h1", "-c", "32"],
    "large": ["--h1", "-c", "32"],
    "http2": ["-c", "8", "-m", "16"],
    "tcp": ["--h1", "-c", "32"],
    "routes": ["--h1", "-c", "32"],
    "tls": ["--h1", "-c", "32"],
    "keys": ["--h1", "-c", "32"],
    "sticky": ["--h1", "-c", "32"],
    "mesh": ["--h1", "-c", "32", "-H", "target: backend-3"],
}
USERS = 100_000  # of the scenarios with users
WITH_USERS = ("keys", "sticky", "mesh")
PROXIES = ("lateen", "envoy", "haproxy", "nginx", "floor")
PATIENCE = 60


class Failure(Exception):
    """The measurement cannot be trusted; the text says why."""


def check_programs():
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    if missing:
        sys.exit(f"bench: install these with your package manager: {' '.join(missing)}")


def load(scenario, port, extra):
    """Runs h2load; its output."""
    scheme = "https" if scenario == "tls" else "http"
    path = {"routes": "/route-1023/x", "large": "/large"}.get(scenario, "/")
    with tempfile.NamedTemporaryFile("w") as users:
        target = [f"{scheme}://127.0.0.1:{port}{path}"]
        if scenario in WITH_USERS:
            order = random.Random(port).sample(range(USERS), USERS)
            users.writelines(f"{target[0]}?user={user:06}\n" for user in order)
            users.flush()
            target = ["-i", users.name]
        command = ["taskset", "-c", others(), "h2load", *SCENARIOS[scenario], *extra, *target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode or " 0 failed, 0 errored, 0 timeout" not in done.stdout or " 0 4xx, 0 5xx" not in done.stdout:
        raise Failure(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return done.stdout


def others():
    """Every processor but the first, which is the proxies'."""
    count = os.cpu_count() or 1
    return "0" if count == 1 else f"1-{count - 1}"


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid):
    """The process and those below it: nginx works in a child."""
    found = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += children(int(child))
    return found


def memory(pid):
    """Proportional set size in MB."""
    total = 0
    for each in children(pid):
        for line in pathlib.Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def measure(scenario, pid, port, options):
    """Processor time of a request in microseconds, and times of requests at a fixed rate."""
    load(scenario, port, ["-n", str(options.requests // 10)])
    before = sum(map(processor_seconds, children(pid)))
    load(scenario, port, ["-n", str(options.requests)])
    used = sum(map(processor_seconds, children(pid))) - before
    clients = int(SCENARIOS[scenario][SCENARIOS[scenario].index("-c") + 1])
    with tempfile.NamedTemporaryFile() as log:
        rate = ["--rps", str(max(options.rate // clients, 1)), "-n", str(options.rate * 2), "--log-file", log.name]
        load(scenario, port, rate)
        times = sorted(int(line.split(b"\t")[2]) for line in log)
    return used / options.requests * 1e6, times[len(times) // 2], times[len(times) * 99 // 100]


def row(scenario, name, rounds, idle, pss):
    cpu, median, late = (statistics.median(values) for values in zip(*rounds))
    return {"scenario": scenario, "proxy": name, "cpu": cpu, "p50": median, "p99": late, "idle": idle, "pss": pss}


def table(rows):
    print(f"{'scenario':9} {'proxy':8} {'CPU us':>7} {'p50 us':>7} {'p99 us':>7} {'idle MB':>7} {'PSS MB':>7}  "
          "Lateen's CPU by that")
    for each in rows:
        own = [other for other in rows if other["proxy"] == "lateen" and other["scenario"] == each["scenario"]]
        ratio = f"{own[0]['cpu'] / each['cpu']:.2f}" if own and each["cpu"] else "-"
        print(f"{each['scenario']:9} {each['proxy']:8} {each['cpu']:7.1f} {each['p50']:7.0f} {each['p99']:7.0f} "
              f"{each['idle']:7.1f} {each['pss']:7.1f}  {ratio}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS)
    parser.add_argument("--proxy", action="append", choices=PROXIES)
    parser.add_argument("--requests", type=int, default=20000, help="requests of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=int, default=2000, help="requests a second when times are taken")
    parser.add_argument("--lateen", type=pathlib.Path, default=ROOT / "target/release/lateen")
    options = parser.parse_args()
    check_programs()
    conformance.packages(__file__)
    import proxies
    for program in (options.lateen, options.lateen.parent / "examples/forward"):
        if not program.exists():
            sys.exit(f"bench: {program} is missing: cargo build --release -p lateen -p lateen-proxy --bins --examples")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bench = proxies.Bench(pathlib.Path(folder), options.lateen, conformance.PYTHON / "bin/envoy", others())
        try:
            for scenario in options.scenario or SCENARIOS:
                chosen = [name for name in options.proxy or PROXIES if bench.serves(name, scenario)]
                running = {name: bench.start(name, scenario) for name in chosen}
                idle = {name: memory(pid) for name, (pid, _) in running.items()}
                rounds = {name: [] for name in running}
                for _ in range(options.rounds):
                    for name, (pid, port) in running.items():
                        rounds[name].append(measure(scenario, pid, port, options))
                rows += [row(scenario, name, rounds[name], idle[name], memory(pid))
                         for name, (pid, _) in running.items()]
                bench.stop()
        except (Failure, subprocess.TimeoutExpired, TimeoutError) as failure:
            table(rows)
            sys.exit(f"bench: {failure}")
        finally:
            bench.stop(everything=True)
    table(rows)


if __name__ == "__main__":
    main()
