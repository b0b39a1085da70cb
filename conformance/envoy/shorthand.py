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


def fill(snapshot):
    """Replaces the short forms: `http: [{port, virtual_hosts | rds, manager}]`, `static: [{name, ports, ...}]`."""
    resources = snapshot.setdefault("resources", {})
    for each in snapshot.pop("http", []):
        manager = dict(each.get("manager", {}))
        if "rds" in each:
            source = {"ads": {}, "resource_api_version": "V3"}
            manager["rds"] = {"route_config_name": each["rds"], "config_source": source}
            made = listener(each["port"], manager)
        else:
            made = inline(each["port"], each["virtual_hosts"], manager)
        resources.setdefault("listeners", []).append(made)
    for each in snapshot.pop("static", []):
        resources.setdefault("clusters", []).append(static(**each))
    for trial in snapshot.get("trials", []):
        # One resource of a kind that is given by the part that matters.
        if "manager" in trial:
            virtual_hosts = [{"name": "v", "domains": ["*"]}]
            trial["kind"], trial["resource"] = "listeners", inline(18080, virtual_hosts, trial["manager"])
        elif "routes" in trial or "virtual_hosts" in trial:
            virtual_hosts = trial.get("virtual_hosts") or [{"name": "v", "domains": ["*"], "routes": trial["routes"]}]
            trial["kind"], trial["resource"] = "routes", {"name": "trial", "virtual_hosts": virtual_hosts}
        elif "cluster" in trial:
            trial["kind"], trial["resource"] = "clusters", static("trial", [9001], **trial["cluster"])
