"""The storages of the site, by the name that media descriptors give them."""

from __future__ import annotations

from collections.abc import Mapping

from muxer.errors import Code, MetadataError
from muxer.storage.base import MediaLocation, Storage


class Stores:
    """Finds the storage for a place."""

    def __init__(self, stores: Mapping[str, Storage]) -> None:
        """Given the storages by the name that descriptors use."""
        self._stores = dict(stores)

    def for_location(self, place: MediaLocation) -> Storage:
        """Return the storage in which a place lies. Raise :class:`MetadataError` when there is none of its kind."""
        store = self._stores.get(place.storage)
        if store is None:
            raise MetadataError(
                f"{place.name} lies in the storage {place.storage}, which is unknown", code=Code.BAD_DESCRIPTOR
            )
        return store

    def remove_leftovers(self) -> None:
        """Delete what uploads that never ended have left in the storages."""
        for store in self._stores.values():
            store.remove_leftovers()
