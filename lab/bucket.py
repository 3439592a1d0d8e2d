"""An external S3 store, and the lab's media in it."""

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STORAGE_TYPE = "awsS3"


@dataclass(frozen=True)
class ExternalS3:
    """A store for media: endpoint, keys, bucket, its collections, the file with CA certificates, and the region."""

    url: str
    access_key_id: str
    secret_access_key: str
    bucket: str
    collections: Collection[str]
    trusted_ca: Path | None = None
    region: str = "us-east-1"

    def media_descriptor(self, collection: str, name: str) -> dict[str, Any]:
        """Return the descriptor of a media file [gir-api 3]."""
        return {"storage": STORAGE_TYPE, "path": f"{collection}/{name}", "data": {"bucket": self.bucket}}

    @property
    def muxer_settings(self) -> dict[str, str]:
        """The options of the muxer's section s3 for it [behaviour 2]."""
        trust = {"trusted_ca": str(self.trusted_ca)} if self.trusted_ca else {}
        keys = {"access_key_id": self.access_key_id, "secret_access_key": self.secret_access_key}
        return {"endpoint_url": self.url, "region": self.region, **keys, **trust}


class ExternalBucket:
    """The bucket of an external store. Objects that are read are copied to a folder of the lab."""

    def __init__(self, external: ExternalS3, fetched: Path) -> None:
        import boto3  # here, because it is slow to load
        from botocore.config import Config

        self.external, self._fetched = external, fetched
        plain = Config(request_checksum_calculation="when_required", s3={"addressing_style": "path"}, proxies={})
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=external.url,
            region_name=external.region,
            aws_access_key_id=external.access_key_id,
            aws_secret_access_key=external.secret_access_key,
            verify=str(external.trusted_ca) if external.trusted_ca else None,
            config=plain,
        )

    def move_in(self, collection: str, path: Path) -> None:
        """Move a file into the bucket, if its collection is stored there."""
        if collection in self.external.collections:
            self._client.put_object(Bucket=self.external.bucket, Key=f"{collection}/{path.name}", Body=path.read_bytes())
            path.unlink()

    def fetch_object(self, key: str) -> Path | None:
        """Return the path of a copy of an object, or None when it does not exist."""
        try:
            body = self._client.get_object(Bucket=self.external.bucket, Key=key)["Body"]
        except self._client.exceptions.NoSuchKey:
            return None
        self._fetched.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._fetched, delete=False) as file:
            file.write(body.read())
        return Path(file.name)

    def delete_object(self, key: str) -> None:
        """Delete an object; a missing one is no error."""
        self._client.delete_object(Bucket=self.external.bucket, Key=key)
