"""The documents' workloads on a real node: Lateen's samples in the place of images that a machine offline cannot pull."""

import re
from pathlib import Path

import yaml

# Of workloads; Kubernetes serves none of them since 1.16.
OLD_VERSIONS = ("extensions/v1beta1", "apps/v1beta1", "apps/v1beta2")


class Catalogue:
    """What runs for an image, as `lateen up` decides it."""

    def __init__(self, path):
        self.rows = yaml.safe_load(Path(path).read_text())

    def words(self, image, command, args):
        name = re.sub(r"^docker\.io/|^library/", "", image)
        if ":" not in name.rsplit("/", 1)[-1]:
            name += ":latest"
        for row in self.rows:
            for pattern in row["images"]:
                match = re.fullmatch(pattern, name)
                if not match:
                    continue
                expand = lambda word: re.sub(r"\$\{?(\d+)\}?", lambda group: match[int(group[1])], word)
                entry = [expand(word) for word in row.get("entrypoint", [])]
                if command:
                    known = row.get("programs", {}).get(command[0])
                    entry, args = (known or command[:1]) + command[1:], args
                elif not args:
                    args = [expand(word) for word in row.get("args", [])]
                return entry + args
        raise SystemExit(f"no row of the catalogue for image {image}")


def served(document, catalogue, image):
    """A manifest as this node can run it: with the image that it has, in a version that Kubernetes still serves."""
    template = document.get("spec", {}).get("template")
    if document["apiVersion"] in OLD_VERSIONS and document["kind"] in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"):
        document["apiVersion"] = "apps/v1"
        document["spec"].setdefault("selector", {"matchLabels": template["metadata"]["labels"]})
    if document["kind"] == "Pod":
        template = document
    if document["kind"] == "List":
        document["items"] = [served(item, catalogue, image) for item in document["items"]]
    for container in (template or {}).get("spec", {}).get("containers", []):
        words = catalogue.words(container["image"], container.get("command", []), container.get("args", []))
        words[0] = f"/usr/local/bin/{words[0]}" if "/" not in words[0] else words[0]
        container.update(image=image, imagePullPolicy="Never", command=words[:1], args=words[1:])
        # The image has one user beside root, and the samples need no place to write.
        container.pop("volumeMounts", None)
        container.pop("securityContext", None)
    if template:
        template["spec"].pop("volumes", None)
    return document


def manifests(folder, catalogue, image, names=("*.yaml",)):
    """The documents of a folder, as this node can run them."""
    for path in sorted(path for name in names for path in Path(folder).glob(name)):
        for document in yaml.safe_load_all(path.read_text()):
            if document:
                yield served(document, catalogue, image)
