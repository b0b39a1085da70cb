"""Plays snapshots on one proxy, and writes what was seen.  play.py envoy|lateen SEED COUNT FOLDER BINARY SNAPSHOT...

Runs in a network namespace of its own, so that both proxies get the same snapshot with the same addresses.
"""

import collections
import copy
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from concurrent import futures

import ads
import certificates
import generate
import http2
import http2_spec
import http2_wire
import network
import recordings
import shorthand
import upstream
import wire
import yaml

XDS, ADMIN = 15010, 15000
DEADLINE = 20
# Seconds without a frame that say that none will come.
PATIENCE_WITH_FRAMES = 2.0
# Lists of frames that are played at the same time, each on a connection of its own. Most of their time is waiting.
AT_ONCE = 12
NODE = "router~127.0.0.1~conformance.default~default.svc.cluster.local"


def bootstrap(recorded=False):
    http2 = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}}}}

    def address(port):
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(XDS)}}]}]
    source = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    zipkin = {"@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig", "collector_cluster": "xds-grpc",
              "collector_endpoint": "/", "collector_endpoint_version": "HTTP_JSON", "trace_id_128bit": True, "shared_span_context": False}
    # Istio's proxies trace with Zipkin's headers when nothing says otherwise.
    tracing = {"tracing": {"http": {"name": "envoy.tracers.zipkin", "typed_config": zipkin}}} if recorded else {}
    return {
        **tracing,
        "node": {"id": NODE, "cluster": "conformance.default"},
        "admin": {"address": address(ADMIN)},
        # As Istio's proxies are started: fragments are taken off paths.
        "layered_runtime": {"layers": [{"name": "istio", "static_layer": {
            "envoy.reloadable_features.http_reject_path_with_fragment": False}}]},
        "dynamic_resources": {"lds_config": source, "cds_config": source, "ads_config": {
            "api_type": "DELTA_GRPC", "set_node_on_first_message_only": True, "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]}},
        "static_resources": {"clusters": [{
            "name": "xds-grpc", "type": "STATIC", "connect_timeout": "1s", "typed_extension_protocol_options": http2,
            "load_assignment": {"cluster_name": "xds-grpc", "endpoints": endpoints}}]}}


class Proxy:
    """The proxy under test, for one snapshot."""

    def __init__(self, which, binary, folder, name, recorded):
        self.log = folder / f"{which}-{name}.log"
        environment = dict(os.environ)
        if which == "envoy":
            config = folder / f"{name}.json"
            config.write_text(json.dumps(bootstrap(recorded)))
            command = [binary, "-c", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        else:
            command = [binary, "proxy", "router", "--concurrency", "1"]
            environment |= {"POD_NAME": "conformance", "POD_NAMESPACE": "default", "INSTANCE_IP": "127.0.0.1",
                            "PROXY_CONFIG": json.dumps({"discoveryAddress": f"127.0.0.1:{XDS}"})}
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, env=environment)

    def stop(self):
        self.process.kill()
        self.process.wait()


def until(what, check):
    end = time.monotonic() + DEADLINE
    while not check():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {DEADLINE} s: {what}")
        time.sleep(0.02)


def listening(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def log_lines(path, count, without=None):
    """The lines of a log, once there are as many as expected; JSON lines as objects. Those of TCP connections come in any
    order, and `without` is a pattern for those of connections that only see whether a port is open."""
    def lines():
        found = path.read_text().splitlines() if path.exists() else []
        return found if without is None else sorted(line for line in found if not re.search(without, line))

    try:
        until(f"{count} lines in {path.name}", lambda: len(lines()) >= count)
    except TimeoutError:
        pass
    return [json.loads(line) if line.startswith("{") else line for line in lines()]


def statistics(pattern):
    """Counters and gauges whose names fit."""
    query = urllib.parse.urlencode({"filter": pattern})
    with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/stats?{query}", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return dict(line.split(": ", 1) for line in lines if line.rsplit(": ", 1)[-1].isdigit())


def load(path, logs, seed, count):
    """A snapshot in full: of a file with short forms, or of a recording."""
    if path.suffix == ".json":
        return recordings.snapshot(path)
    snapshot = yaml.safe_load(path.read_text().replace("$FOLDER", str(logs)))
    shorthand.fill(snapshot)
    if "generate" in snapshot:
        generate.fill(snapshot, seed, count)
    return snapshot


def ports(listeners):
    """Where listeners accept connections."""
    for listener in listeners:
        if listener.get("bindToPort", True):
            address = listener["address"]
            if "socketAddress" in address:
                yield address["socketAddress"]["portValue"]
            else:
                yield address["socket_address"]["port_value"]


def play(which, binary, folder, path, seed, count):
    """What was seen of one snapshot: a list of transcripts."""
    name = recordings.name_of(path)
    logs = folder / f"{which}-{name}-logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir()
    snapshot = load(path, logs, seed, count)
    made = certificates.Certificates(snapshot.pop("certificates", {}), pathlib.Path(tempfile.mkdtemp(dir=folder)))
    snapshot = made.fill(snapshot)
    for each in snapshot.get("upstreams", []):
        upstream.start(each["name"], each.get("address", "127.0.0.1"), each["port"], files(made, each.get("tls")),
                       each.get("speaks", "http"))
    if "network" in snapshot:
        network.start(snapshot["network"], snapshot["redirects"], made)
    server = ads.Ads(XDS)
    for kind in ads.TYPES:
        server.put(kind, snapshot.get("resources", {}).get(kind, []))
    proxy = Proxy(which, binary, folder, name, "network" in snapshot)
    try:
        named = {kind: set(server.held[kind]) for kind in ("endpoints", "routes", "secrets")}
        rejected = server.settle(DEADLINE, lambda: server.subscribed["listeners"] and all(
            server.subscribed[kind] >= names for kind, names in named.items()))
        if rejected:
            return [{"name": "the snapshot", "seen": {"rejected": True}, "note": str(rejected)}]
        for port in ports(snapshot.get("resources", {}).get("listeners", [])):
            until(f"port {port}", lambda: listening(port))
        seen = [attempt(server, trial) for trial in snapshot.get("trials", [])]
        clients = {}
        wanted = list(expand(snapshot.get("requests", [])))
        with futures.ThreadPoolExecutor(AT_ONCE) as pool:
            seen += pool.map(lambda request: exchange_frames(request, request.get("port", snapshot.get("port"))),
                             [request for request in wanted if "frames" in request])
        for request in (request for request in wanted if "frames" not in request):
            request["tls"] = files(made, request.get("tls"))
            seen.append(ask(clients, request, snapshot))
        if "h2spec" in snapshot:
            seen += http2_spec.run(pathlib.Path(sys.prefix).parent / "h2spec", snapshot["h2spec"])
        seen += [{"name": f"log {each['name']}", "seen": {"lines": log_lines(logs / each["name"], each["lines"], each.get("without"))}}
                 for each in snapshot.get("logs", [])]
        seen += [{"name": f"stats {each}", "seen": statistics(each)} for each in snapshot.get("stats", [])]
        if "network" in snapshot:
            seen.append({"name": "arrivals", "seen": network.arrivals()})
        if proxy.process.poll() is not None:
            raise RuntimeError(f"the proxy ended with {proxy.process.returncode}: {proxy.log.read_text()[-2000:]}")
        return tallied(seen)
    finally:
        proxy.stop()
        server.server.stop(0).wait()


def attempt(server, trial):
    """Offers one resource, then puts things back."""
    kind, resource = trial["kind"], copy.deepcopy(trial["resource"])
    name = resource.get("name") or resource["cluster_name"]
    before = server.held[kind].get(name)
    server.put(kind, [resource])
    rejected = server.settle(DEADLINE)
    if before is None:
        server.put(kind, [], [name])
    else:
        server.held[kind][name] = before
        server.version += 1
        with server.lock:
            server.send(kind, [name])
    server.settle(DEADLINE)
    note = next(iter(rejected.values()), "")
    return {"name": trial["name"], "seen": {"rejected": bool(rejected)}, "note": note}


def files(made, tls):
    """TLS options with files in the place of names."""
    if tls is None:
        return None
    return {key: str(made.file(value)) if key in ("identity", "clients") else value for key, value in tls.items()}


def expand(requests):
    """Repeats with `{n}` replaced by the number of the repetition."""
    for request in requests:
        for number in range(request.get("repeat", 1)):
            text = json.dumps({key: value for key, value in request.items() if key != "repeat"})
            made = json.loads(text.replace("{n}", str(number)))
            if "repeat" in request and "tally" not in request:
                made["name"] = f"{request['name']} {number}"
            yield made


def encode(request):
    if "raw" in request:
        return request["raw"].encode("latin-1")
    lines = [f"{request.get('method', 'GET')} {request.get('path', '/')} HTTP/1.1"]
    lines.append(f"host: {request.get('host', 'example.test')}")
    lines += [f"{name}: {value}" for name, value in request.get("headers", [])]
    body = request.get("body", "")
    if body:
        lines.append(f"content-length: {len(body.encode('latin-1'))}")
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")


def together(request, snapshot):
    """Many at the same time, each on a connection of its own and a little after the one before: how many got what."""
    counts, lock = collections.Counter(), threading.Lock()

    def one():
        client = wire.Client(request.get("port", snapshot.get("port")), patience=5.0)
        found = client.exchange(encode(request), 1)
        client.close()
        with lock:
            counts[found[0]["start"].split(" ")[1] if found and isinstance(found[0], dict) else str(found)] += 1

    threads = [threading.Thread(target=one) for _ in range(request["together"])]
    for thread in threads:
        thread.start()
        time.sleep(0.03)
    for thread in threads:
        thread.join()
    return {"name": request["name"], "seen": {"counts": dict(sorted(counts.items()))}}


def stats(request):
    """Numbers of the proxy's admin interface, by name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/stats") as answer:
        lines = answer.read().decode().splitlines()
    values = dict(line.split(": ", 1) for line in lines if ": " in line)
    return {"name": request["name"], "seen": {name: values.get(name, "none") for name in request["stats"]}}


def ask(clients, request, snapshot):
    if "pause" in request:
        time.sleep(request["pause"])
    if "stats" in request:
        return stats(request)
    if "together" in request:
        return together(request, snapshot)
    port = request.get("port", snapshot.get("port"))
    if "pseudo" in request:
        return stream(request, port)
    if "bytes" in request:
        client = wire.Client(port)
        # Whether the proxy closes before it has read what was sent, or after, is a matter of time.
        came = client.tunnel(request["bytes"], request.get("half", False))
        seen = relayed(came.replace("<ConnectionResetError>", "<end>").replace("<BrokenPipeError>", "<end>"))
        client.close()
        return {"name": request["name"], "seen": seen}
    key = (port, request.get("source", "127.0.0.1"), request.get("address", "127.0.0.1"))
    alone = "raw" in request or request.get("alone", False)
    started = time.monotonic()
    client = None if alone else clients.pop(key, None)
    if "line" in request:
        return relay(request, key)
    if request["tls"] is not None:
        return shake(request, key)
    client = client or wire.Client(*key, patience=request.get("patience", 5.0))
    found = client.exchange(encode(request), request.get("responses", 1))
    seconds = time.monotonic() - started
    seen = {"responses": [canonical(response) for response in found]}
    if "tunnel" in request:
        seen["tunnel"] = relayed(client.tunnel(request["tunnel"], request.get("half", False)))
    if "only" in request:
        seen["responses"] = [response[request["only"]] for response in seen["responses"] if isinstance(response, dict)]
    closing = not found or isinstance(found[-1], str) or any(
        name.lower() == "connection" and "close" in value for name, value in found[-1]["headers"])
    if alone:
        # When it closes after saying so is the proxy's choice: Envoy waits a second for the client.
        seen["connection"] = "closing" if closing else client.ends()
    if alone or closing:
        client.close()
    else:
        clients[key] = client
    if "timing" in request:  # Classes of that many seconds.
        seen["time"] = int(seconds / request["timing"])
    return {"name": request["name"], "seen": seen, "tally": request.get("tally"), "sent": encode(request).decode("latin-1")}


def relayed(text):
    """What came through a tunnel; the line in which an upstream says what it was asked is compared as an object."""
    text = re.sub(r"^(PROXY TCP4 \S+ \S+) \d+ ", r"\1 <port> ", text)
    line, mark, rest = text.partition("\n")
    try:
        asked = json.loads(line)
        asked["headers"] = masked(asked["headers"])
        return {"asked": asked, "rest": rest}
    except (ValueError, TypeError, KeyError):
        return line + mark + rest


def stream(request, port):
    """A request on an HTTP/2 connection of its own."""
    seen = http2.exchange(port, request)
    response = {"start": "", "headers": seen["headers"], "body": seen["data"], "framing": seen["end"]}
    seen = canonical(response) if "tunnel" not in request else {
        "headers": masked(seen["headers"]), "tunnel": relayed(seen["data"]), "end": seen["end"]}
    return {"name": request["name"], "seen": seen, "tally": request.get("tally"), "sent": str(request["pseudo"])}


def relay(request, key):
    """Bytes that are no HTTP, on a connection of their own: what answers them."""
    sent = request["line"].encode("latin-1")
    try:
        client = wire.Client(*key, patience=request.get("patience", 5.0))
        client.connection.sendall(sent)
        answer = client.reader.until(b"\n")
        client.close()
        seen = {"upstream": json.loads(answer)} if answer else "end"
    except OSError as error:
        seen = "silence" if isinstance(error, TimeoutError) else "end"
    return {"name": request["name"], "seen": {"responses": [seen]}, "tally": request.get("tally"), "sent": sent.decode("latin-1")}


def exchange_frames(request, port):
    """Frames of HTTP/2 on a connection of their own: how each stream ends, and whether the connection goes on.

    A request is refused by a 4xx of the proxy, a reset or the end of the connection. Which of them it is, and whether
    others on the connection are still served, is the proxy's choice (RFC 9113, 5.4)."""
    client = http2_wire.Connection(port, PATIENCE_WITH_FRAMES, request.get("settings"))
    client.play(request["frames"])
    found = client.outcome(request.get("streams", 1), PATIENCE_WITH_FRAMES)
    streams = {str(1 + 2 * number): "refused" for number in range(request.get("streams", 1))}
    for number, stream in found["streams"].items():
        if "headers" in stream and "reset" not in stream:
            answer = canonical({"start": "", "framing": "", "body": "", **stream})
            own = "upstream" not in answer and answer["headers"].get(":status", [""])[0].startswith("4")
            streams[number] = "refused" if own else answer
    seen = {"streams": streams}
    if "refused" not in streams.values():
        seen.update({"goaway": found["goaway"], "goes on": found["goes on"]})
    return {"name": request["name"], "seen": seen, "tally": None, "sent": str(request["frames"])[:300]}


def shake(request, key):
    """A request on a TLS connection of its own. How a refusal looks to a client depends on its library, so any will do."""
    sent = encode(request)
    seen = {"refused": True}
    try:
        client = wire.Client(*key, patience=request.get("patience", 5.0), tls=request["tls"])
        found = client.exchange(sent)
        if found and not isinstance(found[0], str):
            connection = client.connection
            seen = {"alpn": connection.selected_alpn_protocol(), "version": connection.version(),
                    "responses": [canonical(response) for response in found]}
            if "shows" in request:
                shown = hashlib.sha256(connection.getpeercert(binary_form=True)).hexdigest()
                seen["expected certificate"] = shown == request["shows"]
        client.close()
    except OSError:
        pass
    return {"name": request["name"], "seen": seen, "tally": request.get("tally"), "sent": sent.decode("latin-1")}


MASKS = [
    (re.compile(r"^date$"), re.compile(r"^\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$"), "<date>"),
    (re.compile(r"^x-request-id$"), re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"), "<uuid>"),
    # The rest of the time that a retry has.
    (re.compile(r"^x-envoy-expected-rq-timeout-ms$"), re.compile(r"^14[89]\d\d$"), "15000"),
    (re.compile(r"^x-envoy-upstream-service-time$"), re.compile(r"^\d+$"), "<ms>"),
    (re.compile(r"^x-b3-((parent)?span|trace)id$"), re.compile(r"^[0-9a-f]{16}([0-9a-f]{16})?$"), "<span>"),
    # A hash of the client's address and port.
    (re.compile(r"^set-cookie$"), re.compile(r'^(\w+)="[0-9a-f]{16}"(.*)$'), r'\1="<hash>"\2'),
]


def masked(headers):
    """Names with their values in order; what varies is checked for its form and hidden."""
    found = {}
    for name, value in headers:
        for names, form, mask in MASKS:
            if names.match(name.lower()) and form.match(value):
                value = form.sub(mask, value)
        if name.lower() == "x-forwarded-client-cert":
            # Every run makes certificates of its own.
            value = re.sub(r"Hash=[0-9a-f]{64}", "Hash=<hash>", value)
            value = re.sub(r'(Cert|Chain)="(-----BEGIN%20CERTIFICATE-----%0A[^"]*%0A)"', r'\1="<pem>"', value)
        found.setdefault(name, []).append(value)
    return dict(sorted(found.items()))


def canonical(response):
    if isinstance(response, str):
        return response
    made = dict(response, headers=masked(response["headers"]))
    try:
        seen = json.loads(response["body"])
        seen["headers"] = masked(seen["headers"])
        del made["body"]
        made["upstream"] = seen
        # It follows from the rest of what is compared here.
        made["headers"].pop("content-length", None)
    except (ValueError, TypeError, KeyError):
        pass
    return made


def tallied(seen):
    """Repetitions that are compared by their counts become one transcript."""
    kept, tallies = [], collections.defaultdict(collections.Counter)
    for transcript in seen:
        what = transcript.pop("tally", None)
        if what is None:
            kept.append(transcript)
            continue
        value = transcript["seen"]["responses"][0]
        for part in what.split("."):
            value = value.get(part, "none") if isinstance(value, dict) else value
        tallies[transcript["name"]][str(value)] += 1
    return kept + [{"name": name, "counts": dict(counts)} for name, counts in tallies.items()]


def main():
    which, seed, count, folder, binary, *paths = sys.argv[1:]
    network.make()
    for path in map(pathlib.Path, paths):
        if path.suffix == ".json":
            ads.load_all(json.loads(path.read_text()))  # Once, and not in each process.
        # A process for each: its upstreams and servers end with it.
        child = os.fork()
        if child == 0:
            status = 1
            try:
                folder_path = pathlib.Path(folder)
                seen = play(which, binary, folder_path, path, int(seed), int(count))
                (folder_path / f"{which}-{recordings.name_of(path)}.seen").write_text(json.dumps(seen))
                status = 0
            except Exception as error:  # Whatever it is, the comparison reports it.
                print(f"{which}: {path.stem}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(status)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
