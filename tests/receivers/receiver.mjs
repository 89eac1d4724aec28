// A webhook receiver with public libraries: standardwebhooks, svix and Node's own crypto. Its
// input and output are those of receiver.py, which describes them.

import { createPublicKey, verify as verifyEd25519 } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";

import * as reference from "standardwebhooks";
import * as svix from "svix";

class Refused extends Error {}

/** The verifiers for a shared secret; a verifier throws when it refuses a webhook. */
function shared(secret) {
  const [standard, svixWebhook] = [new reference.Webhook(secret), new svix.Webhook(secret)];
  return {
    standardwebhooks: [
      (body, headers) => standard.verify(body, headers),
      reference.WebhookVerificationError,
    ],
    svix: [(body, headers) => svixWebhook.verify(body, headers), svix.WebhookVerificationError],
  };
}

/** The verifier for a public key, by the specification, because no library has v1a yet. */
function asymmetric(publicKey) {
  const raw = Buffer.from(publicKey.replace(/^whpk_/, ""), "base64");
  const jwk = { kty: "OKP", crv: "Ed25519", x: raw.toString("base64url") };
  const key = createPublicKey({ key: jwk, format: "jwk" });
  const verify = (body, headers) => {
    const head = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`;
    const signed = Buffer.concat([Buffer.from(head), body]);
    const entries = headers["webhook-signature"].split(" ").map((entry) => entry.split(","));
    const holds = ([version, signature]) =>
      version === "v1a" && verifyEd25519(null, signed, key, Buffer.from(signature, "base64"));
    if (!entries.some(holds)) throw new Refused();
  };
  return { crypto: [verify, Refused] };
}

/** The webhook with one bit flipped, once in each of its parts. */
function* tampered(body, headers) {
  const flipped = Buffer.from(body);
  flipped[body.indexOf('"eventId"') + 3] ^= 1;
  yield ["body", flipped, headers];
  const timestamp = String(Number(headers["webhook-timestamp"]) ^ 1);
  yield ["timestamp", body, { ...headers, "webhook-timestamp": timestamp }];
  const id = headers["webhook-id"];
  const other = id.slice(0, -1) + String.fromCharCode(id.charCodeAt(id.length - 1) ^ 1);
  yield ["id", body, { ...headers, "webhook-id": other }];
  const entries = headers["webhook-signature"].split(" ").map((entry) => {
    const [version, signature] = entry.split(",");
    const raw = Buffer.from(signature, "base64");
    raw[0] ^= 1;
    return `${version},${raw.toString("base64")}`;
  });
  yield ["signature", body, { ...headers, "webhook-signature": entries.join(" ") }];
}

/** Whether a verifier accepts; any error but a refusal is a bug in this program. */
function accepts([verify, refusal], body, headers) {
  try {
    verify(body, headers);
    return true;
  } catch (error) {
    if (error instanceof refusal) return false;
    throw error;
  }
}

/** The HTTP status, and the libraries by result. */
function check(verifiers, body, headers) {
  const results = { accepted: [], refused: [], acceptedTampered: [] };
  for (const [name, verifier] of Object.entries(verifiers)) {
    if (!accepts(verifier, body, headers)) {
      results.refused.push(name);
      continue;
    }
    results.accepted.push(name);
    for (const [part, otherBody, otherHeaders] of tampered(body, headers)) {
      if (accepts(verifier, otherBody, otherHeaders)) {
        results.acceptedTampered.push(`${name}: ${part}`);
      }
    }
  }
  const [accepted, refused] = [results.accepted.length > 0, results.refused.length > 0];
  if (results.acceptedTampered.length > 0 || (accepted && refused)) return [500, results];
  return [accepted ? 200 : 401, results];
}

const receivers = new Map();

const server = createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const verifiers = receivers.get(request.url.slice(1));
  const [status, results] = verifiers
    ? check(verifiers, Buffer.concat(parts), request.headers)
    : [404, {}];
  response.writeHead(status).end(JSON.stringify(results));
});

server.listen(0, "127.0.0.1", () => {
  console.log(JSON.stringify({ url: `http://127.0.0.1:${server.address().port}` }));
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => {
    const { name, secret, publicKey } = JSON.parse(line);
    receivers.set(name, secret ? shared(secret) : asymmetric(publicKey));
    console.log(JSON.stringify({ ready: name }));
  });
  lines.on("close", () => process.exit());
});
