"""Starts the proxies that are compared, and the server behind them. Ports are those of loopback."""

import json
import os
import socket
import subprocess
import time

import ads
import play
import shorthand

ORIGIN, XDS = 19001, 19010
PORTS = {"lateen": 19101, "envoy": 19102, "haproxy": 19103, "nginx": 19104, "floor": 19105}
ROUTES = 1024
ENDPOINTS = [f"127.0.0.{number}" for number in (1, 2, 3, 4)]  # of the scenarios with users
SEVERAL = ("keys", "sticky", "mesh")  # scenarios with several endpoints
BACKENDS = ("backend-1", "backend-2", "backend-3")  # of the scenario `mesh`


def free(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Bench:
    """What runs, and the files that it needs."""

    def __init__(self, folder, lateen, envoy, others):
        self.folder, self.lateen, self.envoy = folder, lateen, envoy
        taken = [port for port in (ORIGIN, XDS, *PORTS.values()) if not free(port)]
        if taken:
            raise SystemExit(f"bench: ports {taken} are in use")
        self.running = []
        self.ads = None
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-days", "2", "-subj", "/CN=localhost", "-keyout", folder / "key.pem", "-out",
                        folder / "cert.pem"], check=True, capture_output=True)
        (folder / "both.pem").write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
        (folder / "large").write_bytes(b"x" * 65536)
        # The origin's worker is another user.
        folder.chmod(0o755)
        listens = "".join(f"listen {address}:{ORIGIN} reuseport; " for address in ENDPOINTS)
        self.origin = self.nginx("origin", f"""server {{ {listens}
            location / {{ return 200 "hello from the origin\\n"; }}
            location = /large {{ root {folder}; }} }}""", others)
        self.wait(ORIGIN)

    @staticmethod
    def serves(name, scenario):
        """Is there anything to compare? The floor copies bytes; Debian's small nginx does nothing else than HTTP."""
        if name == "floor":
            return scenario in ("http1", "large", "tcp")
        return name != "nginx" or scenario != "tcp"

    def start_floor(self, _scenario):
        program = self.lateen.parent / "examples/forward"
        return self.spawn("floor", [program, f"127.0.0.1:{PORTS['floor']}", f"127.0.0.1:{ORIGIN}"])

    def start(self, name, scenario):
        """Starts a proxy; its process id and port."""
        process = getattr(self, f"start_{name}")(scenario)
        self.running.append(process)
        self.wait(PORTS[name])
        return process.pid, PORTS[name]

    def stop(self, everything=False):
        for process in self.running + ([self.origin] if everything else []):
            process.terminate()
            process.wait()
        self.running.clear()
        if self.ads:
            self.ads.server.stop(0).wait()
            self.ads = None

    def spawn(self, name, command, processors="0", environment=None):
        with open(self.folder / f"{name}.log", "w") as log:
            command = ["taskset", "-c", processors, *map(str, command)]
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def wait(self, port):
        end = time.monotonic() + 20
        while free(port):
            if time.monotonic() > end:
                logs = "\n".join(f"{log.name}: {log.read_text()[-800:]}" for log in self.folder.glob("*.log"))
                raise TimeoutError(f"nothing listens on port {port}\n{logs}")
            time.sleep(0.05)

    def start_lateen(self, scenario):
        self.ads = ads.Ads(XDS)
        for kind, resources in self.resources(scenario, PORTS["lateen"]).items():
            self.ads.put(kind, resources)
        config = {"discoveryAddress": f"127.0.0.1:{XDS}", "proxyAdminPort": 19000, "statusPort": 19020}
        environment = os.environ | {
            "POD_NAME": "bench", "POD_NAMESPACE": "default", "INSTANCE_IP": "127.0.0.1", "ENVOY_STATUS_PORT": "19021",
            "ENVOY_PROMETHEUS_PORT": "19090", "PROXY_CONFIG": json.dumps(config)}
        return self.spawn("lateen", [self.lateen, "proxy", "router", "--concurrency", "1"], environment=environment)

    def start_envoy(self, scenario):
        config = play.bootstrap()
        del config["dynamic_resources"]
        config["admin"]["address"]["socket_address"]["port_value"] = 19001 + 1000
        config["static_resources"] = self.resources(scenario, PORTS["envoy"])
        path = self.folder / "envoy.json"
        path.write_text(json.dumps(config))
        return self.spawn("envoy", [self.envoy, "-c", path, "--concurrency", "1", "--disable-hot-restart", "--log-level",
                                    "error"])

    def resources(self, scenario, port):
        """The same configuration for Lateen and Envoy."""
        prefixes = [f"/route-{index}/" for index in range(ROUTES)] if scenario == "routes" else ["/"]
        routes = [{"match": {"prefix": prefix}, "route": {"cluster": "origin"}} for prefix in prefixes]
        if scenario == "mesh":
            routes = [{"match": {"prefix": "/", "headers": [{"name": "target", "string_match": {"exact": name}}]},
                       "route": {"cluster": "origin"}} for name in BACKENDS]
        snapshot = {"static": [{"name": "origin", "ports": [ORIGIN]}],
                    "http": [{"port": port, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
                              "manager": {"generate_request_id": False}}]}
        shorthand.fill(snapshot)
        resources = snapshot["resources"]
        if scenario in SEVERAL:
            self.balance(scenario, port, resources)
        filters = resources["listeners"][0]["filter_chains"][0]["filters"]
        if scenario == "mesh":
            filters[0]["typed_config"]["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": str(self.folder / f"{port}.access")}}]
        if scenario == "tcp":
            filters[0] = {"name": "envoy.filters.network.tcp_proxy", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "tcp", "cluster": "origin"}}
        if scenario == "tls":
            files = {"certificate_chain": "cert.pem", "private_key": "key.pem"}
            certificate = {kind: {"inline_string": (self.folder / name).read_text()} for kind, name in files.items()}
            context = {"common_tls_context": {"tls_certificates": [certificate]}}
            resources["listeners"][0]["filter_chains"][0]["transport_socket"] = shorthand.tls("Downstream", context)
        return resources

    def balance(self, scenario, port, resources):
        """Several endpoints; with `sticky` each user keeps one: by a session here, by the hash ring in Envoy."""
        cluster = resources["clusters"][0]
        addresses = [{"socket_address": {"address": address, "port_value": ORIGIN}} for address in ENDPOINTS]
        endpoints = [{"endpoint": {"address": address}} for address in addresses]
        cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": endpoints}]
        if scenario == "keys":
            return
        if port == PORTS["lateen"] and scenario == "sticky":
            session = {"key": {"query": "user"}, "idle_timeout": "600s"}
            cluster["typed_extension_protocol_options"] = {"lateen.sticky_session": {
                "@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "value": session,
                "type_url": "type.googleapis.com/lateen.sticky_session.v1.StickySession"}}
        else:
            cluster["lb_policy"] = "RING_HASH"
            policy = [{"query_parameter": {"name": "user"}}]
            manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
            for host in manager["route_config"]["virtual_hosts"]:
                for route in host["routes"]:
                    route["route"]["hash_policy"] = policy

    def start_haproxy(self, scenario):
        bind = {"http2": "proto h2", "tls": f"ssl crt {self.folder}/both.pem"}.get(scenario, "")
        rules = "".join(f"  use_backend origin if {{ path_beg /route-{index}/ }}\n" for index in range(ROUTES))
        named = "".join(f"  use_backend origin if {{ hdr(target) {name} }}\n" for name in BACKENDS)
        (self.folder / "haproxy.cfg").write_text(f"""global
  nbthread 1
  log stdout format raw local0
defaults
  mode {"tcp" if scenario == "tcp" else "http"}
  {"log global" if scenario == "mesh" else ""}
  {"option httplog" if scenario == "mesh" else ""}
  timeout client 60s
  timeout server 60s
  timeout connect 1s
frontend all
  bind 127.0.0.1:{PORTS["haproxy"]} {bind}
{rules if scenario == "routes" else named if scenario == "mesh" else "  default_backend origin"}
backend origin
  {"" if scenario == "tcp" else "http-reuse always"}
{self.haproxy_servers(scenario)}
""")
        return self.spawn("haproxy", ["haproxy", "-f", self.folder / "haproxy.cfg"])

    @staticmethod
    def haproxy_servers(scenario):
        if scenario not in SEVERAL:
            return f"  server origin 127.0.0.1:{ORIGIN}"
        ring = ["  balance url_param user", "  hash-type consistent"]
        table = ["  stick-table type string len 16 size 1m expire 600s", "  stick on url_param(user)"]
        servers = [f"  server origin-{address} {address}:{ORIGIN}" for address in ENDPOINTS]
        return "\n".join({"sticky": table, "mesh": ring}.get(scenario, []) + servers)

    def start_nginx(self, scenario):
        listen = {"http2": " http2", "tls": " ssl"}.get(scenario, "")
        certificate = f"ssl_certificate {self.folder}/cert.pem; ssl_certificate_key {self.folder}/key.pem;"
        prefixes = [f"/route-{index}/" for index in range(ROUTES)] if scenario == "routes" else ["/"]
        locations = "".join(f"location {prefix} {{ proxy_pass http://origin; }}\n" for prefix in prefixes)
        addresses = ENDPOINTS if scenario in SEVERAL else ENDPOINTS[:1]
        servers = " ".join(f"server {address}:{ORIGIN};" for address in addresses)
        hashed = "hash $arg_user consistent;" if scenario in ("sticky", "mesh") else ""
        chosen = "map $http_target $known { default 0; " + " ".join(f"{name} 1;" for name in BACKENDS) + " }"
        if scenario == "mesh":
            locations = f"access_log {self.folder}/nginx.access; if ($known = 0) {{ return 404; }}\n{locations}"
        return self.nginx("nginx", f"""{chosen if scenario == "mesh" else ""} upstream origin {{ {hashed} {servers} keepalive 128; }}
            server {{ listen 127.0.0.1:{PORTS["nginx"]}{listen};
            {certificate if scenario == "tls" else ""}
            proxy_http_version 1.1; proxy_set_header Connection ""; keepalive_requests 100000000;
            {locations} }}""", "0")

    def nginx(self, name, servers, processors):
        path = self.folder / f"{name}.conf"
        path.write_text(f"""daemon off; worker_processes 1; pid {self.folder}/{name}.pid; error_log stderr error;
            events {{ worker_connections 4096; }}
            http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {self.folder}/{name}-body;
            proxy_temp_path {self.folder}/{name}-proxy; fastcgi_temp_path {self.folder}/{name}-fastcgi;
            uwsgi_temp_path {self.folder}/{name}-uwsgi; scgi_temp_path {self.folder}/{name}-scgi; {servers} }}""")
        return self.spawn(name, ["nginx", "-c", path, "-p", self.folder])
