"""Tokens that should not be accepted, and the one that should."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from harness import Place, b64url, unb64url


class Forge:
    """Makes `Authorization` headers of every kind for one place; `stranger` is a service of another world."""

    def __init__(self, place: Place, stranger: Place):
        self.place, self.stranger = place, stranger
        self.token = place.token()
        head, body, _ = self.token.split(".")
        self.head: dict[str, Any] = json.loads(unb64url(head))
        self.claims: dict[str, Any] = json.loads(unb64url(body))
        self.oid: str = self.claims["oid"]
        self.key = rsa.generate_private_key(65537, 2048)

    def signed(self, head: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token with the true kid and claims, but for those given, under a key of our own."""
        first = self.encode({**self.head, **(head or {})}, {**self.claims, **claims})
        return f"{first}.{b64url(self.key.sign(first.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    @staticmethod
    def encode(head: dict[str, Any], claims: dict[str, Any]) -> str:
        return ".".join(b64url(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims))

    def with_public_key_as_secret(self) -> str:
        """HMAC under the published key: the oldest trick with RS256 verifiers."""
        reply = self.place.http.request("GET", self.place.login_host, f"/{self.place.tenant}/discovery/v2.0/keys")
        jwk = next(key for key in reply.json["keys"] if key["kid"] == self.head["kid"])
        numbers = rsa.RSAPublicNumbers(
            int.from_bytes(unb64url(jwk["e"]), "big"), int.from_bytes(unb64url(jwk["n"]), "big")
        )
        pem = numbers.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        first = self.encode({**self.head, "alg": "HS256"}, self.claims)
        return f"{first}.{b64url(hmac.new(pem, first.encode(), hashlib.sha256).digest())}"

    def tampered(self) -> str:
        """The true token with another audience: the signature does not fit any more."""
        head, body, signature = self.token.split(".")
        claims = {**json.loads(unb64url(body)), "oid": "00000000-0000-0000-0000-000000000001"}
        return f"{head}.{b64url(json.dumps(claims).encode())}.{signature}"

    def bearer(self, kind: str) -> str:
        now = int(time.time())
        match kind:
            case "full":
                return self.token
            case "other key":
                return self.signed()
            case "other key in the header":
                numbers = self.key.public_key().public_numbers()
                n = b64url(numbers.n.to_bytes(256, "big"))
                return self.signed(head={"jwk": {"kty": "RSA", "n": n, "e": "AQAB"}})
            case "other kid":
                return self.signed(head={"kid": "../../../../dev/null"})
            case "expired":
                return self.signed(nbf=now - 7200, iat=now - 7200, exp=now - 3600)
            case "not yet valid":
                return self.signed(nbf=now + 3600, exp=now + 7200)
            case "forged audience":
                return self.signed(aud="https://management.azure.com")
            case "forged tenant":
                tenant = "11111111-2222-3333-4444-555555555555"
                return self.signed(tid=tenant, iss=f"https://sts.windows.net/{tenant}/")
            case "other world":
                return self.stranger.token()
            case "other audience":
                return self.place.token("https://management.azure.com")
            case "other cloud":
                # Key Vault's own application id is an audience in every cloud; the issuer is not.
                return self.place.token("cfa8b339-82a2-471a-a3c9-0fc0be7a4093", "login.chinacloudapi.cn")
            case "tampered":
                return self.tampered()
            case "cut":
                return self.token[:-10]
            case "unsigned":
                return self.encode({**self.head, "alg": "none"}, self.claims) + "."
            case "without its signature":
                return self.token.rsplit(".", 1)[0] + "."
            case "public key as secret":
                return self.with_public_key_as_secret()
            case "no token at all":
                return "x.y.z"
            case "long":
                return "a" * 6000
            case _:
                raise KeyError(kind)

    def headers(self, kind: str) -> dict[str, str]:
        match kind:
            case "none":
                return {}
            case "empty":
                return {"Authorization": ""}
            case "bearer without a token":
                return {"Authorization": "Bearer "}
            case "basic":
                pair = f"{self.place.client_id}:{self.place.client_secret}".encode()
                return {"Authorization": "Basic " + base64.b64encode(pair).decode()}
            case _:
                return {"Authorization": f"Bearer {self.bearer(kind)}"}
