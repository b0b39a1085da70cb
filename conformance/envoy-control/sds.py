"""Stands in for the agent beside a gateway: serves the secrets `default` and `ROOTCA`.  sds.py PORT CERTIFICATE KEY"""
import pathlib
import sys
from concurrent import futures

import grpc
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.secret.v3 import sds_pb2_grpc

port, certificate, key = sys.argv[1], *(pathlib.Path(path).read_text() for path in sys.argv[2:4])


def secret(name):
    made = secret_pb2.Secret(name=name)
    if name == "ROOTCA":
        made.validation_context.trusted_ca.inline_string = certificate
    else:
        made.tls_certificate.certificate_chain.inline_string = certificate
        made.tls_certificate.private_key.inline_string = key
    return made


class Secrets(sds_pb2_grpc.SecretDiscoveryServiceServicer):
    def StreamSecrets(self, requests, context):
        for request in requests:
            if request.response_nonce:
                continue
            response = discovery_pb2.DiscoveryResponse(version_info="1", nonce="1", type_url=request.type_url)
            for name in request.resource_names:
                response.resources.add().Pack(secret(name))
            yield response


server = grpc.server(futures.ThreadPoolExecutor(256))
sds_pb2_grpc.add_SecretDiscoveryServiceServicer_to_server(Secrets(), server)
server.add_insecure_port(f"127.0.0.1:{port}")
server.start()
server.wait_for_termination()
