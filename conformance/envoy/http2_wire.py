"""HTTP/2 on raw sockets: frames as a snapshot lists them, and what came back on each stream.

A frame is an object: `headers` (pairs after the pseudo headers, which `pseudo` changes and a null takes out), or `block` (all pairs, as they are), both with
`end`, `cut` (bytes of each fragment, in CONTINUATION frames) and `unfinished`; `data` (with `end`, `times`); `reset`, `window`,
`settings`, `ping`, `goaway`; or `type`, `flags` and `payload` as they are. All have `stream`, which is 1 without it. `many` repeats `frames` so many
times, each on the next stream (or not, with `same`); `wait` lets time pass.
"""

import socket
import struct
import time

import hpack

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
END_STREAM, ACK, END_HEADERS = 1, 1, 4
ERRORS = ["NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR",
          "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"]
PSEUDO = {":method": "GET", ":scheme": "http", ":authority": "example.test", ":path": "/"}
# Asked after the frames: an answer says that the connection goes on.
PROBE = b"are you "


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Connection:
    """A client of one connection."""

    def __init__(self, port, patience, settings=None):
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.connection = socket.create_connection(("127.0.0.1", port), patience)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.streams, self.goaway, self.block, self.buffer = {}, None, b"", b""
        self.ended = self.probed = False
        self.send(PREFACE + self.settings(settings or {}))

    def send(self, data):
        try:
            self.connection.sendall(data)
        except OSError:
            self.ended = True

    @staticmethod
    def settings(values):
        return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", int(key), value) for key, value in values.items()))

    def encoded(self, item, stream):
        """The bytes of one item of a list of frames."""
        flags = END_STREAM if item.get("end") else 0
        if "headers" in item or "block" in item:
            pairs = item.get("block")
            if pairs is None:
                pseudo = {**PSEUDO, **item.get("pseudo", {})}
                pairs = [[name, value] for name, value in pseudo.items() if value is not None] + item["headers"]
            expanded = [(name, value * item.get("times", 1)) for name, value in pairs]
            block = self.encoder.encode([(name.encode("latin-1"), value.encode("latin-1")) for name, value in expanded], huffman=False)
            size = item.get("cut", 16000)
            parts = [block[start:start + size] for start in range(0, len(block), size)] or [b""]
            made = b""
            for number, part in enumerate(parts):
                last = END_HEADERS if number == len(parts) - 1 and not item.get("unfinished") else 0
                made += frame(HEADERS, flags | last, stream, part) if number == 0 else frame(CONTINUATION, last, stream, part)
            return made
        if "data" in item:
            parts = [item["data"].encode("latin-1")] * item.get("times", 1)
            return b"".join(frame(DATA, flags if number == len(parts) - 1 else 0, stream, part) for number, part in enumerate(parts))
        for key, kind, form in (("reset", RST_STREAM, ">I"), ("window", WINDOW_UPDATE, ">I")):
            if key in item:
                return frame(kind, 0, stream, struct.pack(form, item[key]))
        if "settings" in item:
            return self.settings(item["settings"])
        if "ping" in item:
            return frame(PING, 0, 0, item["ping"].encode())
        if "goaway" in item:
            return frame(GOAWAY, 0, 0, struct.pack(">II", 0, item["goaway"]))
        return frame(item["type"], item.get("flags", 0), stream, item.get("payload", "").encode("latin-1") * item.get("times", 1))

    def play(self, items):
        for item in items:
            if "wait" in item:
                time.sleep(item["wait"])
            elif "many" in item:
                made = []
                for number in range(item["many"]):
                    stream = item.get("stream", 1) + (0 if item.get("same") else 2 * number)
                    made += [self.encoded(each, each.get("stream", stream)) for each in item["frames"]]
                self.send(b"".join(made))
            else:
                self.send(self.encoded(item, item.get("stream", 1)))

    def of(self, stream):
        return self.streams.setdefault(str(stream), {})

    def take(self, kind, flags, stream, payload):
        if kind == SETTINGS and not flags & ACK:
            self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and flags & ACK and payload == PROBE:
            self.probed = True
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            # The last word counts: the first one may announce the end.
            self.goaway = ERRORS[struct.unpack(">I", payload[4:8])[0]]
        elif kind == RST_STREAM:
            self.of(stream)["reset"] = ERRORS[struct.unpack(">I", payload)[0]]
        elif kind == DATA:
            seen = self.of(stream)
            seen["body"] = seen.get("body", "") + payload.decode("latin-1")
        elif kind in (HEADERS, CONTINUATION):
            self.block += payload
            if flags & END_HEADERS:
                pairs = [[name, value] for name, value in self.decoder.decode(self.block)]
                self.block = b""
                seen = self.of(stream)
                seen["trailers" if "headers" in seen and not seen["headers"][0][1].startswith("1") else "headers"] = pairs
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self.of(stream)["complete"] = True

    def read(self, until, seconds):
        """Takes frames until a condition holds, nothing more comes, or the connection ends."""
        end = time.monotonic() + seconds
        while not until() and not self.ended and (left := end - time.monotonic()) > 0:
            self.connection.settimeout(left)
            try:
                received = self.connection.recv(1 << 16)
            except TimeoutError:
                return
            except OSError:
                received = b""
            self.ended |= not received
            self.buffer += received
            start = 0
            while len(self.buffer) >= start + 9:
                end_of_frame = start + 9 + int.from_bytes(self.buffer[start:start + 3], "big")
                if len(self.buffer) < end_of_frame:
                    break
                kind, flags, stream = struct.unpack(">BBI", self.buffer[start + 3:start + 9])
                self.take(kind, flags, stream & 0x7FFFFFFF, self.buffer[start + 9:end_of_frame])
                start = end_of_frame
            self.buffer = self.buffer[start:]

    def outcome(self, streams, patience):
        """Reads until as many streams have ended, and asks whether the connection goes on."""
        done = lambda: sum("complete" in one or "reset" in one for one in self.streams.values()) >= streams  # noqa: E731
        self.read(lambda: done() or self.goaway, patience)
        self.send(frame(PING, 0, 0, PROBE))
        self.read(lambda: self.probed, patience)
        self.connection.close()
        return {"streams": self.streams, "goaway": self.goaway, "goes on": self.probed and not self.goaway}
