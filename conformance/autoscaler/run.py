#!/usr/bin/env python3
"""Judges Lateen's HorizontalPodAutoscaler controller by what the one of Kubernetes decided for the same metrics.

    run.py check                       our controller beside the recording (recording.yaml, differences.yaml)
    run.py record PROGRAMS             records etcd, kube-apiserver and kube-controller-manager of this folder instead

A case of cases.yaml has an autoscaler, and steps. A step says which pods there are and what they use; then the
controller looks at it until nothing changes any more, and what it decided is kept: replicas, status and events. The
target is a custom resource with a scale and the pods are made by hand, so that no other controller has a say. Metrics
reach Kubernetes as custom resources under the name of the metrics API, and ours as the node's answer.

`check` fails on a difference that is not listed, and on a listed one that is gone."""

import argparse
import concurrent.futures
import datetime
import http.client
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time

import yaml

HERE = pathlib.Path(__file__).resolve().parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent.parent / "target")) / "debug/examples"
PERIOD = 1
DOWNSCALE = 4  # seconds of stabilization where a case says nothing
START_SECONDS = 60
SETTLED = 2.6 * PERIOD
GROUP = "/apis/example.org/v1/namespaces"
AUTOSCALERS = "/apis/autoscaling/v2/namespaces"
METRICS = "/apis/metrics.k8s.io/v1beta1/namespaces"


class Api:
    """A Kubernetes API, asked with a token."""

    def __init__(self, kubeconfig):
        config = yaml.safe_load(pathlib.Path(kubeconfig).read_text())
        self.host = config["clusters"][0]["cluster"]["server"].removeprefix("https://")
        self.token = config["users"][0]["user"]["token"]
        self.context = ssl._create_unverified_context()  # a server of this run, on loopback
        self.local = threading.local()

    def ask(self, method, path, body=None, kind="application/json", expect=True):
        for attempt in range(2):
            connection = getattr(self.local, "connection", None)
            if connection is None:
                connection = http.client.HTTPSConnection(self.host, context=self.context, timeout=20)
                self.local.connection = connection
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind, "Accept": "application/json"}
            try:
                connection.request(method, path, json.dumps(body) if body is not None else None, headers)
                response = connection.getresponse()
                text = response.read()
                break
            except (http.client.HTTPException, OSError):
                self.local.connection = None
                if attempt:
                    raise
        answer = json.loads(text) if text.startswith(b"{") else {}
        if expect and response.status >= 300:
            sys.exit(f"{method} {path}: {response.status} {answer.get('message', text)}")
        return answer if response.status < 300 else None

    def merge(self, path, body):
        return self.ask("PATCH", path, body, "application/merge-patch+json")


