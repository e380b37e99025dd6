"""Where the tensors of an ONNX graph lie in its file, without onnx.

Reads what it needs of the protobuf encoding: fields of a number and a type,
the long ones with their length in front. The numbers are those of onnx.proto3,
which may not change. Must not know what the tensors are for.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from s3router.errors import FormatError

#: In a graph of layout "shared": suffix of the initialiser that has the mask
#: of a layer's weight, as packed bits.
MASK_BITS = ".mask_bits"
#: Suffix of the initialiser that has the scales of a weight of bytes.
SCALE = "_scale"
#: Of `TensorProto.DataType`, those that are used here.
FLOAT32, UINT8, INT8, FLOAT16 = 1, 2, 3, 10

# Numbers of fields.
_GRAPH, _INITIALIZER = 7, 5
_DIMS, _TYPE, _NAME, _RAW, _EXTERNAL = 1, 2, 8, 9, 13
_KEY, _VALUE = 1, 2
# Kinds of fields: a number, and bytes; the others have a fixed width.
_VARINT, _BYTES = 0, 2
_WIDTHS = {1: 8, 5: 4}


@dataclass
class TensorSpan:
    """An initialiser of a graph.

    Arguments
    ---------
    name : str
        Its name.
    dtype : int
        As in `TensorProto.DataType`.
    shape : tuple of int
        Its shape.
    start, stop : int
        Where its bytes lie in the file of the graph; 0 if they do not.
    external : dict
        Where else they lie: "location", "offset", "length", as text.
    """

    name: str
    dtype: int
    shape: tuple[int, ...]
    start: int
    stop: int
    external: dict[str, str]


def tensors(content: bytes) -> Iterator[TensorSpan]:
    """Yield the initialisers of a graph in the order of the file.

    Arguments
    ---------
    content : bytes
        Of the file of an ONNX model.

    Yields
    ------
    TensorSpan
        One initialiser.

    Raises
    ------
    FormatError
        If the bytes are no protobuf message.
    """
    for number, start, stop, _ in _fields(content, 0, len(content)):
        if number == _GRAPH:
            for inner, first, last, _ in _fields(content, start, stop):
                if inner == _INITIALIZER:
                    yield _tensor(content, first, last)


def _tensor(content: bytes, start: int, stop: int) -> TensorSpan:
    tensor, shape = TensorSpan("", 0, (), 0, 0, {}), []
    for number, first, last, value in _fields(content, start, stop):
        if number == _DIMS and value is None:
            while first < last:
                size, first = _varint(content, first, last)
                shape.append(size)
        elif number == _DIMS:
            shape.append(value)
        elif number == _TYPE:
            tensor.dtype = value or 0
        elif number == _NAME:
            tensor.name = _text(content, first, last)
        elif number == _RAW:
            tensor.start, tensor.stop = first, last
        elif number == _EXTERNAL:
            entry = {
                inner: _text(content, a, b)
                for inner, a, b, _ in _fields(content, first, last)
            }
            tensor.external[entry.get(_KEY, "")] = entry.get(_VALUE, "")
    tensor.shape = tuple(shape)
    return tensor


def _fields(
    content: bytes, start: int, stop: int
) -> Iterator[tuple[int, int, int, int | None]]:
    """Yield number, start, stop and, of numbers, the value of each field."""
    while start < stop:
        tag, start = _varint(content, start, stop)
        kind, value = tag & 7, None
        if kind == _VARINT:
            value, end = _varint(content, start, stop)
        elif kind == _BYTES:
            length, start = _varint(content, start, stop)
            end = start + length
        elif kind in _WIDTHS:
            end = start + _WIDTHS[kind]
        else:
            raise FormatError(f"no ONNX graph: field of kind {kind}")
        if end > stop:
            raise FormatError("no ONNX graph: a field is cut off")
        yield tag >> 3, start, end, value
        start = end


def _varint(content: bytes, start: int, stop: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and where it ends."""
    value = shift = 0
    while start < stop and shift < 70:
        byte = content[start]
        value |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            return value, start
    raise FormatError("no ONNX graph: a number is cut off")


def _text(content: bytes, start: int, stop: int) -> str:
    return content[start:stop].decode("utf-8", errors="replace")
