"""Requests that follow from listeners: every filter chain, and in it every domain and every route.

A connection's destination is what the listener, or the match of the filter chain, says. Listeners that restore the original
destination are reached through a redirection of what comes from one source address.
"""

import samples

DIRECT = "10.255.0.1"
REDIRECTED = "10.255.1.{}"
SOMEWHERE = "10.9.9.9"
UNCLAIMED = 12321
# How often a request goes out when the outcome is drawn, and how many values are hashed.
DRAWS, VALUES = 100, 12
# A route that waits this long at most is tried with an upstream that is later.
PATIENCE = 1.0
HASHING = ("RING_HASH", "MAGLEV")
FAULT = "envoy.filters.http.fault"
DENOMINATORS = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}


def seconds(text):
    return float(text.removesuffix("s"))


def partial(percentage):
    """Whether chance decides."""
    share = percentage.get("numerator", 0) / DENOMINATORS[percentage.get("denominator", "HUNDRED")]
    return 0 < share < 1


def drawn(route):
    """What is compared by its shares, if chance decides what happens."""
    fault = route.get("typedPerFilterConfig", {}).get(FAULT, {})
    if any(partial(fault[key].get("percentage", {})) for key in ("abort", "delay") if key in fault):
        return "start"
    if any(partial(each["runtimeFraction"].get("defaultValue", {})) for each in [route["match"]] if "runtimeFraction" in each):
        return "upstream.upstream"
    return "upstream.upstream" if "weightedClusters" in route.get("route", {}) else None


