"""Certificates that snapshots ask for, made when they are played. Nothing of them is stored.

A snapshot's `certificates` names what is wanted: `ours: {authority: true}`, `web: {by: ours, uris: [...], dns: [...],
days: [from, to], use: client | server}`. In its resources the texts `$chain:NAME`, `$key:NAME`, `$hash:NAME` and
`$spki:NAME` stand for PEM and hashes.
"""

import base64
import datetime
import hashlib
import re

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

USES = {"client": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}
REFERENCE = re.compile(r"^\$(chain|key|hash|spki):(\S+)$")


class Certificates:
    """All certificates of a snapshot, with their keys in files for clients and upstreams."""

    def __init__(self, wanted, folder):
        self.folder = folder
        self.made = {}
        for name, how in wanted.items():
            self.make(name, how or {})

    def make(self, name, how):
        key = ec.generate_private_key(ec.SECP256R1())
        authority = how.get("authority", False)
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, how.get("subject", name))] if authority or "subject" in how else []
        issuer, signer = self.made[how["by"]][:2] if "by" in how else (None, key)
        now = datetime.datetime.now(datetime.timezone.utc)
        start, end = (now + datetime.timedelta(days=day) for day in how.get("days", (-1, 30)))
        builder = (x509.CertificateBuilder().subject_name(x509.Name(subject))
                   .issuer_name(issuer.subject if issuer else x509.Name(subject)).public_key(key.public_key())
                   .serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(end)
                   .add_extension(x509.BasicConstraints(ca=authority, path_length=None), True))
        names = [x509.UniformResourceIdentifier(uri) for uri in how.get("uris", [])]
        names += [x509.DNSName(dns) for dns in how.get("dns", [])]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), not subject)
        if "use" in how:
            builder = builder.add_extension(x509.ExtendedKeyUsage([USES[how["use"]]]), False)
        certificate = builder.sign(signer, hashes.SHA256())
        self.made[name] = (certificate, key)
        self.file(name).write_text(self.text("chain", name) + self.text("key", name))

    def file(self, name):
        """Chain and key in one file."""
        return self.folder / f"{name}.pem"

    def text(self, kind, name):
        certificate, key = self.made[name]
        if kind == "chain":
            return certificate.public_bytes(serialization.Encoding.PEM).decode()
        if kind == "key":
            return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                     serialization.NoEncryption()).decode()
        if kind == "hash":
            return certificate.fingerprint(hashes.SHA256()).hex()
        public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(hashlib.sha256(public).digest()).decode()

    def fill(self, value):
        """The value with texts in the place of references."""
        if isinstance(value, dict):
            return {key: self.fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        found = REFERENCE.match(value) if isinstance(value, str) else None
        return self.text(*found.groups()) if found else value
