"""Upstreams that say what they were sent as JSON, and misbehave when the request's header `x-do` asks for it.

`x-do` is a list of words: `status=503`, `delay=0.2` (seconds), `reset`, `close` (after the answer),
`header=name:value`, `chunked`, `empty`. `only=a+b` means these upstreams alone, `first=2` the first two requests with the
same `x-key`, wherever they arrive; others are answered as if nothing had been asked for. `switch` answers an upgrade with
101. After that, and after a 2xx to CONNECT, what was asked is said in a line, and all that comes is sent back. `bye` in it ends
the connection. `early` answers before the body is read.
"""

import collections
import json
import socket
import ssl
import struct
import threading
import time

import http2
import wire


LOCK = threading.Lock()
ARRIVED = collections.Counter()


def concerned(name, request, options):
    """Whether what is asked for holds for this upstream and this request."""
    if "first" in options:
        key = next((value for header, value in request["headers"] if header.lower() == "x-key"), "")
        with LOCK:
            ARRIVED[key] += 1
            if ARRIVED[key] > int(options["first"]):
                return False
    return "only" not in options or name in options["only"].split("+")


def start(name, address, port, tls=None, speaks="http"):
    """Listens, and answers until the process ends. `tls`: `identity` and `clients` (files), `alpn`. `speaks`: `http`, `http2`,
    or `echo`, which sends back whatever comes."""
    context = tls and server_context(tls)
    listener = socket.create_server((address, port), backlog=256)

    def accept():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(name, connection, context, speaks), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def server_context(tls):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls["identity"])
    if "clients" in tls:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(tls["clients"])
    if "alpn" in tls:
        context.set_alpn_protocols(tls["alpn"])

    def named(connection, name, _):
        connection.asked = name

    context.sni_callback = named
    return context


def echo(connection, received=b""):
    """Sends back what comes, until the end or `bye`."""
    while received or (received := connection.recv(65536)):
        connection.sendall(received)
        if b"bye" in received:
            break
        received = b""


def serve(name, connection, context=None, speaks="http"):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        connection, tls = secure(connection, context) if context else (connection, None)
        if tls and tls["alpn"] == "h2" or speaks == "http2":
            return http2.serve(name, connection, http2.answer)
        if speaks == "echo":
            return echo(connection)
        converse(name, wire.Reader(connection), tls)
    except (OSError, ValueError):
        pass
    finally:
        connection.close()


def secure(connection, context):
    """The connection in TLS, and what the peer showed and asked for."""
    connection = context.wrap_socket(connection, server_side=True)
    shown = connection.getpeercert() or {}
    return connection, {"sni": getattr(connection, "asked", None), "alpn": connection.selected_alpn_protocol(),
                        "client": [list(pair) for pair in shown.get("subjectAltName", ())]}


def converse(name, reader, tls=None, arrived=lambda name, request: None):
    """Answers one request after the other."""
    while (request := reader.message(is_request=True)) is not None:
        arrived(name, request)
        goes_on = answer(name, reader.connection, request, tls)
        if goes_on == "tunnel":
            echo(reader.connection, reader.buffer)
        if goes_on is not True:
            break


def answer(name, connection, request, tls=None):
    """Answers a request; whether the connection stays open."""
    method, path, _ = request["start"].split(" ", 2)
    words = [value for key, value in request["headers"] if key.lower() == "x-do"]
    words = ",".join(words).split(",") if words else []
    options = dict(word.strip().partition("=")[::2] for word in words if not word.strip().startswith("header="))
    added = [word.strip().removeprefix("header=") for word in words if word.strip().startswith("header=")]
    if not concerned(name, request, options):
        options, added = {}, []
    time.sleep(float(options.get("delay", 0)))
    if "reset" in options:
        # Lingering for no time makes the close a reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False
    seen = {"upstream": name, "method": method, "path": path, "headers": request["headers"],
            "body": request["body"], "framing": request["framing"]}
    if tls:
        seen["tls"] = tls
    body = b"" if "empty" in options else json.dumps(seen).encode()
    opens = method == "CONNECT" and "status" not in options or "tunnel" in options
    if opens or "switch" in options:
        start = "HTTP/1.1 101 Switching Protocols" if "switch" in options else "HTTP/1.1 200 Fine"
        lines = [start, *added]
        if "switch" in options:
            asked = next((value for key, value in request["headers"] if key.lower() == "upgrade"), "none")
            lines += ["connection: upgrade", f"upgrade: {asked}"]
        connection.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body + b"\n")
        return "tunnel"
    lines = [f"HTTP/1.1 {options.get('status', 200)} Fine", "content-type: application/json", *added]
    if "chunked" in options:
        lines.append("transfer-encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        lines.append(f"content-length: {len(body)}")
    if "close" in options:
        lines.append("connection: close")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    connection.sendall(head + (b"" if method == "HEAD" else body))
    while "early" in options and connection.recv(65536):
        pass
    return "close" not in options and "early" not in options
