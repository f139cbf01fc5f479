// One call of an SDK, for tests that treat it badly (tests/python/test_retries.py): `one-call.js secret|key NAME` makes a
// first call, says so, waits for a line and makes another.
import { once } from "node:events";
import { KeyClient } from "@azure/keyvault-keys";
import { SecretClient } from "@azure/keyvault-secrets";

const [kind, name] = process.argv.slice(2);
const env = process.env;
const credential = { getToken: async () => ({ token: env.TOKEN, expiresOnTimestamp: Date.now() + 600_000 }) };
const secrets = new SecretClient(env.VAULT_URL, credential);
const keys = new KeyClient(env.VAULT_URL, credential);
const call = (name) => (kind === "secret" ? secrets.setSecret(name, "v") : keys.createEcKey(name));

// The first call of a client is answered with a challenge.
await call(`${name}-first`);
console.log("ready");
await once(process.stdin, "data");
const made = await call(name);
console.log(JSON.stringify({ name: made.name }));
process.stdin.destroy();