class Programs:
    """Processes and a folder that end with the run."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lateen-autoscaler-"))
        self.running = []

    def start(self, name, *command):
        log = open(self.folder / f"{name}.log", "w")
        self.running.append(subprocess.Popen([str(part) for part in command], stdout=log, stderr=subprocess.STDOUT))

    def until(self, what, check):
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if check():
                    return
            except OSError:
                pass
            if time.monotonic() > deadline or any(process.poll() is not None for process in self.running):
                logs = "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.log"))
                sys.exit(f"{what} did not come up:\n{logs}")
            time.sleep(0.1)

    def stop(self):
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:  # kube-apiserver waits for its clients, one of which is this process
                process.kill()
                process.wait()
        shutil.rmtree(self.folder)


class Ours(Programs):
    """Our API server with its controllers, and the node's answers."""

    def __init__(self):
        super().__init__()
        self.usages, self.lock = {}, threading.Lock()
        kubeconfig = self.folder / "kubeconfig"
        self.start("apiserver", TARGET / "apiserver", 0, self.folder / "state", kubeconfig, PERIOD, DOWNSCALE)
        self.until("the API server", kubeconfig.exists)
        outer = self

        class Node(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = json.dumps(outer.answer()).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

            def address_string(self):
                return "api"

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

        server = Server(str(self.folder / "state/kubelet.sock"), Node)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.api = Api(kubeconfig)

    def answer(self):
        with self.lock:
            pods = [pod for usages in self.usages.values() for pod in usages]
        return {"node": None, "pods": pods}

    def use(self, namespace, pods):
        def container(name, usage):
            return {"name": name, "cpu": nano(usage.get("cpu", "0")), "memory": bytes_of(usage.get("memory", "0"))}
        with self.lock:
            self.usages[namespace] = [
                {"namespace": namespace, "name": name, "timestamp": now(), "windowMillis": 10_000,
                 "containers": [container(container_name, usage) for container_name, usage in containers.items()]}
                for name, _, containers in pods]


class Kubernetes(Programs):
    """The original, from a folder with its programs."""

    def __init__(self, programs):
        super().__init__()
        programs = pathlib.Path(programs)
        etcd, peers, port, manager = (free_port() for _ in range(4))
        key, certificate = self.folder / "sa.key", self.folder / "tokens.csv"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        certificate.write_text("secret,admin,admin,system:masters\n")
        kubeconfig = self.folder / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "clusters": [{"name": "a", "cluster": {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}}],
            "users": [{"name": "a", "user": {"token": "secret"}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}]}))
        self.start("etcd", programs / "etcd", "--data-dir", self.folder / "etcd", "--unsafe-no-fsync",
                   "--listen-client-urls", f"http://127.0.0.1:{etcd}", "--advertise-client-urls", f"http://127.0.0.1:{etcd}",
                   "--listen-peer-urls", f"http://127.0.0.1:{peers}")
        self.start("apiserver", programs / "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd}",
                   "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={port}",
                   f"--cert-dir={self.folder}", f"--token-auth-file={certificate}", "--authorization-mode=AlwaysAllow",
                   "--service-account-issuer=https://a", f"--service-account-key-file={key}",
                   f"--service-account-signing-key-file={key}", "--service-cluster-ip-range=10.96.0.0/16",
                   "--endpoint-reconciler-type=none", "--disable-admission-plugins=ServiceAccount")
        self.api = Api(kubeconfig)
        self.until("kube-apiserver", lambda: self.api.ask("GET", "/api/v1/namespaces/default", expect=False))
        definition(self.api, "metrics.k8s.io", "v1beta1", "PodMetrics", "pods", {},
                   {"api-approved.kubernetes.io": "unapproved, a test that has no metrics server"})
        self.until("the metrics", lambda: self.api.ask("GET", f"{METRICS}/default/pods", expect=False))
        self.start("manager", programs / "kube-controller-manager", f"--kubeconfig={kubeconfig}",
                   f"--secure-port={manager}", "--bind-address=127.0.0.1", "--leader-elect=false",
                   f"--horizontal-pod-autoscaler-sync-period={PERIOD}s",
                   f"--horizontal-pod-autoscaler-downscale-stabilization={DOWNSCALE}s",
                   "--kube-api-qps=500", "--kube-api-burst=1000",
                   "--controllers=horizontal-pod-autoscaler-controller,namespace-controller")

    def use(self, namespace, pods):
        wanted = {name: (labels, containers) for name, labels, containers in pods}
        found = self.api.ask("GET", f"{METRICS}/{namespace}/pods")["items"]
        for item in found:
            if item["metadata"]["name"] not in wanted:
                self.api.ask("DELETE", f"{METRICS}/{namespace}/pods/{item['metadata']['name']}")
        known = {item["metadata"]["name"] for item in found}
        for name, (labels, containers) in wanted.items():
            body = {"apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics",
                    "metadata": {"name": name, "labels": labels}, "timestamp": now(), "window": "10s",
                    "containers": [{"name": container, "usage": usage} for container, usage in containers.items()]}
            if name in known:
                self.api.merge(f"{METRICS}/{namespace}/pods/{name}", body)
            else:
                self.api.ask("POST", f"{METRICS}/{namespace}/pods", body)


def ordered(message):
    """A message whose list of autoscalers is sorted: Kubernetes has it in any order."""
    def names(found):
        return "[" + " ".join(sorted(found[1].split())) + "]"
    return re.sub(r"\[([^\]]*)\]", names, message)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def now(ago=0):
    moment = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=ago)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def nano(text):
    return int(text[:-1]) * 1_000_000 if text.endswith("m") else int(text) * 1_000_000_000


def bytes_of(text):
    for suffix, power in (("Ki", 10), ("Mi", 20), ("Gi", 30)):
        if text.endswith(suffix):
            return int(text[:-2]) << power
    return int(text)


