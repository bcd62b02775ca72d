"""How tests reach a MinIO."""

import uuid
from dataclasses import replace
from typing import Any

from core.settings import S3Settings
from sheafdb.servers import Minio


def s3_settings(server: Minio, **changes: Any) -> S3Settings:
    """Settings for a bucket nobody else uses."""
    own = S3Settings(
        endpoint=f"http://{server.address}",
        bucket=f"test-{uuid.uuid4().hex}",
        access_key=server.access_key,
        secret_key=server.secret_key,
    )
    return replace(own, **changes)
