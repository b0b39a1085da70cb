"""HTTP/2 with prior knowledge: one stream of a client, and upstreams that answer like those of `upstream.py`."""

import json
import socket
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings


GOAWAY = 7


class Channel:
    """A connection with its frames."""

    def __init__(self, connection, is_client):
        config = h2.config.H2Configuration(client_side=is_client, header_encoding="utf-8", validate_outbound_headers=False,
                                           validate_inbound_headers=False, normalize_outbound_headers=False)
        self.is_client, self.received = is_client, b""
        self.socket, self.frames = connection, h2.connection.H2Connection(config=config)
        self.frames.initiate_connection()
        if not is_client:
            self.frames.update_settings({h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
        self.flush()

    def echo(self, stream, data):
        """Sends data back, or the end, unless the peer has gone meanwhile."""
        try:
            if data is None:
                self.frames.end_stream(stream)
            else:
                self.frames.send_data(stream, data)
        except (h2.exceptions.ProtocolError, KeyError):
            pass

    def flush(self):
        self.socket.sendall(self.frames.data_to_send())

    def without_goaway(self, received):
        """Whole frames. The library takes none after GOAWAY, though the streams before it go on."""
        self.received += received
        kept = b""
        if not self.is_client:
            kept, self.received = self.received, b""
        while len(self.received) >= 9 and len(self.received) >= (size := 9 + int.from_bytes(self.received[:3], "big")):
            if self.received[3] != GOAWAY:
                kept += self.received[:size]
            self.received = self.received[size:]
        return kept

    def events(self):
        """What the peer sent next; None at the end."""
        received = self.socket.recv(65536)
        if not received:
            return None
        events = self.frames.receive_data(self.without_goaway(received))
        for event in events:
            if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                self.frames.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()
        return events


def exchange(port, request, patience=3.0):
    """One stream: `pseudo` and `headers`, `body` or `tunnel` (parts that are sent one by one after the response's head,
    each of which is to come back), `half` (the client's side ends after them)."""
    channel = Channel(socket.create_connection(("127.0.0.1", port), patience), True)
    seen = {"headers": [], "data": "", "end": "none"}
    frames, parts = channel.frames, list(request.get("tunnel", []))
    fields = [tuple(pair) for pair in request["pseudo"] + request.get("headers", [])]
    ends = "tunnel" not in request and not request.get("body")
    frames.send_headers(1, fields, end_stream=ends)
    if request.get("body"):
        frames.send_data(1, request["body"].encode("latin-1"), end_stream=True)
    for early in request.get("early", []):
        frames.send_data(1, early.encode("latin-1"))
    channel.flush()
    awaited, deadline = None, time.monotonic() + patience
    channel.socket.settimeout(0.3)
    while time.monotonic() < deadline:
        try:
            events = channel.events()
        except TimeoutError:
            if not seen["headers"]:
                continue
            events = []
            if awaited is None and not parts:
                break
        except (OSError, h2.exceptions.ProtocolError) as error:
            seen["end"] = type(error).__name__
            break
        if events is None:
            seen["end"] = "closed"
            break
        for event in events:
            if isinstance(event, h2.events.ResponseReceived):
                seen["headers"] = [list(pair) for pair in event.headers]
            elif isinstance(event, h2.events.DataReceived):
                seen["data"] += event.data.decode("latin-1")
            elif isinstance(event, h2.events.TrailersReceived):
                seen["trailers"] = [list(pair) for pair in event.headers]
            elif isinstance(event, h2.events.StreamReset):
                seen["end"] = "reset" if seen["end"] == "none" else seen["end"]
            elif isinstance(event, h2.events.StreamEnded):
                seen["end"] = "ended"
            elif isinstance(event, h2.events.ConnectionTerminated):
                seen["end"] = "closed"
        if seen["end"] != "none":
            break
        if seen["headers"] and (awaited is None or seen["data"].endswith(awaited)):
            awaited = None
            if parts:
                awaited = parts.pop(0)
                frames.send_data(1, awaited.encode("latin-1"))
                channel.flush()
            elif request.get("half"):
                frames.end_stream(1)
                channel.flush()
                awaited = "\0never"
    channel.socket.close()
    return seen


def serve(name, connection, answer):
    """Answers the streams of a connection with `answer(request)`: status, fields, body, and whether what follows is sent
    back."""
    channel, requests = Channel(connection, False), {}
    tunnels = set()
    while (events := channel.events()) is not None:
        for event in events:
            stream = getattr(event, "stream_id", None)
            if isinstance(event, h2.events.RequestReceived):
                found = [list(pair) for pair in event.headers]
                requests[stream] = {"headers": found, "body": ""}
                asked = dict(map(tuple, found))
                if asked.get(":method") == "CONNECT" or "tunnel" in asked.get("x-do", ""):
                    respond(channel, stream, answer(name, requests.pop(stream)), tunnels)
            elif isinstance(event, h2.events.DataReceived):
                if stream in tunnels:
                    channel.echo(stream, event.data)
                elif stream in requests:
                    requests[stream]["body"] += event.data.decode("latin-1")
            elif isinstance(event, h2.events.StreamEnded):
                if stream in tunnels:
                    tunnels.remove(stream)
                    channel.echo(stream, None)
                elif stream in requests:
                    respond(channel, stream, answer(name, requests.pop(stream)), tunnels)
        channel.flush()
    connection.close()


def respond(channel, stream, answer, tunnels):
    status, fields, body, is_tunnel = answer
    channel.frames.send_headers(stream, [(":status", str(status)), *fields])
    if is_tunnel:
        tunnels.add(stream)
    channel.frames.send_data(stream, body, end_stream=not is_tunnel)


def answer(name, request):
    """What `upstream.py` says, as a function of what was sent."""
    found = dict(map(tuple, request["headers"]))
    words = dict(word.strip().partition("=")[::2] for word in found.get("x-do", "").split(",") if word)
    status = int(words.get("status", 200))
    is_tunnel = status == 200 and (found[":method"] == "CONNECT" or "tunnel" in words)
    body = json.dumps({"upstream": name, "http2": True, **request}).encode() + (b"\n" if is_tunnel else b"")
    return status, [("content-type", "application/json")], body, is_tunnel
