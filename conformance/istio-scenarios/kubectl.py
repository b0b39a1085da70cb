#!/usr/bin/env python3
"""kubectl as the tests call it, on a node without the documents' images: what it applies names the image that is there.

LATEEN_NODE_KUBECTL is the program, LATEEN_NODE_IMAGE the image, LATEEN_NODE_CATALOGUE the rows of images that say what runs."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "node"))
from workloads import Catalogue, served  # noqa: E402


def main():
    arguments = sys.argv[1:]
    program = os.environ["LATEEN_NODE_KUBECTL"]
    if "apply" not in arguments or "-f" not in arguments:
        os.execv(program, [program, *arguments])
    at = arguments.index("-f") + 1
    text = sys.stdin.read() if arguments[at] == "-" else Path(arguments[at]).read_text()
    arguments[at] = "-"
    catalogue = Catalogue(os.environ["LATEEN_NODE_CATALOGUE"])
    documents = [served(document, catalogue, os.environ["LATEEN_NODE_IMAGE"]) for document in yaml.safe_load_all(text) if document]
    sys.exit(subprocess.run([program, *arguments], input=yaml.safe_dump_all(documents), text=True).returncode)


main()
