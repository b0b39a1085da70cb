"""Route tables and requests from a seed.

`generate: {seed: 1, hosts: 30, routes: 16, requests: 1500, clusters: [a, b]}` in a snapshot adds the RouteConfiguration
`generated` and requests made from its matchers, each changed a little or not at all, so that hits and near misses both occur.
"""

import random

SEGMENTS = ["a", "b", "api", "v1", "API", "a.b", "x-y", "a%20b", "1", "22", "long-segment", "~u"]
HEADERS = ["x-kind", "x-user", "accept-language"]
VALUES = ["a", "b", "ab", "abc", "B", "1", "-7", "42", "a,b", "", "a b"]
PARAMETERS = ["q", "id", "flag"]
REGEXES = [("/[a-z]+/[0-9]+", "/abc/42"), ("/(a|b)/.*", "/b/x/y"), ("/v[12](/.*)?", "/v2"), ("/.*\\.html", "/x/i.html"),
           ("/api/\\d{2}", "/api/22"), ("/[^/]+", "/one")]
VALUE_REGEXES = [("a.*", "abc"), ("[0-9]+", "42"), ("a|b", "b"), (".+", "1"), ("", "")]


class Generator:
    def __init__(self, seed, settings):
        self.random = random.Random(seed)
        self.settings = settings
        self.pick = self.random.choice
        self.routes = {}

    def chance(self, share):
        return self.random.random() < share

    def path(self):
        return "/" + "/".join(self.pick(SEGMENTS) for _ in range(self.random.randint(0, 3)))

    def string_match(self):
        """A StringMatcher and a value that satisfies it."""
        value = self.pick(VALUES[:-2])
        kind = self.pick(["exact", "prefix", "suffix", "contains", "safe_regex"])
        if kind == "safe_regex":
            regex, value = self.pick(VALUE_REGEXES[:-1])
            return {"safe_regex": {"regex": regex}}, value
        matcher = {kind: value}
        if self.chance(0.3):
            matcher["ignore_case"] = True
        around = {"exact": "{}", "prefix": "{}tail", "suffix": "head{}", "contains": "head{}tail"}[kind]
        return matcher, around.format(value)

    def header_match(self):
        name = self.pick(HEADERS)
        kind = self.pick(["string", "string", "present", "range"])
        if kind == "string":
            matcher, value = self.string_match()
            made = {"string_match": matcher}
        elif kind == "present":
            made, value = {"present_match": self.chance(0.7)}, "any"
        else:
            start = self.random.randint(-10, 40)
            made, value = {"range_match": {"start": start, "end": start + self.random.randint(1, 30)}}, str(start)
        if self.chance(0.25):
            made["invert_match"] = True
        if self.chance(0.15):
            made["treat_missing_header_as_empty"] = True
        return {"name": name, **made}, [name, value]

    def match(self):
        """A RouteMatch and the ingredients of a request that satisfies it, inversions aside."""
        wanted = {"method": "GET", "headers": [], "query": []}
        kind = self.pick(["prefix", "prefix", "path", "path_separated_prefix", "safe_regex"])
        if kind == "safe_regex":
            regex, wanted["path"] = self.pick(REGEXES)
            made = {"safe_regex": {"regex": regex}}
        else:
            wanted["path"] = self.path()
            if kind == "path_separated_prefix" and wanted["path"] == "/":
                kind = "prefix"
            made = {kind: wanted["path"]}
            if self.chance(0.2):
                made["case_sensitive"] = False
        for _ in range(self.pick([0, 0, 0, 1, 1, 2])):
            matcher, header = self.header_match()
            made.setdefault("headers", []).append(matcher)
            wanted["headers"].append(header)
        if self.chance(0.15):
            wanted["method"] = self.pick(["GET", "POST", "PUT"])
            made.setdefault("headers", []).append({"name": ":method", "string_match": {"exact": wanted["method"]}})
        if self.chance(0.2):
            name = self.pick(PARAMETERS)
            if self.chance(0.3):
                made["query_parameters"] = [{"name": name, "present_match": True}]
                wanted["query"].append((name, "x"))
            else:
                matcher, value = self.string_match()
                made["query_parameters"] = [{"name": name, "string_match": matcher}]
                wanted["query"].append((name, value.replace(" ", "%20")))
        return made, wanted

    def redirect(self):
        made = {"response_code": self.pick(["MOVED_PERMANENTLY", "FOUND", "SEE_OTHER", "TEMPORARY_REDIRECT", "PERMANENT_REDIRECT"])}
        scheme = self.random.randint(0, 3)
        if scheme == 0:
            made["https_redirect"] = True
        elif scheme == 1:
            made["scheme_redirect"] = self.pick(["http", "https"])
        if self.chance(0.5):
            made["host_redirect"] = self.pick(["other.test", "other.test:8443"])
        if self.chance(0.3):
            made["port_redirect"] = self.pick([80, 443, 8080])
        path = self.random.randint(0, 3)
        if path == 0:
            made["path_redirect"] = self.pick(["/new", "/new?x=1"])
        elif path == 1:
            made["prefix_rewrite"] = self.pick(["/new", "/", "/new/"])
        elif path == 2:
            made["regex_rewrite"] = {"pattern": {"regex": "/([a-z]+)"}, "substitution": "/<\\1>"}
        if self.chance(0.3):
            made["strip_query"] = True
        return made

    def forward(self):
        made = {"cluster": self.pick(self.settings["clusters"])}
        path = self.random.randint(0, 3)
        if path == 0:
            made["prefix_rewrite"] = self.pick(["/new", "/", "/new/"])
        elif path == 1:
            made["regex_rewrite"] = {"pattern": {"regex": "^/([a-zA-Z]+)"}, "substitution": "/got-\\1"}
        host = self.random.randint(0, 4)
        if host == 0:
            made["host_rewrite_literal"] = "rewritten.test"
        elif host == 1:
            made["host_rewrite_header"] = "x-user"
        if self.chance(0.3):
            made["timeout"] = self.pick(["0s", "3s"])
        return made

    def header_options(self):
        return [{"header": {"key": self.pick(["x-added", "x-kind", "x-user"]), "value": self.pick(["plain", "%REQ(x-kind)%", "%PROTOCOL%"])},
                 "append_action": self.pick(["APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS"])}
                for _ in range(self.random.randint(1, 2))]

    def headers(self, share):
        made = {}
        if self.chance(share):
            made["request_headers_to_add"] = self.header_options()
        if self.chance(share):
            made["request_headers_to_remove"] = [self.pick(HEADERS)]
        if self.chance(share):
            made["response_headers_to_add"] = self.header_options()
        if self.chance(share / 2):
            made["response_headers_to_remove"] = [self.pick(["content-type", "x-added"])]
        return made

    def route(self, name):
        match, wanted = self.match()
        made = {"name": name, "match": match, **self.headers(0.15)}
        kind = self.random.random()
        if kind < 0.6:
            made["route"] = self.forward()
        elif kind < 0.8:
            made["direct_response"] = {"status": self.pick([200, 201, 404, 503]), "body": {"inline_string": name}}
        else:
            made["redirect"] = self.redirect()
        made["response_headers_to_add"] = [{"header": {"key": "x-route", "value": name}}] + made.get("response_headers_to_add", [])
        return made, wanted

    def domains(self, number):
        base = f"h{number}.test"
        kind = number % 6
        return [[base], [f"*.{base}"], [f"*-{base}"], [f"h{number}.*"], [base, f"{base}:8080", f"www.{base}"],
                [f"*.deep.h{number - 4}.test", f"*-deep.h{number - 4}.test"]][kind]

    def virtual_host(self, number):
        name = f"v{number}"
        domains = self.domains(number) if number else ["*"]
        made = {"name": name, "domains": domains, "routes": [], **self.headers(0.2)}
        for index in range(self.settings["routes"]):
            route, wanted = self.route(f"{name}-r{index}")
            made["routes"].append(route)
            self.routes[name, index] = (domains, wanted)
        return made

    def table(self):
        hosts = [self.virtual_host(number) for number in range(self.settings["hosts"])]
        return {"name": "generated", "virtual_hosts": hosts, **self.headers(1)}

    def request(self, number):
        domains, wanted = self.pick(list(self.routes.values()))
        host = self.pick(domains)
        host = host.replace("*", self.pick(["x", "www", "a.b", "deep", "x.deep"]), 1) if host != "*" else "unknown.test"
        if self.chance(0.15):
            host = self.pick([host.upper(), host + ":8080", host + ":80", "x" + host, host.partition(".")[2] or host])
        path = wanted["path"]
        change = self.random.randint(0, 9)
        path = {0: path + "/", 1: path + "x", 2: path.upper(), 3: path.rstrip("/") + "/more", 4: path[:-1] or "/"}.get(change, path)
        query = list(wanted["query"]) if self.chance(0.85) else []
        if self.chance(0.2):
            query.insert(self.random.randint(0, len(query)), (self.pick(PARAMETERS), self.pick(["x", "", "a%20b", "42"])))
        if query or self.chance(0.05):
            path += "?" + "&".join(f"{name}={value}" if value or self.chance(0.5) else name for name, value in query)
        headers = [header for header in wanted["headers"] if self.chance(0.85)]
        if self.chance(0.25):
            headers.append([self.pick(HEADERS), self.pick(VALUES)])
        method = wanted["method"] if self.chance(0.9) else self.pick(["GET", "POST", "PUT", "DELETE", "HEAD"])
        made = {"name": f"generated {number}", "method": method, "host": host, "path": path, "headers": headers}
        if method in ("POST", "PUT"):
            made["body"] = "some body"
        return made


def fill(snapshot, seed, count):
    """Adds what `generate` in the snapshot asks for; seed and count 0 leave its own."""
    settings = snapshot["generate"]
    generator = Generator(seed or settings["seed"], settings)
    snapshot.setdefault("resources", {}).setdefault("routes", []).append(generator.table())
    requests = [generator.request(number) for number in range(count or settings["requests"])]
    snapshot.setdefault("requests", []).extend(requests)
