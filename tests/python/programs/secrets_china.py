"""A first program with secrets, in the cloud in China. Nothing in it knows Claviger."""

import os

from azure.identity import AzureAuthorityHosts, DefaultAzureCredential
from azure.keyvault.secrets import SecretClient

vault = os.environ["KEY_VAULT_NAME"]
credential = DefaultAzureCredential(authority=AzureAuthorityHosts.AZURE_CHINA)
client = SecretClient(vault_url=f"https://{vault}.vault.azure.cn", credential=credential)

name = input("name of the secret: ")
value = input("its value: ")
client.set_secret(name, value)
print(f"stored {name} in {vault}")

secret = client.get_secret(name)
print(f"it says '{secret.value}' at {secret.id.split('/')[2]}")

poller = client.begin_delete_secret(name)
print(f"deleted {poller.result().name}")
