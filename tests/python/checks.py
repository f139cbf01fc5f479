"""Small checks that several suites share."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.keyvault.keys import JsonWebKey, KeyVaultKey
from cryptography.hazmat.primitives.asymmetric import ec, rsa

CURVES: dict[str, ec.EllipticCurve] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
    "P-256K": ec.SECP256K1(),
}


def now() -> datetime:
    """The time in whole seconds, as the service shows it."""
    return datetime.now(UTC).replace(microsecond=0)


@contextlib.contextmanager
def refused(status: int, code: str, text: str | None = None) -> Iterator[pytest.ExceptionInfo[HttpResponseError]]:
    """The SDK raises, with this status and this code, and this text in the message."""
    with pytest.raises(HttpResponseError) as caught:
        yield caught
    error = caught.value
    assert error.status_code == status, error
    assert error.error is not None and error.error.code == code, error
    if text is not None:
        assert re.search(re.escape(text), error.error.message), error


def inner_code(caught: pytest.ExceptionInfo[HttpResponseError]) -> str | None:
    """`innererror.code` of a refusal."""
    body: dict[str, Any] = caught.value.response.json()
    return body["error"].get("innererror", {}).get("code")


def local_public_key(key: KeyVaultKey | JsonWebKey) -> Any:
    """The public half, in a library that knows nothing of the service."""
    jwk = key.key if isinstance(key, KeyVaultKey) else key
    if jwk.n is not None:
        return rsa.RSAPublicNumbers(int.from_bytes(jwk.e, "big"), int.from_bytes(jwk.n, "big")).public_key()
    x, y = int.from_bytes(jwk.x, "big"), int.from_bytes(jwk.y, "big")
    return ec.EllipticCurvePublicNumbers(x, y, CURVES[jwk.crv]).public_key()
