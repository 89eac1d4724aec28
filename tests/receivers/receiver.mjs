// A webhook receiver whose libraries are not ours: standardwebhooks, svix and Node's own
// crypto. It takes and answers what receiver.py does; see there.

import { createPublicKey, verify as verifyEd25519 } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";

import * as reference from "standardwebhooks";
import * as svix from "svix";

class Refused extends Error {}

/** What takes a webhook with a secret that both sides know: throws otherwise. */
function shared(secret) {
  const [ours, theirs] = [new reference.Webhook(secret), new svix.Webhook(secret)];
  return {
    standardwebhooks: [
      (body, headers) => ours.verify(body, headers),
      reference.WebhookVerificationError,
    ],
    svix: [(body, headers) => theirs.verify(body, headers), svix.WebhookVerificationError],
  };
}

/** The same with a public key. No library knows v1a yet, so this is the specification. */
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

/** The webhook with one bit turned, once in each of its parts. */
function* tampered(body, headers) {
  const turned = Buffer.from(body);
  turned[body.indexOf('"eventId"') + 3] ^= 1;
  yield ["body", turned, headers];
  const moment = String(Number(headers["webhook-timestamp"]) ^ 1);
  yield ["timestamp", body, { ...headers, "webhook-timestamp": moment }];
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

/** Whether it is taken; an error that is no refusal is ours. */
function takes([verify, refusal], body, headers) {
  try {
    verify(body, headers);
    return true;
  } catch (error) {
    if (error instanceof refusal) return false;
    throw error;
  }
}

/** HTTP status, and who said what. */
function judge(verifiers, body, headers) {
  const said = { took: [], refused: [], fooledBy: [] };
  for (const [name, verifier] of Object.entries(verifiers)) {
    if (!takes(verifier, body, headers)) {
      said.refused.push(name);
      continue;
    }
    said.took.push(name);
    for (const [part, otherBody, otherHeaders] of tampered(body, headers)) {
      if (takes(verifier, otherBody, otherHeaders)) said.fooledBy.push(`${name}: ${part}`);
    }
  }
  if (said.fooledBy.length > 0 || (said.took.length > 0 && said.refused.length > 0)) {
    return [500, said];
  }
  return [said.took.length > 0 ? 200 : 401, said];
}

const receivers = new Map();

const server = createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const verifiers = receivers.get(request.url.slice(1));
  const [status, said] = verifiers
    ? judge(verifiers, Buffer.concat(parts), request.headers)
    : [404, {}];
  response.writeHead(status).end(JSON.stringify(said));
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
