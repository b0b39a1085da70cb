"""Short forms in snapshots: `http` makes listeners, `static` makes clusters. Fields beside them are the resources' own."""

MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


def socket_address(port, address="127.0.0.1"):
    return {"socket_address": {"address": address, "port_value": port}}


def listener(port, manager):
    """A listener with an HTTP connection manager, named after its port."""
    filters = manager.pop("filters", [])
    config = {"@type": MANAGER, "stat_prefix": f"port-{port}",
              "http_filters": [*filters, {"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}], **manager}
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": config}]}
    return {"name": f"http-{port}", "address": socket_address(port), "filter_chains": [chain]}


def inline(port, virtual_hosts, manager):
    return listener(port, {"route_config": {"name": f"routes-{port}", "virtual_hosts": virtual_hosts}, **manager})


def static(name, ports, **fields):
    endpoints = [{"endpoint": {"address": socket_address(port)}} for port in ports]
    return {"name": name, "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}, **fields}


def tls(direction, context):
    """A transport socket with a TLS context."""
    url = f"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{direction}TlsContext"
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": url, **context}}


def tcp(port, proxy):
    """A listener with a TCP proxy that logs to `text`."""
    url = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    config = {"@type": url, "stat_prefix": f"port-{port}", **proxy}
    chain = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": config}]}
    return {"name": f"tcp-{port}", "address": socket_address(port), "filter_chains": [chain]}


def chains(port, wanted):
    """A listener that looks at the client hello, with filter chains: `{match, tls, cluster, manager}`."""
    inspector = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
    made = listener(port, {})
    made["listener_filters"] = [{"name": "envoy.filters.listener.tls_inspector", "typed_config": {"@type": inspector}}]
    made["filter_chains"] = []
    for index, each in enumerate(wanted):
        routes = [{"match": {"prefix": "/"}, "route": {"cluster": each["cluster"]}}]
        virtual_hosts = [{"name": "v", "domains": ["*"], "routes": routes}]
        chain = inline(port, virtual_hosts, dict(each.get("manager", {})))["filter_chains"][0]
        chain |= {"name": f"chain-{index}", "filter_chain_match": each.get("match", {})}
        if "tls" in each:
            chain["transport_socket"] = tls("Downstream", each["tls"])
        made["filter_chains"].append(chain)
    return made


def fill(snapshot):
    """Replaces the short forms: `http: [{port, virtual_hosts | rds, manager, listener}]`, `static: [{name, ports, tls, ...}]`,
    `tcp: [{port, proxy}]` with the snapshot's `access_log`, `chains: [{port, chains}]`, and `handshakes: {ports, clients}`, a request from each client to each port."""
    resources = snapshot.setdefault("resources", {})
    for each in snapshot.pop("chains", []):
        resources.setdefault("listeners", []).append(chains(each["port"], each["chains"]))
    for each in snapshot.pop("tcp", []):
        proxy = each["proxy"] | ({"access_log": snapshot["access_log"]} if "access_log" in snapshot else {})
        resources.setdefault("listeners", []).append(tcp(each["port"], proxy))
    for each in snapshot.pop("handshakes", []):
        for port in each["ports"]:
            for name, client in each["clients"].items():
                request = {"name": f"{name} at {port}", "port": port, "alone": True, **(client or {})}
                snapshot.setdefault("requests", []).append(request)
    for each in snapshot.pop("http", []):
        manager = dict(each.get("manager", {}))
        if "rds" in each:
            source = {"ads": {}, "resource_api_version": "V3"}
            manager["rds"] = {"route_config_name": each["rds"], "config_source": source}
            made = listener(each["port"], manager)
        else:
            made = inline(each["port"], each["virtual_hosts"], manager)
        made |= each.get("listener", {})
        resources.setdefault("listeners", []).append(made)
    for each in snapshot.pop("static", []):
        if "tls" in each:
            each["transport_socket"] = tls("Upstream", each.pop("tls"))
        resources.setdefault("clusters", []).append(static(**each))
    for trial in snapshot.get("trials", []):
        # One resource of a kind that is given by the part that matters.
        if "tcp" in trial:
            trial["kind"], trial["resource"] = "listeners", tcp(18080, trial["tcp"])
        elif "manager" in trial:
            virtual_hosts = [{"name": "v", "domains": ["*"]}]
            trial["kind"], trial["resource"] = "listeners", inline(18080, virtual_hosts, trial["manager"])
        elif "routes" in trial or "virtual_hosts" in trial:
            virtual_hosts = trial.get("virtual_hosts") or [{"name": "v", "domains": ["*"], "routes": trial["routes"]}]
            trial["kind"], trial["resource"] = "routes", {"name": "trial", "virtual_hosts": virtual_hosts}
        elif "server" in trial:
            made = inline(18080, [{"name": "v", "domains": ["*"]}], {})
            made["filter_chains"][0]["transport_socket"] = tls("Downstream", trial["server"])
            trial["kind"], trial["resource"] = "listeners", made
        elif "client" in trial:
            socket = tls("Upstream", trial["client"])
            trial["kind"], trial["resource"] = "clusters", static("trial", [9001], transport_socket=socket)
        elif "cluster" in trial:
            trial["kind"], trial["resource"] = "clusters", static("trial", [9001], **trial["cluster"])
