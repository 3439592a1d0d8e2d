"""Finds the storage for a location."""

from __future__ import annotations

from collections.abc import Mapping

from muxer.errors import Code, MetadataError
from muxer.storage.base import MediaLocation, Storage


class Stores:
    """The storages of the site."""

    def __init__(self, stores: Mapping[str, Storage]) -> None:
        """`stores` has the names of media descriptors as keys."""
        self._stores = dict(stores)

    def for_location(self, location: MediaLocation) -> Storage:
        """Return the storage of `location`. Raises MetadataError when it is unknown."""
        store = self._stores.get(location.storage)
        if store is None:
            raise MetadataError(
                f"{location.name} is in the storage {location.storage}, which is unknown", code=Code.BAD_DESCRIPTOR
            )
        return store

    def remove_leftovers(self) -> None:
        """Delete what unfinished uploads have left in the storages."""
        for store in self._stores.values():
            store.remove_leftovers()
