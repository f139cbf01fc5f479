// Every public method of @azure/keyvault-keys against Claviger.
import assert from "node:assert/strict";
import { constants, createHash, createPublicKey, generateKeyPairSync, verify as nodeVerify } from "node:crypto";
import { test } from "node:test";
import { CryptographyClient } from "@azure/keyvault-keys";
import { all, credential, crypto, fresh, keys, refusal } from "./support.js";

const remote = (key) => new CryptographyClient(key.id, credential);
const digest = (alg, data) => createHash(alg).update(data).digest();

test("create of every kind", async () => {
  for (const size of [2048, 3072, 4096]) {
    const rsa = await keys.createRsaKey(fresh("rsa"), { keySize: size });
    assert.equal(rsa.keyType, "RSA");
    assert.equal(rsa.key.n.length, size / 8);
    assert.deepEqual(rsa.keyOperations, ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"]);
  }
  for (const [curve, width] of [["P-256", 32], ["P-384", 48], ["P-521", 66], ["P-256K", 32]]) {
    const ec = await keys.createEcKey(fresh("ec"), { curve });
    assert.equal(ec.key.crv, curve);
    assert.equal(ec.key.x.length, width);
    assert.deepEqual(ec.keyOperations, ["sign", "verify"]);
  }
  assert.equal((await keys.createRsaKey(fresh("rsa"), { hsm: true })).keyType, "RSA-HSM");
  assert.equal((await keys.createEcKey(fresh("ec"), { hsm: true })).keyType, "EC-HSM");
  const oct = await keys.createOctKey(fresh("oct"), { hsm: true, keySize: 256 });
  assert.equal(oct.keyType, "oct-HSM");
  assert.equal(oct.key.k, undefined);
});

test("attributes, tags, versions, update and get", async () => {
  const name = fresh("attributes");
  const notBefore = new Date("2024-01-01T00:00:00Z");
  const expiresOn = new Date("2035-01-01T00:00:00Z");
  const first = await keys.createKey(name, "EC", { notBefore, expiresOn, tags: { a: "1" }, keyOps: ["sign"] });
  assert.deepEqual(first.properties.notBefore, notBefore);
  assert.deepEqual(first.properties.expiresOn, expiresOn);
  assert.deepEqual(first.properties.tags, { a: "1" });
  assert.equal(first.properties.enabled, true);
  assert.ok(first.properties.recoveryLevel && first.properties.createdOn && first.properties.updatedOn);
  const second = await keys.createKey(name, "EC");
  assert.notEqual(second.properties.version, first.properties.version);
  assert.equal((await keys.getKey(name)).properties.version, second.properties.version);
  assert.equal((await keys.getKey(name, { version: first.properties.version })).id, first.id);
  const changed = await keys.updateKeyProperties(name, first.properties.version, { enabled: false, tags: { b: "2" } });
  assert.equal(changed.properties.enabled, false);
  assert.deepEqual(changed.properties.tags, { b: "2" });
  assert.deepEqual(changed.properties.expiresOn, expiresOn);
  await keys.updateKeyProperties(name, { keyOps: ["verify"] });
  assert.deepEqual((await keys.getKey(name)).keyOperations, ["verify"]);
  const versions = await all(keys.listPropertiesOfKeyVersions(name));
  assert.deepEqual(
    new Set(versions.map((v) => v.version)),
    new Set([first.properties.version, second.properties.version]),
  );
  assert.ok((await all(keys.listPropertiesOfKeys())).some((key) => key.name === name));
  for await (const page of keys.listPropertiesOfKeys().byPage({ maxPageSize: 2 })) {
    assert.ok(page.length <= 2);
  }
});

test("delete, recover, purge", async () => {
  const name = fresh("deleted");
  const made = await keys.createEcKey(name);
  const poller = await keys.beginDeleteKey(name, { intervalInMs: 50 });
  const deleted = await poller.pollUntilDone();
  assert.ok(deleted.properties.recoveryId && deleted.properties.deletedOn && deleted.properties.scheduledPurgeDate);
  assert.equal((await keys.getDeletedKey(name)).name, name);
  assert.ok((await all(keys.listDeletedKeys())).some((key) => key.name === name));
  const { status, code } = await refusal(keys.getKey(name));
  assert.deepEqual([status, code], [404, "KeyNotFound"]);
  assert.equal((await refusal(keys.createEcKey(name))).status, 409);
  const recovered = await (await keys.beginRecoverDeletedKey(name, { intervalInMs: 50 })).pollUntilDone();
  assert.equal(recovered.properties.version, made.properties.version);
  await (await keys.beginDeleteKey(name, { intervalInMs: 50 })).pollUntilDone();
  await keys.purgeDeletedKey(name);
  assert.equal((await refusal(keys.getDeletedKey(name))).status, 404);
});

test("backup and restore", async () => {
  const name = fresh("backup");
  const made = await keys.createEcKey(name);
  const blob = await keys.backupKey(name);
  assert.equal((await refusal(keys.restoreKeyBackup(blob))).status, 409);
  await (await keys.beginDeleteKey(name, { intervalInMs: 50 })).pollUntilDone();
  await keys.purgeDeletedKey(name);
  assert.equal((await keys.restoreKeyBackup(blob)).id, made.id);
  blob[blob.length >> 1] ^= 1;
  assert.equal((await refusal(keys.restoreKeyBackup(blob))).status, 400);
});

test("import of RSA and EC keys", async () => {
  const jwk = (pair) => {
    const exported = pair.privateKey.export({ format: "jwk" });
    const { kty, crv, ...members } = exported;
    const bytes = Object.entries(members).map(([name, value]) => [name, Buffer.from(value, "base64url")]);
    return { kty, ...(crv && { crv }), ...Object.fromEntries(bytes) };
  };
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const imported = await keys.importKey(fresh("import"), jwk(rsa));
  assert.deepEqual(Buffer.from(imported.key.n), jwk(rsa).n);
  assert.equal(imported.key.d, undefined);
  const data = Buffer.from("import me");
  const signed = await remote(imported).sign("RS256", digest("sha256", data));
  assert.ok(nodeVerify("sha256", data, rsa.publicKey, signed.result));
  const ec = generateKeyPairSync("ec", { namedCurve: "P-384" });
  const hardware = await keys.importKey(fresh("import"), jwk(ec), { hardwareProtected: true });
  assert.equal(hardware.keyType, "EC-HSM");
  const again = await remote(hardware).sign("ES384", digest("sha384", data));
  assert.ok(nodeVerify("sha384", data, { key: ec.publicKey, dsaEncoding: "ieee-p1363" }, again.result));
  const broken = { ...jwk(rsa), n: jwk(generateKeyPairSync("rsa", { modulusLength: 2048 })).n };
  assert.equal((await refusal(keys.importKey(fresh("import"), broken))).status, 400);
});

test("rotation and its policy", async () => {
  const name = fresh("rotate");
  const made = await keys.createEcKey(name, { tags: { a: "1" } });
  const initial = await keys.getKeyRotationPolicy(name);
  assert.deepEqual(initial.lifetimeActions, [{ action: "Notify", timeAfterCreate: undefined, timeBeforeExpiry: "P30D" }]);
  const policy = { expiresIn: "P90D", lifetimeActions: [{ action: "Rotate", timeAfterCreate: "P2M" }] };
  const set = await keys.updateKeyRotationPolicy(name, policy);
  assert.equal(set.expiresIn, "P90D");
  assert.deepEqual(set.lifetimeActions.map((action) => action.action), ["Rotate", "Notify"]);
  const rotated = await keys.rotateKey(name);
  assert.notEqual(rotated.id, made.id);
  assert.deepEqual(rotated.properties.tags, { a: "1" });
  const days = (rotated.properties.expiresOn - rotated.properties.createdOn) / 86_400_000;
  assert.equal(days, 90);
  const short = { expiresIn: "P7D", lifetimeActions: [] };
  assert.equal((await refusal(keys.updateKeyRotationPolicy(name, short))).status, 400);
});

test("release refuses without an authority, and random bytes are for Managed HSM", async () => {
  const policy = {
    version: "1.0.0",
    anyOf: [{ authority: "https://attest.test", allOf: [{ claim: "a", equals: "b" }] }],
  };
  const releasePolicy = { encodedPolicy: Buffer.from(JSON.stringify(policy)) };
  const key = await keys.createEcKey(fresh("release"), { hsm: true, exportable: true, releasePolicy });
  assert.equal(key.properties.exportable, true);
  assert.deepEqual(JSON.parse(Buffer.from(key.properties.releasePolicy.encodedPolicy)), policy);
  const { status, code, error } = await refusal(keys.releaseKey(key.name, "a.b.c"));
  assert.deepEqual([status, code], [403, "Forbidden"]);
  assert.match(error.message, /no attestation authority/);
  assert.equal((await refusal(keys.getRandomBytes(8))).status, 400);
  assert.equal((await refusal(keys.getKeyAttestation(key.name))).status, 400);
});

test("signatures of every algorithm", async () => {
  const data = Buffer.from("sign me");
  const rsa = await keys.createRsaKey(fresh("sign"));
  const hash = (alg) => `sha${alg.slice(2, 5)}`;
  for (const alg of ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]) {
    const client = remote(rsa);
    const signed = await client.sign(alg, digest(hash(alg), data));
    assert.equal(signed.keyID, rsa.id);
    assert.equal((await client.verify(alg, digest(hash(alg), data), signed.result)).result, true);
    assert.equal((await client.verify(alg, digest(hash(alg), "other"), signed.result)).result, false);
    const whole = await client.signData(alg, data);
    if (alg.startsWith("PS")) {
      // The client's own verifyData takes PS* for PKCS#1 v1.5 (4.10.2), so Node checks.
      const padding = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };
      const members = ["n", "e"].map((name) => [name, Buffer.from(rsa.key[name]).toString("base64url")]);
      const key = createPublicKey({ key: { kty: "RSA", ...Object.fromEntries(members) }, format: "jwk" });
      assert.ok(nodeVerify(hash(alg), data, { key, ...padding }, whole.result));
    } else {
      assert.equal((await client.verifyData(alg, data, whole.result)).result, true);
    }
  }
  for (const [curve, alg, name] of [
    ["P-256", "ES256", "sha256"],
    ["P-384", "ES384", "sha384"],
    ["P-521", "ES512", "sha512"],
    ["P-256K", "ES256K", "sha256"],
  ]) {
    const ec = await keys.createEcKey(fresh("sign"), { curve });
    const client = remote(ec);
    const signed = await client.sign(alg, digest(name, data));
    assert.equal((await client.verify(alg, digest(name, data), signed.result)).result, true);
    const numbers = { kty: "EC", crv: curve === "P-256K" ? "secp256k1" : curve };
    for (const member of ["x", "y"]) {
      numbers[member] = Buffer.from(ec.key[member]).toString("base64url");
    }
    const key = createPublicKey({ key: numbers, format: "jwk" });
    assert.ok(nodeVerify(name, data, { key, dsaEncoding: "ieee-p1363" }, signed.result));
    assert.equal((await refusal(client.sign("RS256", digest("sha256", data)))).status, 400);
    assert.equal((await refusal(client.sign(alg, digest("sha1", data)))).status, 400);
  }
});

