"""The cases of h2spec, an independent test suite for HTTP/2 servers: which of them a proxy passes."""

import os
import pathlib
import re
import subprocess
import tempfile
import xml.etree.ElementTree as xml

VERSION = "v2.2.1+incompatible"
SECONDS = 90


def build(folder):
    """Makes the tool from its Go module, unless it is there."""
    if not (folder / "h2spec").exists():
        print("building h2spec from its Go module", flush=True)
        module = f"github.com/summerwind/h2spec/cmd/h2spec@{VERSION}"
        subprocess.run(["go", "install", module], check=True, env={**os.environ, "GOBIN": str(folder)})


def run(tool, port):
    """A transcript for each case."""
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.xml"
        # It fails when a case does, which is not what is asked here.
        subprocess.run([tool, "--strict", "--port", str(port), "--timeout", "1", "--junit-report", report],
                       stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, timeout=SECONDS)
        # What a peer said is in it as it is, which need not be XML.
        text = re.sub(r"[^\t\n\x20-\x7e]", "?", report.read_text(errors="replace"))
        cases = xml.fromstring(text).iter("testcase")
    seen = []
    for case in cases:
        bad = [part for part in case if part.tag in ("failure", "error")]
        outcome = "failed" if bad else "skipped" if case.find("skipped") is not None else "passed"
        note = " ".join("".join(part.itertext()) for part in bad)
        seen.append({"name": f"{case.get('package')} {case.get('classname')}", "seen": {"outcome": outcome}, "note": note})
    return seen
