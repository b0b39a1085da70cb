"""A delta ADS server for one proxy: serves what it is given, and knows what was accepted or rejected."""

import importlib
import pkgutil
import queue
import threading
import time
from concurrent import futures

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf import any_pb2, json_format

PREFIX = "type.googleapis.com/"
TYPES = {
    "clusters": "envoy.config.cluster.v3.Cluster",
    "endpoints": "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "listeners": "envoy.config.listener.v3.Listener",
    "routes": "envoy.config.route.v3.RouteConfiguration",
    "secrets": "envoy.extensions.transport_sockets.tls.v3.Secret",
}
URLS = {kind: PREFIX + message for kind, message in TYPES.items()}
KINDS = {url: kind for kind, url in URLS.items()}
WILDCARD = ("clusters", "listeners")


def load(message):
    """Makes a message type, and everything in its package, known to the JSON parser."""
    package = importlib.import_module(message.rpartition(".")[0])
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.endswith("_pb2"):
            importlib.import_module(f"{package.__name__}.{module.name}")


def load_all(value):
    """Loads the types of every `@type` in a JSON value."""
    if isinstance(value, dict):
        if "@type" in value:
            load(value["@type"].removeprefix(PREFIX))
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            load_all(item)


def pack(kind, resource):
    """A resource in JSON as the wire has it, with its name."""
    load(TYPES[kind])
    load_all(resource)
    packed = any_pb2.Any()
    json_format.ParseDict({"@type": URLS[kind], **resource}, packed)
    return resource.get("name") or resource.get("cluster_name") or resource["clusterName"], packed


class Ads(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):
    """`put` sends resources to whoever subscribed, now or later; `settle` waits for the answers."""

    def __init__(self, port):
        self.lock = threading.Condition()
        self.held = {kind: {} for kind in TYPES}
        self.version = 0
        self.nonce = 0
        self.unanswered = {}
        self.rejected = {}
        self.subscribed = {kind: set() for kind in TYPES}
        self.outbox = None
        # One stream of one proxy: two threads are enough, with a spare for a reconnection.
        self.server = grpc.server(futures.ThreadPoolExecutor(3))
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self, self.server)
        self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.server.start()

    def put(self, kind, resources, removed=()):
        with self.lock:
            self.version += 1
            packed = dict(pack(kind, resource) for resource in resources)
            self.held[kind].update(packed)
            for name in removed:
                self.held[kind].pop(name, None)
            self.send(kind, packed, removed)

    def send(self, kind, names, removed=()):
        wanted = [name for name in names if kind in WILDCARD or name in self.subscribed[kind]]
        if self.outbox is None or not (wanted or removed):
            return
        self.nonce += 1
        self.unanswered[str(self.nonce)] = (kind, wanted)
        self.outbox.put(discovery_pb2.DeltaDiscoveryResponse(
            type_url=URLS[kind], nonce=str(self.nonce), system_version_info=str(self.version),
            removed_resources=list(removed),
            resources=[discovery_pb2.Resource(name=name, version=str(self.version), resource=self.held[kind][name])
                       for name in wanted]))

    def settle(self, seconds, expected=lambda: True):
        """Waits until everything that was sent is answered; returns the reasons of rejections by kind and name."""
        end = time.monotonic() + seconds
        with self.lock:
            while self.unanswered or not (self.rejected or expected()):
                if not self.lock.wait(max(0.0, end - time.monotonic())):
                    raise TimeoutError(f"no answer to {list(self.unanswered.values())}")
            rejected, self.rejected = self.rejected, {}
            return rejected

    def DeltaAggregatedResources(self, requests, context):
        outbox = queue.Queue()
        with self.lock:
            self.outbox = outbox
            self.unanswered.clear()
            self.subscribed = {kind: set() for kind in TYPES}

        def read():
            try:
                for request in requests:
                    self.receive(request)
            except grpc.RpcError:
                pass  # The proxy went away.
            outbox.put(None)

        threading.Thread(target=read, daemon=True).start()
        while (response := outbox.get()) is not None:
            yield response

    def receive(self, request):
        kind = KINDS.get(request.type_url)
        if kind is None:
            return
        with self.lock:
            sent = self.unanswered.pop(request.response_nonce, None)
            if sent and request.HasField("error_detail"):
                self.rejected[kind, *sent[1]] = request.error_detail.message
            fresh = set(request.resource_names_subscribe) - {"*"}
            self.subscribed[kind] |= fresh
            self.subscribed[kind] -= set(request.resource_names_unsubscribe)
            if not request.response_nonce and kind in WILDCARD and "seen" not in self.subscribed[kind]:
                self.subscribed[kind].add("seen")
                fresh = set(self.held[kind])
                if not fresh:  # Even nothing must be said: the proxy waits for it.
                    self.nonce += 1
                    self.unanswered[str(self.nonce)] = (kind, [])
                    self.outbox.put(discovery_pb2.DeltaDiscoveryResponse(
                        type_url=URLS[kind], nonce=str(self.nonce), system_version_info=str(self.version)))
            self.send(kind, sorted(fresh & set(self.held[kind])))
            self.lock.notify_all()
