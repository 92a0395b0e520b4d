"""Deliveries of webhooks, signed as Standard Webhooks says."""

import hashlib
import hmac
import time
from base64 import b64encode
from collections.abc import Mapping


def signed(body: bytes, *, secret: str, delivery: str = "id") -> Mapping[str, str]:
    """Return the headers of a delivery that is sent now."""
    sent_at = str(int(time.time()))
    text = b".".join([delivery.encode(), sent_at.encode(), body])
    digest = hmac.new(secret.encode(), text, hashlib.sha256).digest()
    return {
        "Content-Type": "application/json",
        "Webhook-Id": delivery,
        "Webhook-Timestamp": sent_at,
        "Webhook-Signature": f"v1,{b64encode(digest).decode()}",
    }
