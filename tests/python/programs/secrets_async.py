"""Secrets through the asynchronous clients, which bring their own TLS and proxy code. Nothing in it knows Claviger."""

import asyncio
import os

from azure.identity.aio import DefaultAzureCredential
from azure.keyvault.secrets.aio import SecretClient


async def main() -> None:
    url = f"https://{os.environ['KEY_VAULT_NAME']}.vault.azure.net"
    name, value = input("name of the secret: "), input("its value: ")
    async with DefaultAzureCredential() as credential, SecretClient(url, credential) as client:
        await client.set_secret(name, value)
        print(f"it says '{(await client.get_secret(name)).value}'")
        await client.delete_secret(name)
        await client.purge_deleted_secret(name)
        print(f"purged {name}")


asyncio.run(main())
