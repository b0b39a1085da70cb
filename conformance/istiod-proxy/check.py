"""The documents' scenarios on a real Kubernetes with a real istiod, served by Lateen as Istio's proxy.

    check.py SEED-MANIFESTS IMAGE-CATALOGUE      with KUBECONFIG set, where services and pods can be reached

Workloads are the built-in samples, run from the proxy's image by the catalogue that `lateen up` uses."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "node"))
from workloads import Catalogue, manifests  # noqa: E402

IMAGE = "oracle.local/proxyv2:1"
PATIENCE = 90  # seconds for anything to become so


def kubectl(*arguments, text=None):
    done = subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, timeout=180)
    if done.returncode:
        raise SystemExit(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout



def apply(documents):
    kubectl("apply", "-f", "-", text=yaml.safe_dump_all(list(documents)))


def get(path, *more):
    """Status and body through the gateway."""
    address = kubectl("-n", "istio-system", "get", "service", "istio-ingressgateway", "-o", "jsonpath={.spec.clusterIP}")
    command = ["curl", "-s", "-m", "30", "-w", "\n%{http_code}", *more, f"http://{address}{path}"]
    body, _, status = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.rpartition("\n")
    return int(status or 0), body


def eventually(what, condition):
    end, seen = time.monotonic() + PATIENCE, None
    while time.monotonic() < end:
        seen = condition()
        if seen is True:
            print(f"ok    {what}", flush=True)
            return
        time.sleep(0.5)
    print(f"FAIL  {what}: {str(seen)[:400]}", flush=True)
    FAILED.append(what)


FAILED = []


def ready(namespace):
    def condition():
        pods = json.loads(kubectl("-n", namespace, "get", "pods", "-o", "json"))["items"]
        waiting = [
            pod["metadata"]["name"]
            for pod in pods
            if not any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))
        ]
        return True if pods and not waiting else f"not ready: {waiting}"

    eventually(f"every pod of {namespace} is ready", condition)


def accepted():
    """Nothing that istiod sent was rejected, in no proxy."""
    for pod in json.loads(kubectl("get", "pods", "-A", "-o", "json"))["items"]:
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        containers = pod["spec"]["containers"] + pod["spec"].get("initContainers", [])
        if not any(container["name"] == "istio-proxy" for container in containers):
            continue
        logs = kubectl("-n", namespace, "logs", name, "-c", "istio-proxy")
        rejected = sorted({line.split("rejected a resource")[1].strip() for line in logs.splitlines() if "rejected a resource" in line})
        what = f"{namespace}/{name} accepted everything"
        if rejected:
            print(f"FAIL  {what}: {rejected[:5]}")
            FAILED.append(what)
        else:
            print(f"ok    {what}")


def rejects():
    """What istiod counts: it runs beside the node, with its metrics on loopback."""
    metrics = subprocess.run(["curl", "-s", "-m", "10", "http://127.0.0.1:15014/metrics"], capture_output=True, text=True).stdout
    counted = [line for line in metrics.splitlines() if re.match(r"pilot_total_xds_rejects|pilot_xds_\w+_reject", line)]
    wrong = [line for line in counted if float(line.rsplit(" ", 1)[-1])] or ([] if "pilot_xds{" in metrics else ["no metrics of istiod"])
    print(f"{'FAIL' if wrong else 'ok  '}  istiod counts no reject{': ' if wrong else ''}{wrong or ''}")
    FAILED.extend(wrong)


def sticky_header(seeds, catalogue):
    apply(manifests(seeds / "000-001-sticky-header/kube", catalogue, IMAGE))
    ready("default")

    def hit(target, user):
        return get("/hit_backend", "-X", "POST", "-H", f"target: {target}", "-H", f"x-user: {user}",
                   "-H", "content-type: application/json", "-d", json.dumps({"username": user}))

    for target in ("backend-1", "backend-2", "backend-3"):
        eventually(f"target {target} is answered by it", lambda: (hit(target, "ann")[1].count(target) > 0) or hit(target, "ann"))
    eventually("a target that no rule names is not found", lambda: hit("backend-9", "ann")[0] == 404 or hit("backend-9", "ann"))

    def one_pod_each():
        pods = {user: {json.loads(hit("backend-2", user)[1])["pod_id"] for _ in range(5)} for user in map(str, range(12))}
        if any(len(of) != 1 for of in pods.values()):
            return pods
        return len({next(iter(of)) for of in pods.values()}) > 1 or pods

    eventually("each user stays with one pod, and users are spread", one_pod_each)


def strict(namespace):
    """Mutual TLS is what the sidecars speak: when nothing else is accepted, everything goes on."""
    policy = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
              "metadata": {"name": "default", "namespace": namespace}, "spec": {"mtls": {"mode": "STRICT"}}}
    apply([policy])
    pod = json.loads(kubectl("-n", namespace, "get", "pods", "-o", "json"))["items"][0]
    address, port = pod["status"]["podIP"], next(c["ports"][0]["containerPort"] for c in pod["spec"]["containers"] if c["name"] != "istio-proxy")

    def refused():
        done = subprocess.run(["curl", "-s", "-m", "5", f"http://{address}:{port}/"], capture_output=True, text=True)
        return done.returncode in (52, 56) or f"curl exit {done.returncode}: {done.stdout}"

    eventually("plain text is refused where mutual TLS is strict", refused)


def bookinfo(seeds, catalogue):
    platform = seeds / "istio-samples/1.1.2/bookinfo/platform/kube"
    lab = seeds / "004-learn-istio"
    apply(manifests(platform, catalogue, IMAGE, ["bookinfo.yaml"]))
    kubectl("delete", "virtualservice,gateway", "--all")
    ready("default")
    step = lambda number: apply(manifests(lab, catalogue, IMAGE, [f"{number}-*.yaml"]))

    def page(*more):
        status, body = get("/productpage", *more)
        if status != 200:
            return f"status {status}"
        if "Ratings service is currently unavailable" in body:
            return "no ratings"
        if "product reviews are currently unavailable" in body:
            return "no reviews"
        stars = re.search(r'<font color="(\w+)"', body)
        return stars[1] if stars else "none"

    every = lambda expected, count, *more: (lambda: (lambda seen: seen <= expected and len(seen) == len(expected) or seen)({page(*more) for _ in range(count)}))
    step("01")
    eventually("01 the page is served with reviews of every version", every({"none", "black", "red"}, 24))
    jason = ("-b", "session=" + session("jason"))
    step("02"); step("03")
    eventually("03 all reviews are v1", every({"none"}, 10))
    step("04")
    eventually("04 jason sees v2", every({"black"}, 6, *jason))
    eventually("04 others see v1", every({"none"}, 6))
    step("05")
    eventually("05 half see v3", every({"none", "red"}, 24))
    step("06")
    eventually("06 all see v3", every({"red"}, 10))
    step("04"); step("07")
    eventually("07 ratings that are late for jason cost him the reviews", every({"no reviews"}, 1, *jason))
    eventually("07 others are not concerned", every({"none"}, 4))
    step("08")
    eventually("08 ratings that fail for jason leave him the reviews", every({"no ratings"}, 3, *jason))
    eventually("08 others are not concerned", every({"none"}, 4))


def session(user):
    """Signs in; the cookie that the page gave."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        _, head = get("/login", "-i", "-d", f"username={user}&passwd=x")
        found = re.search(r"set-cookie: session=([^;\s]+)", head, re.IGNORECASE)
        if found:
            return found[1]
        time.sleep(0.5)
    return ""


def main():
    seeds, catalogue = Path(sys.argv[1]), Catalogue(sys.argv[2])
    kubectl("label", "namespace", "default", "istio-injection=enabled", "--overwrite")
    ready("istio-system")
    sticky_header(seeds, catalogue)
    strict("default")
    eventually("the gateway is served where mutual TLS is strict", lambda: get("/hit_backend", "-X", "POST", "-H", "target: backend-1", "-H", "content-type: application/json", "-d", "{}")[0] == 200)
    bookinfo(seeds, catalogue)
    accepted()
    rejects()
    sys.exit(f"{len(FAILED)} failed" if FAILED else 0)


main()
