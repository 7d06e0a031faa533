"""Reads torch's pickles as descriptions. What a pickle would call is written down, and nothing is called.

So no code in a file can run, whatever the version of torch. A file cannot use much memory either: the steps of a
pickle, its texts and the names in it are bounded before any tensor is made.

Both layouts of `torch.save` are read: today's zip file, and the first layout with five pickles and the numbers after
them.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from embedding_estimate.errors import EmbeddingError, shortened
from embedding_estimate.files import provenance
from embedding_estimate.files.formats import numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_PICKLE = provenance.MOST + 2**20  # bytes of a pickle without its numbers
MOST = MOST_PICKLE + 8 * 2**20  # bytes of a file; 75 vectors of SD3's three encoders in double precision take 4 * 2**20
MOST_STEPS = 10_000  # of a pickle; an embedding's takes a hundred
MOST_ENTRIES = 1_000  # in a zip file
MOST_DIMENSIONS = 8  # of a tensor

ZIP = b"PK\3\4"
FIRST_LAYOUT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # its first pickle, a number that marks it

DTYPES = {
    f"torch {kind}Storage": name
    for kind, name in {
        "Float": "float32",
        "Half": "float16",
        "BFloat16": "bfloat16",
        "Double": "float64",
        "Long": "int64",
        "Int": "int32",
        "Short": "int16",
        "Char": "int8",
        "Byte": "uint8",
        "Bool": "bool",
    }.items()
}
TENSOR = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor")
PARAMETER = "torch._utils _rebuild_parameter"
DICTIONARY = "collections OrderedDict"
PARAMETERS = "torch.nn.modules.container ParameterDict"  # of the first embeddings ever
# Allowed but not used: numpy's numbers, which some tools write for the step, and parts of a ParameterDict.
UNREAD = (
    *("numpy dtype", "numpy.core.multiarray scalar", "numpy._core.multiarray scalar", "_codecs encode"),
    *("__builtin__ set", "builtins set"),
)
KNOWN = frozenset({*DTYPES, *TENSOR, PARAMETER, DICTIONARY, PARAMETERS, *UNREAD})


@dataclass(eq=False)
class Call:
    """A call that a pickle describes, with its arguments. `state` is what the pickle puts into the result."""

    function: str  # "module name"
    arguments: tuple[Any, ...]
    state: Mapping[str | int, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Storage:
    """The numbers behind one or more tensors. The file keeps them under `key`."""

    key: str
    type_name: str  # one of DTYPES

    @property
    def item_size(self) -> int:
        """Bytes of one number."""
        return numbers.size(self.type_name)


@dataclass(frozen=True)
class Saved:
    """The description of what `torch.save` was given, and the numbers of its tensors."""

    value: Any
    numbers: Callable[[Storage], bytes]

    def array(self, call: Any) -> NDArray[Any] | None:
        """The numbers of the tensor that a call describes; None if it describes none.

        Raises `EmbeddingError` for a tensor of more numbers than the file holds.
        """
        if not isinstance(call, Call) or call.function not in TENSOR:
            return None
        storage, offset, shape, stride = call.arguments[:4]
        if len(shape) > MOST_DIMENSIONS:
            raise EmbeddingError(
                f"holds a tensor of {len(shape)} dimensions, but vectors have 2; choose an embedding file"
            )
        count, held = math.prod(shape), self.numbers(storage)
        if count * storage.item_size > len(held):
            raise EmbeddingError("claims more numbers than it holds; get another copy")
        placed: NDArray[Any] = numbers.array(held, storage.type_name)[_places(offset, shape, stride)]
        return placed


def _places(offset: int, shape: Sequence[int], stride: Sequence[int]) -> NDArray[np.int64]:
    """Where the numbers of a tensor are in its storage. A place beyond the storage is found by who looks there."""
    if min((offset, *shape, *stride)) < 0:
        raise ValueError("places before the first")
    places = np.full((), offset, np.int64)
    for size, step in zip(shape, stride, strict=True):
        places = places[..., None] + step * np.arange(size)
    return places


def saved(data: bytes) -> Saved:
    """The content of a file. Raises `EmbeddingError`, without the file's name, for what no embedding holds.

    A damaged file raises what Python raises for it.
    """
    return _zipped(data) if data.startswith(ZIP) else _in_first_layout(data)


def _zipped(data: bytes) -> Saved:
    # counts the entries by their mark, without reading a list that is too long
    if data.count(b"PK\1\2") > MOST_ENTRIES:
        raise EmbeddingError("is a zip file of more entries than an embedding has; choose an embedding file")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > len(data) or any(entry.compress_type for entry in archive.infolist()):  # torch does not compress
            raise EmbeddingError(f"unpacks to {unpacked} bytes, more than torch would put into it; get another copy")
        contents = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    pickles = [name for name in contents if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise EmbeddingError("is a zip file that torch has not written; choose an embedding file")
    folder = pickles[0].removesuffix("data.pkl")
    if contents.get(f"{folder}byteorder") == b"big":
        raise EmbeddingError(
            "was written on a big-endian machine, which cannot be read here; save it again on another machine"
        )
    value = described(io.BytesIO(contents[pickles[0]]))
    return Saved(value, lambda storage: contents[f"{folder}data/{storage.key}"])


def _in_first_layout(data: bytes) -> Saved:
    """The first layout: a mark, a version, facts about the system, the value, the keys of the storages, and the
    numbers."""
    file = io.BytesIO(data)
    storages: dict[str, Storage] = {}
    _mark, _version, _system = (described(file) for _ in range(3))
    value = described(file, storages)
    places: dict[str, tuple[int, int]] = {}
    for key in described(file):
        (count,) = struct.unpack("<q", file.read(8))
        size = count * storages[key].item_size
        places[key] = (file.tell(), file.tell() + size)
        if not 0 <= size <= len(data) - file.tell():
            raise EOFError("numbers are missing")
        file.seek(size, io.SEEK_CUR)
    return Saved(value, lambda storage: data[slice(*places[storage.key])])


def described(file: io.BytesIO, storages: dict[str, Storage] | None = None) -> Any:
    """The value of the next pickle in a file. Everything but text, numbers, lists and dicts is a `Call`.

    `storages` receives the storages that the pickle mentions, by key.
    """
    start = file.tell()
    pickle = io.BytesIO(file.read(MOST_PICKLE))
    description = _Description({} if storages is None else storages)
    for step, (operation, argument, _) in enumerate(pickletools.genops(pickle)):
        if step >= MOST_STEPS:
            raise EmbeddingError("has more parts than an embedding; choose an embedding file")
        description.take(operation.name, argument)
    file.seek(start + pickle.tell())
    (value,) = description.stack
    return value


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": _MARK}
_LITERALS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING")
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Description:
    """Python's pickle machine (`pickletools` explains it) for the operations that torch writes. It calls nothing."""

    def __init__(self, storages: dict[str, Storage]):
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages = storages
        self._operations: Mapping[str, Callable[[], None]] = {
            "EMPTY_DICT": lambda: self.stack.append({}),
            "EMPTY_LIST": lambda: self.stack.append([]),
            "TUPLE": lambda: self.stack.append(tuple(self._since_mark())),
            "APPEND": lambda: self._append([self.stack.pop()]),
            "APPENDS": lambda: self._append(self._since_mark()),
            "SETITEM": lambda: self._set(self._last(2)),
            "SETITEMS": lambda: self._set(self._since_mark()),
            "REDUCE": self._call,
            "NEWOBJ": self._call,
            "BUILD": self._build,
            "BINPERSID": self._storage,
            "PROTO": lambda: None,
            "STOP": lambda: None,
        }

    def take(self, operation: str, argument: Any) -> None:
        """Performs one operation. Raises KeyError for an operation that torch does not write."""
        if operation in _LITERALS:
            self.stack.append(argument)
        elif operation in _CONSTANTS:
            self.stack.append(_CONSTANTS[operation])
        elif operation in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif operation in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif operation == "GLOBAL":
            self.stack.append(_known(argument))
        elif operation in _TUPLES:
            self.stack.append(tuple(self._last(_TUPLES[operation])))
        else:
            self._operations[operation]()

    def _last(self, count: int) -> list[Any]:
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def _since_mark(self) -> list[Any]:
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _append(self, values: list[Any]) -> None:
        self.stack[-1].extend(values)

    def _set(self, values: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(target, dict) or not isinstance(key, (str, int)):
                raise TypeError("entries by something else than text or numbers")
            target[key] = value

    def _call(self) -> None:
        function, arguments = self._last(2)
        if function == PARAMETER:
            self.stack.append(arguments[0])
        elif function == DICTIONARY and not arguments:
            self.stack.append({})
        elif isinstance(function, str) and isinstance(arguments, tuple):
            self.stack.append(Call(function, arguments))
        else:
            raise TypeError("a call of nothing")

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Call) and isinstance(state, dict):
            self.stack[-1].state = state

    def _storage(self) -> None:
        kind, dtype, key, _device, _count, *view = self.stack.pop()
        if kind != "storage" or not isinstance(key, str) or any(view):
            raise EmbeddingError(
                "stores its numbers in a way that cannot be read here; save it again with another tool"
            )
        self.storages[key] = Storage(key, DTYPES[dtype])
        self.stack.append(self.storages[key])


def _known(name: str) -> str:
    """The name, if an embedding may contain it. Raises `EmbeddingError` for every other name, as of code."""
    if name not in KNOWN:
        raise EmbeddingError(
            f"holds {shortened(name.replace(' ', '.'))}, which may be code and was not read; get another copy"
        )
    return name