def definition(api, group, version, kind, plural, subresources, annotations):
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    api.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}", "annotations": annotations},
        "spec": {"group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
                 "versions": [{"name": version, "served": True, "storage": True, "subresources": subresources,
                               "schema": {"openAPIV3Schema": schema}}]}})


class Case:
    """One case on one server."""

    def __init__(self, server, case):
        self.server, self.api, self.case = server, server.api, case
        self.namespace = case["name"]
        self.events = set()

    def run(self):
        self.api.ask("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        results = []
        for position, step in enumerate(self.case["steps"]):
            before = self.held() if position else None
            self.pods(step)
            replicas = step.get("replicas", before)
            if replicas is not None:
                self.target("web", replicas, step.get("selector", "app=web"))
            if position == 0:
                for name, spec in self.case.get("autoscalers", {"web": self.case.get("spec", {})}).items():
                    self.autoscaler(name, spec)
            results.append(self.settled(max(step.get("settle", 0), DOWNSCALE + 1)))
        return results

    def held(self):
        """Switches the target off, so that nothing is decided while pods change; returns its replicas."""
        path = f"{GROUP}/{self.namespace}/sets/web"
        scale = self.api.ask("GET", path, expect=False)
        if not scale:
            return None
        self.api.merge(path, {"spec": {"replicas": 0}})

        def is_off():
            conditions = [condition for it in self.seen().values() for condition in it["status"]["conditions"]]
            return any(condition["reason"] == "ScalingDisabled" for condition in conditions)
        self.server.until("a look at the target", is_off)
        return scale["spec"]["replicas"]

    def target(self, name, replicas, selector):
        path = f"{GROUP}/{self.namespace}/sets"
        spec = {"spec": {"replicas": replicas}}
        if self.api.ask("GET", f"{path}/{name}", expect=False) is None:
            self.api.ask("POST", path, {"apiVersion": "example.org/v1", "kind": "Set", "metadata": {"name": name}} | spec)
        else:
            self.api.merge(f"{path}/{name}", spec)
        self.api.merge(f"{path}/{name}/status", {"status": {"replicas": replicas, "selector": selector}})

    def autoscaler(self, name, spec):
        for other in spec.pop("also", []):
            self.target(other, 3, "app=web")
        metric = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
        whole = {"minReplicas": 2, "maxReplicas": 5, "metrics": [metric],
                 "scaleTargetRef": {"apiVersion": "example.org/v1", "kind": "Set", "name": "web"}} | spec
        self.api.ask("POST", f"{AUTOSCALERS}/{self.namespace}/horizontalpodautoscalers", {
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}, "spec": whole})

    def pods(self, step):
        """Makes the pods of a step: a list of groups, each with how many, and what is particular about them."""
        wanted = [group for group in step.get("pods", []) for _ in range(group.get("count", 1))]
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        for item in self.api.ask("GET", path)["items"]:
            self.api.merge(f"{path}/{item['metadata']['name']}", {"metadata": {"finalizers": None}})
            self.api.ask("DELETE", f"{path}/{item['metadata']['name']}?gracePeriodSeconds=0", expect=False)
        used = []
        for number, group in enumerate(wanted):
            name = f"{step.get('prefix', 'pod')}-{number}"
            labels = group.get("labels", {"app": "web"})
            containers = group.get("containers", {"main": group.get("requests", {"cpu": "100m", "memory": "64Mi"})})
            spec = {"containers": [{"name": container, "image": "web", "resources": {"requests": requests}}
                                   for container, requests in containers.items()]}
            metadata = {"name": name, "labels": labels}
            if group.get("deleting"):
                metadata["finalizers"] = ["example.org/kept"]
            self.api.ask("POST", path, {"metadata": metadata, "spec": spec})
            started = now(group.get("age", 3600))
            ready = {"type": "Ready", "status": group.get("ready", "True"),
                     "lastTransitionTime": now(group.get("age", 3600) - group.get("turnedAfter", 0))}
            self.api.merge(f"{path}/{name}/status", {"status": {
                "phase": group.get("phase", "Running"), "startTime": started, "conditions": [ready]}})
            if group.get("deleting"):
                self.api.ask("DELETE", f"{path}/{name}")
            if "uses" in group:
                uses = group["uses"]
                used.append((name, labels, uses if "main" not in containers or "main" in uses else {"main": uses}))
        self.server.use(self.namespace, used)

    def seen(self):
        found = {}
        for item in self.api.ask("GET", f"{AUTOSCALERS}/{self.namespace}/horizontalpodautoscalers")["items"]:
            target = item["spec"]["scaleTargetRef"]["name"]
            scale = self.api.ask("GET", f"{GROUP}/{self.namespace}/sets/{target}", expect=False)
            status = item.get("status", {})
            status = {field: value for field, value in status.items() if value is not None and field != "lastScaleTime"}
            for condition in status.get("conditions", []):
                condition.pop("lastTransitionTime", None)
                condition["message"] = ordered(condition["message"])
            if "conditions" in status:
                status["conditions"] = sorted(status["conditions"] or [], key=lambda it: it["type"])
            replicas = scale["spec"]["replicas"] if scale else None
            found[item["metadata"]["name"]] = {"replicas": replicas, "status": status}
        return found

    def settled(self, at_least):
        """What is seen when nothing has changed for some looks, with the events since the last step."""
        start = last = time.monotonic()
        before = None
        while True:
            time.sleep(0.2)
            seen = self.seen()
            moment = time.monotonic()
            if seen != before:
                before, last = seen, moment
            # Times lie in between: looks come within a period of a change.
            if moment - last > SETTLED and moment - start > at_least + SETTLED:
                break
        events = self.api.ask("GET", f"/api/v1/namespaces/{self.namespace}/events")["items"]
        told = {(event["involvedObject"]["name"], event["type"], event["reason"], ordered(event["message"])) for event in events
                if event["involvedObject"]["kind"] == "HorizontalPodAutoscaler"}
        news = sorted(told - self.events)
        self.events |= told
        return {"autoscalers": seen, "events": [list(event) for event in news]}


