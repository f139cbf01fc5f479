// Every public method of @azure/keyvault-secrets against Claviger.
import assert from "node:assert/strict";
import { test } from "node:test";
import { all, fresh, refusal, secrets } from "./support.js";

test("set, get, update, versions", async () => {
  const name = fresh("secret");
  const first = await secrets.setSecret(name, "one", { contentType: "text/plain", tags: { a: "1" } });
  assert.equal(first.value, "one");
  assert.equal(first.properties.contentType, "text/plain");
  const second = await secrets.setSecret(name, "zwei \u{1f511}");
  assert.equal((await secrets.getSecret(name)).value, "zwei \u{1f511}");
  const version = first.properties.version;
  assert.equal((await secrets.getSecret(name, { version })).value, "one");
  const expiresOn = new Date("2035-01-01T00:00:00Z");
  const changed = await secrets.updateSecretProperties(name, version, { expiresOn, tags: {} });
  assert.deepEqual(changed.expiresOn, expiresOn);
  assert.equal(changed.contentType, "text/plain");
  await secrets.updateSecretProperties(name, second.properties.version, { enabled: false });
  const { status, inner } = await refusal(secrets.getSecret(name));
  assert.deepEqual([status, inner], [403, "SecretDisabled"]);
  const versions = await all(secrets.listPropertiesOfSecretVersions(name));
  assert.equal(versions.length, 2);
  assert.ok((await all(secrets.listPropertiesOfSecrets())).some((secret) => secret.name === name));
});

test("delete, recover, purge, backup, restore", async () => {
  const name = fresh("secret");
  await secrets.setSecret(name, "value");
  const blob = await secrets.backupSecret(name);
  const gone = await (await secrets.beginDeleteSecret(name, { intervalInMs: 50 })).pollUntilDone();
  assert.ok(gone.properties.recoveryId);
  assert.equal((await secrets.getDeletedSecret(name)).name, name);
  assert.ok((await all(secrets.listDeletedSecrets())).some((secret) => secret.name === name));
  await (await secrets.beginRecoverDeletedSecret(name, { intervalInMs: 50 })).pollUntilDone();
  assert.equal((await secrets.getSecret(name)).value, "value");
  await (await secrets.beginDeleteSecret(name, { intervalInMs: 50 })).pollUntilDone();
  await secrets.purgeDeletedSecret(name);
  await secrets.restoreSecretBackup(blob);
  assert.equal((await secrets.getSecret(name)).value, "value");
});

test("refusals", async () => {
  const missing = await refusal(secrets.getSecret(fresh("missing")));
  assert.deepEqual([missing.status, missing.code], [404, "SecretNotFound"]);
  assert.equal((await refusal(secrets.setSecret(fresh("long"), "x".repeat(25_601)))).status, 400);
});
