"""HTTP/1.1 on raw sockets: exact bytes out, what came back in."""

import socket
import ssl


class Reader:
    """Reads messages from a connection."""

    def __init__(self, connection):
        self.connection = connection
        self.buffer = b""

    def fill(self):
        received = self.connection.recv(65536)
        self.buffer += received
        return bool(received)

    def until(self, mark):
        while mark not in self.buffer:
            if not self.fill():
                return None
        found, _, self.buffer = self.buffer.partition(mark)
        return found.decode("latin-1")

    def line(self):
        line = self.until(b"\r\n")
        if line is None:
            raise ValueError("the body ended early")
        return line

    def exactly(self, count):
        while len(self.buffer) < count:
            if not self.fill():
                raise ValueError("the body ended early")
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found.decode("latin-1")

    def message(self, is_request=False, method=""):
        """The next message: start line, headers, body, trailers and how the body was framed; None at the end. `method` is
        that of the request that it answers."""
        head = self.until(b"\r\n\r\n")
        if head is None:
            return None
        start, *lines = head.split("\r\n")
        headers = [[name, value.strip()] for name, _, value in (line.partition(":") for line in lines)]
        found = {name.lower(): value for name, value in headers}
        message = {"start": start, "headers": headers, "body": "", "framing": "none"}
        status = "" if is_request else start.split(" ")[1]
        if is_request and ("tunnel" in found.get("x-do", "") or "early" in found.get("x-do", "")):
            return message
        bodiless = method == "HEAD" or (method == "CONNECT" and status.startswith("2"))
        if bodiless or status.startswith("1") or status in ("204", "304"):
            return message
        if "chunked" in found.get("transfer-encoding", "").lower():
            message["framing"] = "chunked"
            while size := int(self.line().partition(";")[0], 16):
                message["body"] += self.exactly(size)
                self.line()
            trailers = []
            while line := self.line():
                trailers.append(line)
            if trailers:
                message["trailers"] = trailers
        elif "content-length" in found:
            message["framing"] = "length"
            message["body"] = self.exactly(int(found["content-length"]))
        elif not is_request:
            message["framing"] = "close"
            while self.fill():
                pass
            message["body"], self.buffer = self.buffer.decode("latin-1"), b""
        return message


def is_interim(start):
    """Whether another response follows: none does after a switch to another protocol."""
    status = start.split(" ")[1]
    return status.startswith("1") and status != "101"


def handshake(connection, options):
    """TLS as a client: `identity` (a file), `sni`, `alpn`, `version`. The server's certificate is looked at by tests."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if "identity" in options:
        context.load_cert_chain(options["identity"])
    if "alpn" in options:
        context.set_alpn_protocols(options["alpn"])
    if "version" in options:
        context.minimum_version = context.maximum_version = ssl.TLSVersion[options["version"]]
    return context.wrap_socket(connection, server_hostname=options.get("sni"))


class Client:
    """A connection to the proxy."""

    def __init__(self, port, source="127.0.0.1", address="127.0.0.1", patience=5.0, tls=None):
        self.connection = socket.create_connection((address, port), patience, (source, 0))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.connection = handshake(self.connection, tls)
        self.reader = Reader(self.connection)

    def exchange(self, request, responses=1):
        """Sends bytes and reads that many final responses; fewer when the connection ends or falls silent."""
        found = []
        try:
            self.connection.sendall(request)
            method = request.partition(b" ")[0].decode("latin-1")
            while sum(not is_interim(response["start"]) for response in found) < responses:
                response = self.reader.message(method=method)
                if response is None:
                    break
                found.append(response)
        except TimeoutError:
            found.append("silence")
        except (OSError, ValueError) as error:
            found.append(type(error).__name__)
        return found

    def tunnel(self, parts, half):
        """Sends parts one by one, each of which is to come back, and perhaps ends this side. All that came, with how it
        ended."""
        self.connection.settimeout(0.3)
        read = 0
        try:
            for part in [*parts, None]:
                if part is not None:
                    self.connection.sendall(part.encode("latin-1"))
                elif half:
                    self.connection.shutdown(socket.SHUT_WR)
                while part is None or part.encode("latin-1") not in self.reader.buffer[read:]:
                    if not self.reader.fill():
                        return self.reader.buffer.decode("latin-1") + "<end>"
                read = len(self.reader.buffer)
        except TimeoutError:
            return self.reader.buffer.decode("latin-1") + "<silence>"
        except OSError as error:
            return self.reader.buffer.decode("latin-1") + f"<{type(error).__name__}>"

    def ends(self, patience=0.15):
        """Whether the proxy closes the connection, or has more to say."""
        self.connection.settimeout(patience)
        try:
            return "more bytes" if self.reader.buffer or self.reader.fill() else "closed"
        except TimeoutError:
            return "open"
        except OSError:
            return "closed"

    def close(self):
        self.connection.close()
