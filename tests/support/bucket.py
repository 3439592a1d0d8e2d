"""A bucket of a moto server, and calls whose screen files are stored in it."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import boto3
import pytest
from moto import settings

from lab.build import AddedCall
from lab.lab import Lab
from tests.support.moto_server import moto_server

BUCKET_NAME = "recordings"


class MotoBucket:
    """A store with one bucket: ``with MotoBucket() as bucket``.

    Its `url` is plain http. It has one account, `key_id` with `secret`; with `checks_signatures` it refuses all others.
    """

    def __init__(self, checks_signatures: bool = False) -> None:
        self._checks, self._patch, self._stack = checks_signatures, pytest.MonkeyPatch(), ExitStack()

    def __enter__(self) -> MotoBucket:
        self.url = self._stack.enter_context(moto_server())
        self.key_id, self.secret = self._create_account()
        self._client = self._create_client("s3", self.key_id, self.secret)
        self._client.create_bucket(Bucket=BUCKET_NAME)
        if self._checks:
            self._patch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()
        self._stack.close()

    def _create_client(self, name: str, key_id: str, secret: str) -> Any:
        keys = {"aws_access_key_id": key_id, "aws_secret_access_key": secret}
        return boto3.client(name, endpoint_url=self.url, region_name="us-east-1", **keys)

    def _create_account(self) -> tuple[str, str]:
        iam, name = self._create_client("iam", "a", "b"), "muxer"
        iam.create_user(UserName=name)
        rights = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        iam.put_user_policy(UserName=name, PolicyName="s3", PolicyDocument=json.dumps(rights))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return key["AccessKeyId"], key["SecretAccessKey"]

    def list_keys(self) -> list[str]:
        """Return the keys of all objects in the bucket."""
        return [item["Key"] for item in self._client.list_objects_v2(Bucket=BUCKET_NAME).get("Contents", [])]

    def take_screen(self, lab: Lab, call: AddedCall) -> None:
        """Move the screen file of a call from WebDAV into the bucket and change its metadata accordingly."""
        name = call.screens[0].media_id
        path = lab.site.media.folder / "screens" / name
        self._client.put_object(Bucket=BUCKET_NAME, Key=f"screens/{name}", Body=path.read_bytes())
        path.unlink()
        media = (lab.store.get_screen(call.id) or {})["mediaFiles"][0]
        media["originalMediaDescriptor"] = {"storage": "awsS3", "path": f"screens/{name}", "data": {"bucket": BUCKET_NAME}}
        lab.store.add_screen_media(call.id, lab.region, media)
