"""What a file is, told from its content: so that a wrong file is refused with the right name."""

from __future__ import annotations

import mmap

HDF5 = "HDF5"
NET = "a net or its weights in binary form (.caffemodel)"
STATE = "a solver state (.solverstate)"
BLOB = "a single blob, such as a mean image (.binaryproto)"
TEXT = "text"
EMPTY = "an empty file"
UNKNOWN = "in no format that is known here"
ZIP = "a ZIP archive, as PyTorch (.pth) and NumPy (.npz) write"
PICKLE = "a Python pickle (.pth, .pkl), which could run code when read"
SAFETENSORS = "a safetensors file"

_MAGIC = (
    (b"\x89HDF\r\n\x1a\n", HDF5),
    (b"PK\x03\x04", ZIP),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"version https://git-lfs", "only a Git LFS pointer, not the file it stands for"),
    (b"<!DOCTYPE", "an HTML page"),
    (b"<html", "an HTML page"),
)
_HEAD = 4096


def recognise(view: memoryview | mmap.mmap | bytes) -> str:
    """One of the constants of this module, or words for something else, from a file's content."""
    head = bytes(view[:_HEAD])
    if not head:
        return EMPTY
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return PICKLE
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**27:
        return SAFETENSORS
    if _is_text(head):
        return TEXT
    return _recognise_message(head)


def _is_text(head: bytes) -> bool:
    if any(byte < 0x20 and byte not in b"\t\n\r\f" for byte in head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > _HEAD - 4  # the head ends within a character
    return True


def _recognise_message(head: bytes) -> str:
    """Tell the messages apart by the numbers and wire types of their first field."""
    number, kind = head[0] >> 3, head[0] & 7
    if number == 1 and kind == 0:
        # SolverState.iter or BlobProto.num: a string or a number follows
        position = 1
        while position < len(head) and head[position] & 0x80:
            position += 1
        following = head[position + 1 : position + 2]
        return BLOB if following and following[0] in (0x10, 0x18, 0x20, 0x2A) else STATE
    if head[:2] == b"\xa2\x06" or (kind == 2 and number in (1, 2, 3)):
        return NET
    if kind == 2 and number in (5, 7):
        return BLOB
    if kind == 0 and number == 5:
        return NET
    return UNKNOWN
