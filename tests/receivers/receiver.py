"""A webhook receiver with public libraries: standardwebhooks, svix and cryptography.

Prints its URL as JSON, then reads lines of JSON from stdin until that ends. Each line makes
a receiver under the URL: {"name": "x", "secret": "whsec_..."} or {"name": "x", "publicKey":
"whpk_..."}. The receiver is ready when the line {"ready": "x"} is printed.

A receiver answers 200 when every library accepts the webhook and refuses it with any one bit
flipped, 401 when every library refuses it, and 500 when they disagree. The body lists the
libraries by result.
"""

import base64
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import standardwebhooks
import svix.webhooks
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNED = ("webhook-id", "webhook-timestamp", "webhook-signature")


def shared(secret):
    """The verifiers for a shared secret; a verifier raises when it refuses a webhook."""
    reference = standardwebhooks.Webhook(secret)
    theirs = svix.webhooks.Webhook(secret)
    return {
        "standardwebhooks": (reference.verify, standardwebhooks.WebhookVerificationError),
        "svix": (theirs.verify, svix.webhooks.WebhookVerificationError),
    }


def asymmetric(public_key):
    """The verifier for a public key, by the specification, because no library has v1a yet."""
    encoded = public_key.removeprefix("whpk_")
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded, validate=True))

    def verify(body, headers):
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        for entry in headers["webhook-signature"].split(" "):
            version, _, signature = entry.partition(",")
            if version != "v1a":
                continue
            try:
                return key.verify(base64.b64decode(signature, validate=True), signed)
            except InvalidSignature:
                pass
        raise InvalidSignature

    return {"cryptography": (verify, InvalidSignature)}


def tampered(body, headers):
    """The webhook with one bit flipped, once in each of its parts."""
    # The flipped bits keep each part well-formed: base64, a number, JSON.
    middle = body.index(b'"eventId"') + 3
    yield "body", body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :], headers
    timestamp = str(int(headers["webhook-timestamp"]) ^ 1)
    yield "timestamp", body, {**headers, "webhook-timestamp": timestamp}
    last = headers["webhook-id"][-1]
    other = headers["webhook-id"][:-1] + chr(ord(last) ^ 1)
    yield "id", body, {**headers, "webhook-id": other}
    entries = []
    for entry in headers["webhook-signature"].split(" "):
        version, _, signature = entry.partition(",")
        raw = bytearray(base64.b64decode(signature))
        raw[0] ^= 1
        entries.append(f"{version},{base64.b64encode(raw).decode()}")
    yield "signature", body, {**headers, "webhook-signature": " ".join(entries)}


def check(verifiers, body, headers):
    """The HTTP status, and the libraries by result."""
    results = {"accepted": [], "refused": [], "acceptedTampered": []}
    for name, (verify, refusal) in verifiers.items():
        try:
            verify(body, headers)
            results["accepted"].append(name)
        except refusal:
            results["refused"].append(name)
            continue
        for part, other_body, other_headers in tampered(body, headers):
            try:
                verify(other_body, other_headers)
                results["acceptedTampered"].append(f"{name}: {part}")
            except refusal:
                pass
    if results["acceptedTampered"] or (results["accepted"] and results["refused"]):
        return 500, results
    return (200 if results["accepted"] else 401), results


class Receiver(BaseHTTPRequestHandler):
    receivers = {}

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name: self.headers[name] for name in SIGNED}
        verifiers = self.receivers.get(self.path.removeprefix("/"))
        status, results = check(verifiers, body, headers) if verifiers else (404, {})
        answer = json.dumps(results).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        secret, public_key = command.get("secret"), command.get("publicKey")
        Receiver.receivers[command["name"]] = shared(secret) if secret else asymmetric(public_key)
        print(json.dumps({"ready": command["name"]}), flush=True)


main()
