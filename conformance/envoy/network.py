"""The network of recordings: every address is local, redirections are made by source, and upstreams are known by where they are.

An upstream answers in TLS when it is spoken to in TLS, and answers bytes that are no HTTP with a line. It counts the
requests with a header `x-case`, so that retries and mirrored requests show.
"""

import collections
import json
import socket
import subprocess
import threading
import time

import upstream
import wire

TLS_HANDSHAKE = b"\x16"
# Mirrored requests arrive on their own: none for so long, and all have.
QUIET = 0.25
ARRIVED = collections.defaultdict(collections.Counter)
LAST = [0.0]


def make():
    """Once for a namespace."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for half in ("0.0.0.0/1", "128.0.0.0/1"):
        subprocess.run(["ip", "route", "add", "local", half, "dev", "lo"], check=True)


def start(wanted, redirects, certificates):
    """Redirections, and upstreams until the process ends. `wanted`: `names` by address, `port`, more `ports`, `identity`."""
    rules = [f"ip saddr {source} meta l4proto tcp redirect to :{port}" for source, port in redirects.items()]
    table = ["table ip recordings", "delete table ip recordings", "table ip recordings {", "chain out {",
             "type nat hook output priority -100", *rules, "}", "}"]
    subprocess.run(["nft", "-f", "-"], input="\n".join(table).encode(), check=True)
    context = upstream.server_context({"identity": str(certificates.file(wanted["identity"]))})
    context.verify_mode = upstream.ssl.CERT_OPTIONAL
    context.load_verify_locations(str(certificates.file("authority")))
    for port in {wanted["port"], *wanted["ports"]}:
        listener = socket.create_server(("0.0.0.0", port), backlog=256)
        threading.Thread(target=accept, args=(listener, wanted["names"], context), daemon=True).start()


def accept(listener, names, context):
    while True:
        connection, _ = listener.accept()
        address, port = connection.getsockname()
        name = names.get(address, f"{address}:{port}")
        threading.Thread(target=serve, args=(name, connection, context), daemon=True).start()


def serve(name, connection, context):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tls = None
    try:
        if connection.recv(1, socket.MSG_PEEK) == TLS_HANDSHAKE:
            connection, tls = upstream.secure(connection, context)
        reader = wire.Reader(connection)
        reader.fill()
        if reader.buffer[:1].isupper():
            upstream.converse(name, reader, tls, arrived)
        elif reader.buffer:
            line = {"upstream": name, "tls": tls, "bytes": reader.buffer.decode("latin-1")}
            connection.sendall(json.dumps(line).encode() + b"\n")
    except (OSError, ValueError):
        pass
    connection.close()


def arrived(name, request):
    headers = {key.lower(): value for key, value in request["headers"]}
    with upstream.LOCK:
        LAST[0] = time.monotonic()
        if "x-case" in headers:
            ARRIVED[headers["x-case"]][f"{name} as {headers.get('host')}"] += 1


def arrivals():
    """How often each request arrived, and where."""
    while (left := LAST[0] + QUIET - time.monotonic()) > 0:
        time.sleep(left)
    with upstream.LOCK:
        return {case: dict(counts) for case, counts in ARRIVED.items()}
