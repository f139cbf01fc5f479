// One operation at a time, whole path: TLS, token, authorization, read gate, cryptography or log, JSON. Keep-alive.
//
//   OP        secret-get | secret-set | secret-new | sign-es256 | sign-rs256 | get-key | create-ec | create-rsa2048 |
//             create-rsa4096                                                  (default secret-get)
//   VUS       virtual users, each with a connection of its own                (default 16)
//   SECONDS   how long                                                        (default 10)
//   TARGETS   addresses of nodes, host:port, comma-separated; users are spread over them
//   VAULT_HOST, LOGIN_HOST, AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET
//
// loadtest/run.sh sets all of it, on servers that it starts and stops itself.
import encoding from "k6/encoding";
import http from "k6/http";
import { check, fail } from "k6";

const env = (name, otherwise) => __ENV[name] || otherwise;
const op = env("OP", "secret-get");
const targets = env("TARGETS", "127.0.0.1:8443").split(",");
const vaultHost = env("VAULT_HOST", "demo.vault.azure.net");
const loginHost = env("LOGIN_HOST", "login.microsoftonline.com");
const version = "api-version=7.6";

export const options = {
  vus: Number(env("VUS", "16")),
  duration: `${env("SECONDS", "10")}s`,
  // Names lead to the nodes without DNS; a wildcard would be one node, so users pick theirs by address below.
  hosts: { [vaultHost]: targets[0], [loginHost]: targets[0] },
  summaryTrendStats: ["avg", "med", "p(90)", "p(99)", "max"],
  thresholds: { checks: ["rate==1"] },
  insecureSkipTLSVerify: targets.length > 1,
};

// The node that a user talks to: the Host header names the vault, the address the node.
function base() {
  return targets.length > 1 ? `https://${targets[__VU % targets.length]}` : `https://${vaultHost}`;
}

function headers(token) {
  return { Authorization: `Bearer ${token}`, "Content-Type": "application/json", Host: env("HOST_HEADER", vaultHost) };
}

export function setup() {
  const resource = `https://${env("HOST_HEADER", vaultHost).replace(/^[^.]+\./, "")}`;
  const loginBase = targets.length > 1 ? `https://${targets[0]}` : `https://${loginHost}`;
  const answer = http.post(
    `${loginBase}/${env("AZURE_TENANT_ID")}/oauth2/v2.0/token`,
    {
      grant_type: "client_credentials",
      client_id: env("AZURE_CLIENT_ID"),
      client_secret: env("AZURE_CLIENT_SECRET"),
      scope: `${resource}/.default`,
    },
    { headers: { Host: env("LOGIN_HOST_HEADER", loginHost) } },
  );
  if (answer.status !== 200) fail(`no token: ${answer.status} ${answer.body}`);
  const token = answer.json("access_token");
  const made = [
    http.put(`${base()}/secrets/load?${version}`, JSON.stringify({ value: "x".repeat(64) }), { headers: headers(token) }),
    http.post(`${base()}/keys/load-ec/create?${version}`, JSON.stringify({ kty: "EC" }), { headers: headers(token) }),
    http.post(`${base()}/keys/load-rsa/create?${version}`, JSON.stringify({ kty: "RSA" }), { headers: headers(token) }),
  ];
  for (const one of made) if (one.status !== 200) fail(`not made: ${one.status} ${one.body}`);
  return { token };
}

const digest = encoding.b64encode(new Uint8Array(32).fill(7).buffer, "rawurl");

function request(token) {
  const params = { headers: headers(token) };
  switch (op) {
    case "secret-get":
      return http.get(`${base()}/secrets/load?${version}`, params);
    case "secret-set":
      return http.put(`${base()}/secrets/load-${__VU}?${version}`, JSON.stringify({ value: `v-${__ITER}` }), params);
    case "secret-new":
      return http.put(`${base()}/secrets/n-${__VU}-${__ITER}?${version}`, JSON.stringify({ value: `v-${__ITER}` }), params);
    case "get-key":
      return http.get(`${base()}/keys/load-ec?${version}`, params);
    case "create-ec":
      return http.post(`${base()}/keys/c-${__VU}/create?${version}`, JSON.stringify({ kty: "EC" }), params);
    case "create-rsa2048":
    case "create-rsa4096": {
      const body = JSON.stringify({ kty: "RSA", key_size: Number(op.slice(-4)) });
      return http.post(`${base()}/keys/c-${__VU}/create?${version}`, body, params);
    }
    case "sign-es256":
      return http.post(`${base()}/keys/load-ec/sign?${version}`, JSON.stringify({ alg: "ES256", value: digest }), params);
    case "sign-rs256":
      return http.post(`${base()}/keys/load-rsa/sign?${version}`, JSON.stringify({ alg: "RS256", value: digest }), params);
    default:
      fail(`OP=${op} is not known`);
  }
}

export default function (data) {
  const answer = request(data.token);
  check(answer, { "status is 200": (r) => r.status === 200 });
}

export function handleSummary(data) {
  const m = data.metrics;
  const time = m.http_req_duration.values;
  const row = {
    op,
    vus: options.vus,
    nodes: targets.length,
    requests: m.http_reqs.values.count,
    per_second: Math.round(m.http_reqs.values.rate),
    failed: m.checks.values.fails,
    p50_ms: Number(time.med.toFixed(2)),
    p90_ms: Number(time["p(90)"].toFixed(2)),
    p99_ms: Number(time["p(99)"].toFixed(2)),
    max_ms: Number(time.max.toFixed(1)),
  };
  return { stdout: JSON.stringify(row) + "\n" };
}
