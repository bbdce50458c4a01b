"""Zarr's part of a run's store: arrays opened, made and written."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.buffer import cpu
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore, ObjectStore, WrapperStore

from distcluster.storage.layout import ROOT

Store = ObjectStore[Any]

_WHOLE: Any = {"write_empty_chunks": True}  # what is written is there, whatever it is: readers miss what is lost
_COMPRESSORS = (ZstdCodec(level=1), Crc32cCodec())


class WritingStore(WrapperStore[Store]):
    """For whole shards: there is nothing that zarr could read before, and the sizes of what it writes are kept."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.sizes: dict[str, int] = {}

    async def set(self, key: str, value: Any) -> None:
        """As the store's."""
        await super().set(key, value)
        self.sizes[key] = len(value)

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        """As the store's, but for chunks, which are not there."""
        return None if "/c/" in key else await super().get(key, *arguments, **options)


class StrictStore(WrapperStore[Store]):
    """Has no missing chunks: zarr would read the fill value in their place."""

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        """As the store's."""
        found = await super().get(key, *arguments, **options)
        if found is None and "/c/" in key:
            raise FileNotFoundError(f"{key} is missing")
        return found


def store_of(objects: Any) -> Store:
    """Obstore's store, as zarr wants it."""
    return ObjectStore(objects)


def set_attribute(store: Store, name: str, value: Any) -> None:
    """Replace an attribute of the root group."""
    zarr.open_group(store, mode="r+").attrs[name] = value


def open_array(store: Store, path: str) -> zarr.Array[Any]:
    """An array that is there."""
    return zarr.open_array(store, path=path, mode="r+", zarr_format=3)


def decode_whole(path: str, objects: Mapping[str, Any]) -> npt.NDArray[Any]:
    """The values of an array whose objects are all there, by key."""
    buffers: dict[str, Any] = {key: cpu.Buffer.from_bytes(content) for key, content in objects.items()}
    return np.asarray(zarr.open_array(MemoryStore(buffers), path=path, mode="r", zarr_format=3)[:])


def open_parts(store: WrapperStore[Store], path: str) -> zarr.Array[Any]:
    """An array that is filled in parts."""
    array = zarr.open_array(store, path=path, mode="r+", zarr_format=3)
    return array.with_config(_WHOLE)  # which is not a part of the metadata


def make_group(store: Store, path: str) -> None:
    """Make a group that may be there already."""
    zarr.open_group(store, path=path, mode="a", zarr_format=3)


def make_parts(
    store: Store, path: str, shape: tuple[int, ...], dtype: str, fill_value: float, chunk: int, shard: int,
    dimensions: Sequence[str],
) -> None:  # fmt: skip
    """Make an array that is filled in parts; ``chunk`` and ``shard`` count its first axis."""
    zarr.create_array(
        store,
        name=path,
        shape=shape,
        dtype=dtype,
        chunks=(chunk, *shape[1:]),
        shards=(shard, *shape[1:]),
        compressors=_COMPRESSORS,
        fill_value=fill_value,
        dimension_names=dimensions,
        config=_WHOLE,
    )


def encode_whole(path: str, values: npt.NDArray[Any], dimensions: Sequence[str]) -> dict[str, bytes]:
    """The objects of an array of one chunk and of the groups around it.

    Zarr would write one after the other, and look for old ones first.
    """
    found: dict[str, Any] = {}
    zarr.create_array(
        MemoryStore(found),
        name=path,
        data=values,
        chunks=tuple(max(length, 1) for length in values.shape),
        compressors=_COMPRESSORS,
        dimension_names=dimensions,
        config=_WHOLE,
    )
    return {key: content.to_bytes() for key, content in found.items() if key != ROOT}