class Walk:
    """The requests of a recording: `requests`, `redirects` (source address to port) and `destinations` (ports)."""

    def __init__(self, resources):
        self.hashed = {each["name"] for each in resources["clusters"] if each.get("lbPolicy") in HASHING}
        self.tables = {table["name"]: table for table in resources["routes"]}
        self.requests, self.redirects, self.destinations = [], {}, set()
        bound = {each["address"]["socketAddress"]["portValue"] for each in resources["listeners"] if each.get("bindToPort", True)}
        restoring = [each for each in resources["listeners"] if self.restores(each)]
        for number, each in enumerate(restoring, 1):
            self.redirects[REDIRECTED.format(number)] = each["address"]["socketAddress"]["portValue"]
        # Listeners without a socket get what the one that hands connections over has accepted.
        self.hands_over = next((REDIRECTED.format(number) for number, each in enumerate(restoring, 1) if each.get("useOriginalDst")), DIRECT)
        for each in resources["listeners"]:
            self.listener(each)
        self.destinations -= bound

    @staticmethod
    def restores(listener):
        names = [each.get("typedConfig", {}).get("@type", "") for each in listener.get("listenerFilters", [])]
        return listener.get("useOriginalDst", False) or any(name.endswith(".OriginalDst") for name in names)

    def listener(self, listener):
        address, port = (listener["address"]["socketAddress"][key] for key in ("address", "portValue"))
        source = DIRECT
        if not listener.get("bindToPort", True):
            source = self.hands_over
        elif self.restores(listener):
            source = next(source for source, redirected in self.redirects.items() if redirected == port)
        chains = listener.get("filterChains", []) + [listener[key] for key in ("defaultFilterChain",) if key in listener]
        for number, chain in enumerate(chains):
            match = chain.get("filterChainMatch", {})
            to = {"source": source, "address": address, "port": match.get("destinationPort", port)}
            ranges = match.get("prefixRanges", [])
            if ranges:
                to["address"] = ranges[0]["addressPrefix"]
            elif address in ("0.0.0.0", "::"):
                to["address"] = "127.0.0.1" if source == DIRECT else SOMEWHERE
            if self.restores(listener) and "destinationPort" not in match:
                to["port"] = UNCLAIMED
            if to["port"] == port and self.restores(listener):
                to |= {"source": DIRECT, "address": "127.0.0.1"}  # To the listener itself.
            self.destinations.add(to["port"])
            self.chain(f"{listener['name']} chain {number}", to, match, chain)

    def chain(self, name, to, match, chain):
        protocols = match.get("applicationProtocols", [])
        terminates = "transportSocket" in chain and "Downstream" in chain["transportSocket"]["typedConfig"].get("@type", "")
        http = [each["typedConfig"] for each in chain["filters"] if each["typedConfig"]["@type"].endswith(".HttpConnectionManager")]
        tls = None
        if terminates or match.get("transportProtocol") == "tls" or "serverNames" in match:
            # Clients here speak HTTP/1.1.
            offered = [each for each in protocols if not each.endswith("h2")][:1]
            tls = {"sni": samples.domain(match.get("serverNames", ["some.test"])[0]), "identity": "client"}
            if offered:
                tls["alpn"] = offered
            to = {**to, "tls": tls}
        if terminates:
            for who, identity in (("nobody", {}), ("a stranger", {"identity": "stranger"})):
                strange = {key: value for key, value in tls.items() if key != "identity"} | identity
                self.add(f"{name} {who}", {**to, "tls": strange}, path="/")
        if http:
            table = http[0].get("routeConfig") or self.tables.get(http[0].get("rds", {}).get("routeConfigName"), {})
            self.table(name, to, table)
        elif tls:
            self.add(f"{name} over TLS", to, path="/")
        else:
            proxies = [each["typedConfig"] for each in chain["filters"]]
            chance = any("weightedClusters" in each or each.get("cluster") in self.hashed for each in proxies)
            draws = {"repeat": DRAWS, "tally": "upstream.upstream"} if chance else {}
            self.requests.append({"name": f"{name} bytes", "line": "\x01some bytes {n}", **to, **draws})

    def table(self, name, to, table):
        late = []
        for host in table.get("virtualHosts", []):
            # Whatever matches these may be drawn, or hashed from what they do not have.
            chance = any(drawn(route) or route.get("route", {}).get("hashPolicy") for route in host.get("routes", []))
            loose = {"only": "start"} if chance else {}
            for number, domain in enumerate(host["domains"]):
                self.add(f"{name} {host['name']} {domain}", to, host=samples.domain(domain), path="/no/such/path?q=1", **loose)
                if number == 0:
                    self.add(f"{name} {host['name']} {domain} with a port", to, host=samples.domain(domain) + ":81", path="/", **loose)
            for number, route in enumerate(host.get("routes", [])):
                late += self.route(f"{name} {host['name']} route {number}", to, samples.domain(host["domains"][0]), route)
        everything = [host for host in table.get("virtualHosts", []) if "*" in host["domains"]]
        if not everything:
            self.add(f"{name} no domain", to, host="no.such.domain.test", path="/")
        # Failures last: endpoints that fail may be ejected.
        for what, request in late:
            self.add(what, to, **request)

    def route(self, name, to, host, route):
        """A request that matches, and what else there is to try: those that make upstreams fail are returned."""
        match, action = route["match"], route.get("route", {})
        request = {"host": host, "path": samples.path(match), "method": "GET", "headers": []}
        for matcher in match.get("headers", []):
            value = samples.header(matcher)
            pseudo = {":method": "method", ":path": "path", ":authority": "host"}.get(matcher["name"])
            if pseudo:
                request[pseudo] = value or request[pseudo]
            elif value is not None and not matcher["name"].startswith(":"):
                request["headers"].append([matcher["name"], value])
        query = [f"{each['name']}={samples.string(each.get('stringMatch', {}))}" for each in match.get("queryParameters", [])]
        request["path"] += "?" + "&".join(query) if query else ""
        hashed = [self.hashes(policy) for policy in action.get("hashPolicy", [])]
        tally = drawn(route)
        if hashed:
            for number in range(VALUES):
                added = [[header, value.format(number)] for header, value in filter(None, hashed)]
                self.add(f"{name} hash {number}", to, **{**request, "headers": request["headers"] + added})
        elif tally:
            self.add(name, to, **request, repeat=DRAWS, tally=tally)
        else:
            self.add(name, to, **request)
            self.add(f"{name} with a body", to, **{**request, "method": "POST", "body": "some body"})
        late = []
        if 0 < seconds(action.get("timeout", "0s")) <= PATIENCE and not tally:
            wait = seconds(action["timeout"]) + 0.3
            late.append((f"{name} later", {**request, "headers": [*request["headers"], ["x-do", f"delay={wait}"]]}))
        if "retryPolicy" in action and not tally and not hashed:
            late.append((f"{name} failing", {**request, "headers": [*request["headers"], ["x-do", "status=503"]]}))
        return late

    @staticmethod
    def hashes(policy):
        if "header" in policy:
            return policy["header"]["headerName"], "value {}"
        return ("cookie", policy["cookie"]["name"] + "=value-{}") if "cookie" in policy else None

    def add(self, name, to, headers=(), **request):
        case = [["x-case", name]] if not {"tally", "only"} & request.keys() else []
        self.requests.append({"name": name, **to, **request, "headers": [*headers, *case]})
