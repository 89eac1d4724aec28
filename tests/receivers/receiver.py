"""A webhook receiver whose libraries are not ours: standardwebhooks, svix and cryptography.

Prints its URL as JSON, then reads lines of JSON from stdin until that ends. Each line makes
a receiver under the URL: {"name": "x", "secret": "whsec_..."} or {"name": "x", "publicKey":
"whpk_..."}; it is there when the line {"ready": "x"} is printed.

A receiver answers 200 when every library takes the webhook and refuses it with any one bit
turned, 401 when every library refuses it, and 500 when they disagree. The body says which
did what.
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
    """What takes a webhook with a secret that both sides know: raises otherwise."""
    reference = standardwebhooks.Webhook(secret)
    theirs = svix.webhooks.Webhook(secret)
    return {
        "standardwebhooks": (reference.verify, standardwebhooks.WebhookVerificationError),
        "svix": (theirs.verify, svix.webhooks.WebhookVerificationError),
    }


def asymmetric(public_key):
    """The same with a public key. No library knows v1a yet, so this is the specification."""
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
    """The webhook with one bit turned, once in each of its parts."""
    # Bits that leave text what it was: base64, a number, JSON.
    middle = body.index(b'"eventId"') + 3
    yield "body", body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :], headers
    moment = str(int(headers["webhook-timestamp"]) ^ 1)
    yield "timestamp", body, {**headers, "webhook-timestamp": moment}
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


def judge(verifiers, body, headers):
    """HTTP status, and who said what."""
    said = {"took": [], "refused": [], "fooledBy": []}
    for name, (verify, refusal) in verifiers.items():
        try:
            verify(body, headers)
            said["took"].append(name)
        except refusal:
            said["refused"].append(name)
            continue
        for part, other_body, other_headers in tampered(body, headers):
            try:
                verify(other_body, other_headers)
                said["fooledBy"].append(f"{name}: {part}")
            except refusal:
                pass
    if said["fooledBy"] or (said["took"] and said["refused"]):
        return 500, said
    return (200 if said["took"] else 401), said


class Receiver(BaseHTTPRequestHandler):
    receivers = {}

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name: self.headers[name] for name in SIGNED}
        verifiers = self.receivers.get(self.path.removeprefix("/"))
        status, said = judge(verifiers, body, headers) if verifiers else (404, {})
        answer = json.dumps(said).encode()
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
        wanted = json.loads(line)
        secret, public_key = wanted.get("secret"), wanted.get("publicKey")
        Receiver.receivers[wanted["name"]] = shared(secret) if secret else asymmetric(public_key)
        print(json.dumps({"ready": wanted["name"]}), flush=True)


main()
