#!/usr/bin/env python3
"""Judges Lateen's API server by what kubectl prints, against a recording of the real kube-apiserver.

    run.py check CASES.yaml RECORDING [--differences FILE] [--server PROGRAM] [--keep FOLDER]
    run.py record CASES.yaml FOLDER            records the server of $KUBECONFIG instead

`check` starts the server (the example `apiserver` of lateen-cluster, found in the target folder or given), runs every
step of every case, and compares. It fails on a difference that is not listed, and on a listed one that is gone.

A case is {name, files: {path: text}, steps: [shell commands]}; it runs in a folder and a namespace of its own name. What
differs from run to run (times, ids, addresses, ...) is masked. A recording has one file a case: blocks of `$ command`,
what it printed, and `exit CODE` when it failed."""

import argparse
import difflib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import yaml

HERE = pathlib.Path(__file__).resolve().parent
STEP_SECONDS = 25
START_SECONDS = 30

# Order matters: a date holds what looks like an age.
MASKS = [
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uid>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} [\d:]{8} [+-]\d{4}"), "<time>"),
    (re.compile(r"(resourceVersion\"?: ?)\"?\d+\"?"), r"\1<version>"),
    (re.compile(r"\b10\.\d+\.\d+\.\d+\b"), "<ip>"),
    (re.compile(r"\b3[0-2]\d{3}\b"), "<nodePort>"),
    (re.compile(r"(pod-template-hash[=:] ?)[a-z0-9]+"), r"\1<hash>"),
    (re.compile(r"(?<=-)[a-f0-9]{8,10}(-[a-z0-9]{5})?\b"), "<hash>"),
    (re.compile(r"(?<=[ \t])(\d+d)?(\d+h)?(\d+m)?\d+(s|m|h|d)(?=\s|$)", re.M), "<age>"),
    (re.compile(r"<invalid>|<unknown>(?=$)", re.M), "<age>"),
]


def masked(text):
    for pattern, replacement in MASKS:
        text = pattern.sub(replacement, text)
    return "\n".join(re.sub(r" {2,}", "  ", line).rstrip() for line in text.splitlines())


def run_case(case, kubeconfig):
    """What the steps of a case print, in the form of a recording."""
    blocks = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        config = yaml.safe_load(pathlib.Path(kubeconfig).read_text())
        config["contexts"][0]["context"]["namespace"] = case["name"]
        (folder / "kubeconfig").write_text(yaml.safe_dump(config))
        for path, text in case.get("files", {}).items():
            (folder / path).write_text(text)
        environment = os.environ | {
            "KUBECONFIG": str(folder / "kubeconfig"),
            "HOME": str(folder),
            "KUBECTL_EXTERNAL_DIFF": "diff -u -N",
            "COLUMNS": "200",
        }

        def shell(command):
            try:
                return subprocess.run(
                    ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=STEP_SECONDS
                )
            except subprocess.TimeoutExpired:
                return subprocess.CompletedProcess(command, 124, "", f"(no answer in {STEP_SECONDS} s)")

        shell(f"kubectl create namespace {case['name']}")
        for step in case["steps"]:
            done = shell(step)
            lines = [f"$ {step}", masked(done.stdout), masked(done.stderr)]
            lines += [f"exit {done.returncode}"] if done.returncode else []
            blocks.append("\n".join(line for line in lines if line))
        shell(f"kubectl delete namespace {case['name']} --wait=false")
    return "\n\n".join(re.sub(r"\n+", "\n", block) for block in blocks) + "\n"


def blocks_of(text):
    """Output by command; a command that comes again is numbered."""
    found, seen = {}, {}
    for block in re.split(r"\n\n(?=\$ )", text):
        command, _, output = block.removeprefix("$ ").partition("\n")
        seen[command] = seen.get(command, 0) + 1
        name = command if seen[command] == 1 else f"{command} (#{seen[command]})"
        # Recordings differ in whether an empty line follows the last block of a file.
        found[name] = output.strip()
    return found


def find_server():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent.parent / "target"))
    return target / "debug/examples/apiserver"


class Server:
    """Our API server, alone, in a state folder of its own."""

    def __init__(self, program):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lateen-kubectl-"))
        self.kubeconfig = self.folder / "kubeconfig"
        self.log = open(self.folder / "log", "w")
        self.process = subprocess.Popen(
            [program, "0", self.folder / "state", self.kubeconfig], stdout=self.log, stderr=subprocess.STDOUT
        )

    def __enter__(self):
        deadline = time.monotonic() + START_SECONDS
        while not self.kubeconfig.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the API server did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder)


def record(cases, folder, kubeconfig):
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        (folder / f"{case['name']}.txt").write_text(run_case(case, kubeconfig))
        print(case["name"])


def compare(cases, recording, actual, listed):
    """Prints the differences; returns whether they are exactly those that are listed."""
    total = agree = 0
    differing = set()
    for case in cases:
        expected = recording / f"{case['name']}.txt"
        if not expected.exists():
            sys.exit(f"{recording} has no recording of {case['name']}")
        ours = blocks_of((actual / expected.name).read_text())
        for command, output in blocks_of(expected.read_text()).items():
            total += 1
            answer = ours.get(command, "(not run)")
            if answer == output:
                agree += 1
                continue
            name = (case["name"], command)
            differing.add(name)
            if name not in listed:
                print(f"--- {case['name']}: {command}")
                lines = difflib.unified_diff(output.splitlines(), answer.splitlines(), lineterm="", n=1)
                print("\n".join(list(lines)[2:]))
    for case, command in sorted(set(listed) - differing):
        print(f"listed, but no longer differs: {case}: {command}")
    unlisted = differing - set(listed)
    print(f"{agree} of {total} commands agree, {len(differing) - len(unlisted)} differ with a reason, {len(unlisted)} without")
    return differing == set(listed)


def listed_differences(path, names):
    entries = yaml.safe_load(path.read_text()) or [] if path.exists() else []
    for entry in entries:
        if not entry.get("reason", "").strip():
            sys.exit(f"{path}: {entry.get('command')} has no reason")
    return {(entry["case"], entry["command"]): entry["reason"] for entry in entries if entry["case"] in names}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["check", "record"])
    parser.add_argument("cases", type=pathlib.Path)
    parser.add_argument("recording", type=pathlib.Path)
    parser.add_argument("--differences", type=pathlib.Path, default=HERE / "differences.yaml")
    parser.add_argument("--server", type=pathlib.Path, default=find_server())
    parser.add_argument("--keep", type=pathlib.Path, help="where what ours printed is kept")
    options = parser.parse_args()
    if shutil.which("kubectl") is None:
        sys.exit("kubectl is missing: install it, or put it into PATH")
    cases = yaml.safe_load(options.cases.read_text())
    if options.action == "record":
        record(cases, options.recording, os.environ["KUBECONFIG"])
        return
    if not options.server.exists():
        sys.exit(f"{options.server} is missing: cargo build -p lateen-cluster --example apiserver")
    with tempfile.TemporaryDirectory() as scratch:
        actual = options.keep or pathlib.Path(scratch)
        with Server(options.server) as server:
            record(cases, actual, server.kubeconfig)
        listed = listed_differences(options.differences, {case["name"] for case in cases})
        sys.exit(0 if compare(cases, options.recording, actual, listed) else 1)


if __name__ == "__main__":
    main()
