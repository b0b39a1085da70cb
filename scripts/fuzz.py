#!/usr/bin/env python3
"""Looks for inputs that break a parser, with libFuzzer, and keeps the corpora of the fuzz targets small.

    scripts/fuzz.py list                         the targets
    scripts/fuzz.py run [--seconds N] [TARGET..] fuzz each target for so long (default 60 seconds)
    scripts/fuzz.py reduce [--most N] [TARGET..] keep of each corpus what adds most to the coverage

A target is a test with `bolero::check!(name = "TARGET")`. Its corpus stands beside it, in `__fuzz__/TARGET/corpus`, and
is replayed by `cargo test`. What breaks it is put into `__fuzz__/TARGET/crashes`, which is replayed, too: with the
repair, move it into the corpus under a name that says what it is.

The crates are built once more, with coverage counters, in `target/fuzz`. Everything is stable Rust; libFuzzer comes with
the crate `bolero-libfuzzer` and wants a C++ compiler.
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAGS = [
    "--cfg=fuzzing", "--cfg=fuzzing_libfuzzer", "-Cpasses=sancov-module", "-Ccodegen-units=1",
    "-Cllvm-args=-sanitizer-coverage-level=4", "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table", "-Cllvm-args=-sanitizer-coverage-trace-compares",
]
# What a target may use for one input before it counts as broken.
LIMITS = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=16384"]


def crates():
    """The crates that have targets."""
    return sorted({corpus.relative_to(ROOT).parts[1] for corpus in ROOT.glob("crates/*/**/__fuzz__")})


def sources(crate):
    """The files of a crate that hold targets, with their text."""
    texts = ((path, path.read_text()) for path in (ROOT / "crates" / crate).glob("**/*.rs"))
    return {path: text for path, text in texts if "bolero::check!" in text}


def build(crate):
    """Builds the tests that hold targets, with counters; the paths of the programs."""
    command = ["cargo", "test", "--no-run", "--message-format=json-render-diagnostics", "-p", crate,
               "--target", host(), "--target-dir", str(ROOT / "target/fuzz")]
    places = [(path, path.relative_to(ROOT / "crates" / crate).parts[0]) for path in sources(crate)]
    command += ["--lib"] if any(place == "src" for _, place in places) else []
    for test in sorted({path.parent.name if (path.parent / "main.rs").exists() else path.stem
                        for path, place in places if place == "tests"}):
        command += ["--test", test]
    environment = {**os.environ, "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(FLAGS)}
    output = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    messages = (json.loads(line) for line in output.splitlines() if line.startswith("{"))
    return [message["executable"] for message in messages if message.get("executable")]


def host():
    version = subprocess.run(["rustc", "-vV"], stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT).stdout
    return next(line.split()[1] for line in version.splitlines() if line.startswith("host:"))


def targets(wanted):
    """Folder, program and test of each target, crate by crate."""
    missing = set(wanted)
    for crate in crates():
        names = {path.parent.name for path in (ROOT / "crates" / crate).glob("**/__fuzz__/*/corpus")}
        if wanted and not names & set(wanted):
            continue
        for program in build(crate):
            for folder, test in sorted(selected(crate, program)):
                if not wanted or folder.name in wanted:
                    missing.discard(folder.name)
                    yield folder, program, test
    if missing:
        sys.exit(f"no such target: {', '.join(sorted(missing))}")


def selected(crate, program):
    """The targets that a program tells of. Its other tests are not asked, as they would run."""
    tests = []
    for text in sources(crate).values():
        before = text.split("bolero::check!")[:-1]
        tests += [re.findall(r"#\[test\]\s+fn (\w+)\(", part)[-1] for part in before]
    environment = {**os.environ, "CARGO_BOLERO_SELECT": "all"}
    output = subprocess.run([program, "--nocapture", "--test-threads=1", *tests], cwd=ROOT / "crates" / crate, env=environment,
                            check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    for line in output.splitlines():
        start = line.find('{"__bolero_target"')
        if start >= 0:
            target = json.loads(line[start:])
            yield pathlib.Path(target["work_dir"]), target["test_name"]


def play(program, test, arguments):
    environment = {**os.environ, "BOLERO_TEST_NAME": test, "BOLERO_LIBTEST_HARNESS": "1", "RUST_BACKTRACE": "0",
                   "BOLERO_LIBFUZZER_ARGS": " ".join([*arguments, *LIMITS])}
    command = [program, test, "--exact", "--nocapture", "--quiet", "--test-threads", "1"]
    return subprocess.run(command, env=environment, cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)


def run(folder, program, test, seconds):
    """Fuzzes a target. New inputs are kept in `target/fuzz`, those that break it beside the corpus."""
    kept = ROOT / "target/fuzz/corpora" / folder.name
    kept.mkdir(parents=True, exist_ok=True)
    (folder / "crashes").mkdir(exist_ok=True)
    result = play(program, test, [str(kept), str(folder / "corpus"), f"-artifact_prefix={folder}/crashes/",
                                  f"-max_total_time={seconds}"])
    last = [line for line in result.stdout.splitlines() if "cov:" in line]
    print(f"{folder.name}: {last[-1].strip() if last else 'no input was tried'}", flush=True)
    if not any((folder / "crashes").iterdir()):
        (folder / "crashes").rmdir()
    if result.returncode:
        print(result.stdout[-4000:])
    return result.returncode == 0


def reduce(folder, program, test, most):
    """Keeps of the corpus, and of what runs have found, the inputs that add most to the coverage. Those with a name stay."""
    corpus, kept = folder / "corpus", ROOT / "target/fuzz/corpora" / folder.name
    named = [path for path in corpus.iterdir() if not generated(path)]
    with tempfile.TemporaryDirectory() as scratch:
        control = pathlib.Path(scratch, "control")
        sources = [str(path) for path in (corpus, kept) if path.is_dir()]
        result = play(program, test, ["-merge=1", f"-merge_control_file={control}", scratch, *sources])
        if result.returncode:
            print(result.stdout[-4000:])
            return False
        features = covered(control.read_text())
    seen = set().union(*(features.pop(str(path), set()) for path in named))
    chosen = []
    while features and len(named) + len(chosen) < most:
        best = max(features, key=lambda path: (len(features[path] - seen), -os.path.getsize(path)))
        new = features.pop(best) - seen
        if not new:
            break
        chosen.append(pathlib.Path(best).read_bytes())
        seen |= new
    for path in corpus.iterdir():
        if generated(path):
            path.unlink()
    for content in chosen:
        (corpus / hashlib.sha1(content).hexdigest()).write_bytes(content)
    print(f"{folder.name}: {len(named)} inputs with a name, {len(chosen)} without, {len(seen)} features", flush=True)
    return True


def covered(control):
    """What each input covers, from libFuzzer's account of a merge: first the inputs, then `FT number feature...`."""
    lines = control.splitlines()
    count = int(lines[0])
    features = {}
    for line in lines[2 + count:]:
        kind, number, *found = line.split()
        if kind == "FT":
            features[lines[2 + int(number)]] = set(found)
    return features


def generated(path):
    """libFuzzer names inputs by their SHA-1."""
    return len(path.name) == 40 and all(digit in "0123456789abcdef" for digit in path.name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["list", "run", "reduce"])
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("--most", type=int, default=48, help="inputs that `reduce` keeps of each corpus (default 48)")
    arguments = parser.parse_args()
    good = True
    for folder, program, test in targets(arguments.targets):
        match arguments.verb:
            case "list":
                print(f"{folder.name}\t{test}", flush=True)
            case "run":
                good &= run(folder, program, test, arguments.seconds)
            case "reduce":
                good &= reduce(folder, program, test, arguments.most)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
