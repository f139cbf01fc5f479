// What the tests share: clients for the vault that `claviger exec` names, and names that nobody else uses.
import { randomBytes } from "node:crypto";
import { DefaultAzureCredential } from "@azure/identity";
import { CryptographyClient, KeyClient } from "@azure/keyvault-keys";
import { SecretClient } from "@azure/keyvault-secrets";

export const vaultUrl = process.env.VAULT_URL;
if (!vaultUrl) {
  throw new Error("run through Claviger: `claviger exec -- node --test`");
}

export const credential = new DefaultAzureCredential();
export const keys = new KeyClient(vaultUrl, credential);
export const secrets = new SecretClient(vaultUrl, credential);

// By key id: the client fetches the public key first and does public operations by itself.
export const crypto = (key) => new CryptographyClient(key.id, credential);

export const fresh = (what) => `js-${what}-${randomBytes(6).toString("hex")}`;

export async function all(iterator) {
  const items = [];
  for await (const item of iterator) {
    items.push(item);
  }
  return items;
}

// The error of a call that must be refused.
export async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    // The generated code of the SDK spells the member with a capital.
    const inner = error.details?.error?.innerError?.code;
    return { status: error.statusCode, code: error.code, inner, error };
  }
  throw new Error("not refused");
}