def run(server, cases):
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
             "labelSelectorPath": ".status.selector"}
    definition(server.api, "example.org", "v1", "Set", "sets", {"scale": scale, "status": {}}, {})
    server.until("the custom resource", lambda: server.api.ask("GET", f"{GROUP}/default/sets", expect=False))
    with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool:
        running = {case["name"]: pool.submit(Case(server, case).run) for case in cases}
        return {name: case.result() for name, case in running.items()}


def leaves(value, path=""):
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for position, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{position}]")
    else:
        yield path, value


def compare(expected, found, differences):
    listed = {(entry["case"], entry["path"]): entry for entry in differences}
    same, met, failed = 0, set(), []
    for name in sorted(expected.keys() | found.keys()):
        one, other = dict(leaves(expected.get(name, []))), dict(leaves(found.get(name, [])))
        for path in sorted(one.keys() | other.keys()):
            if one.get(path, "(nothing)") == other.get(path, "(nothing)"):
                same += 1
            elif (name, path) in listed:
                met.add((name, path))
            else:
                failed.append(f"{name} {path}\n    Kubernetes: {one.get(path, '(nothing)')!r}\n    Lateen:     {other.get(path, '(nothing)')!r}")
    failed += [f"{case} {path}: listed, but there is no difference any more" for case, path in listed.keys() - met]
    return same, len(met), failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["check", "record"])
    parser.add_argument("programs", nargs="?")
    parser.add_argument("--only", help="the case of this name")
    options = parser.parse_args()
    cases = yaml.safe_load((HERE / "cases.yaml").read_text())
    cases = [case for case in cases if options.only in (None, case["name"])]
    if options.action == "record" and not options.programs:
        parser.error("record needs the folder of the programs")
    server = Ours() if options.action == "check" else Kubernetes(options.programs)
    try:
        found = run(server, cases)
    finally:
        server.stop()
    recording = HERE / "recording.yaml"
    if options.action == "record":
        kept = yaml.safe_load(recording.read_text()) if recording.exists() and options.only else {}
        recording.write_text(yaml.safe_dump(kept | found, sort_keys=True, width=120))
        return
    expected = yaml.safe_load(recording.read_text())
    expected = {name: steps for name, steps in expected.items() if options.only in (None, name)}
    listed = yaml.safe_load((HERE / "differences.yaml").read_text()) or []
    same, kept, failed = compare(expected, found, [entry for entry in listed if entry["case"] in expected])
    print(f"autoscaler: {len(expected)} cases, {same} of {same + kept + len(failed)} values equal, {kept} listed")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
