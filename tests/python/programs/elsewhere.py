"""Shows that the environment of `claviger exec` leads nowhere else: another host is refused, not asked."""

import requests

try:
    requests.get("https://example.org/", timeout=10)
    print("reached")
except requests.exceptions.ProxyError as error:
    print("refused", "403" in str(error))
