"""A first program with keys: create one, read it back, sign with it, delete it. Nothing in it knows Claviger."""

import hashlib
import os

from azure.identity import DefaultAzureCredential
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.crypto import CryptographyClient, SignatureAlgorithm

vault = os.environ["KEY_VAULT_NAME"]
credential = DefaultAzureCredential()
client = KeyClient(vault_url=f"https://{vault}.vault.azure.net", credential=credential)

name = input("name of the key: ")
key = client.create_rsa_key(name, size=2048)
print(f"created {key.name} in {vault}")

again = client.get_key(name)
print(f"found {again.name}, version {again.properties.version == key.properties.version}")

signer = CryptographyClient(again, credential)
digest = hashlib.sha256(b"hello").digest()
signature = signer.sign(SignatureAlgorithm.rs256, digest).signature
print(f"signature {signer.verify(SignatureAlgorithm.rs256, digest, signature).is_valid}")

gone = client.begin_delete_key(name).result()
print(f"deleted {gone.name}, on {gone.deleted_date:%Y}")