test("encryption and wrapping, by the service and by the client", async () => {
  const rsa = await keys.createRsaKey(fresh("encrypt"));
  const plaintext = Buffer.from("a secret");
  for (const algorithm of ["RSA1_5", "RSA-OAEP", "RSA-OAEP-256"]) {
    const client = crypto(rsa);
    const sealed = await client.encrypt({ algorithm, plaintext });
    const opened = await client.decrypt({ algorithm, ciphertext: sealed.result });
    assert.deepEqual(Buffer.from(opened.result), plaintext);
    const wrapped = await client.wrapKey(algorithm, plaintext);
    const unwrapped = await client.unwrapKey(algorithm, wrapped.result);
    assert.deepEqual(Buffer.from(unwrapped.result), plaintext);
    sealed.result[5] ^= 1;
    assert.equal((await refusal(client.decrypt({ algorithm, ciphertext: sealed.result }))).status, 400);
  }
  const oct = await keys.createOctKey(fresh("encrypt"), { hsm: true, keySize: 256 });
  const client = remote(oct);
  const additionalAuthenticatedData = Buffer.from("aad");
  const sealed = await client.encrypt({ algorithm: "A256GCM", plaintext, additionalAuthenticatedData });
  const opened = await client.decrypt({
    algorithm: "A256GCM",
    ciphertext: sealed.result,
    iv: sealed.iv,
    authenticationTag: sealed.authenticationTag,
    additionalAuthenticatedData,
  });
  assert.deepEqual(Buffer.from(opened.result), plaintext);
  const iv = Buffer.alloc(16, 7);
  const padded = await client.encrypt({ algorithm: "A256CBCPAD", plaintext, iv });
  const back = await client.decrypt({ algorithm: "A256CBCPAD", ciphertext: padded.result, iv });
  assert.deepEqual(Buffer.from(back.result), plaintext);
  const wrapped = await client.wrapKey("A256KW", Buffer.alloc(32, 9));
  assert.deepEqual(Buffer.from((await client.unwrapKey("A256KW", wrapped.result)).result), Buffer.alloc(32, 9));
});

test("what a key is not for is refused", async () => {
  const name = fresh("not-for");
  const made = await keys.createRsaKey(name, { keyOps: ["sign"], enabled: true });
  // The client looks at key_ops by itself; what the service says is seen by a client that may not get the key.
  await assert.rejects(remote(made).unwrapKey("RSA-OAEP", Buffer.alloc(256, 1)), /unwrapKey/);
  const expired = await keys.createRsaKey(name, { expiresOn: new Date(1_000_000_000_000) });
  const vault = new URL(expired.id).origin;
  const direct = new CryptographyClient(`${vault}/keys/${name}/${expired.properties.version}`, credential);
  await assert.rejects(direct.sign("RS256", digest("sha256", "x")));
});

test("private keys never come back", async () => {
  const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const jwk = pair.privateKey.export({ format: "jwk" });
  const bytes = (text) => Buffer.from(text, "base64url");
  const name = fresh("private");
  const key = { kty: "EC", crv: "P-256", x: bytes(jwk.x), y: bytes(jwk.y), d: bytes(jwk.d) };
  await keys.importKey(name, key);
  const shown = JSON.stringify(await keys.getKey(name));
  assert.ok(!shown.includes(jwk.d));
});
