"""A bucket of a moto server, and calls whose screen files lie in it."""

from __future__ import annotations

from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from muxer.lab.build import AddedCall
from muxer.lab.lab import Lab

NAME = "recordings"


class Bucket:
    """A store with one bucket: ``with Bucket() as bucket``. Its ``url`` is plain http."""

    def __enter__(self) -> Bucket:
        self._server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
        self._client: Any = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **keys)
        self._client.create_bucket(Bucket=NAME)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def keys(self) -> list[str]:
        """Return the keys of what the bucket holds."""
        return [one["Key"] for one in self._client.list_objects_v2(Bucket=NAME).get("Contents", [])]

    def take_screen(self, lab: Lab, call: AddedCall) -> None:
        """Move the screen file of a call from WebDAV into the bucket, and its metadata with it."""
        name = call.screens[0].media_id
        path = lab.site.media.folder / "screens" / name
        self._client.put_object(Bucket=NAME, Key=f"screens/{name}", Body=path.read_bytes())
        path.unlink()
        media = (lab.store.screen(call.id) or {})["mediaFiles"][0]
        media["originalMediaDescriptor"] = {"storage": "awsS3", "path": f"screens/{name}", "data": {"bucket": NAME}}
        lab.store.add_screen_media(call.id, lab.region, media)
