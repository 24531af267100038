"""An answer in one process, its tests in another: what they say to each other.

Plain data go by value, as JSON; every other object stays with the answer, and the tests hold a
`Far` one in its place, whose operations are carried out where the object is. So an object with an
`__eq__` of its own is judged by it, as where the tests run beside it; but nothing that an answer
does can reach the process in which the tests come to their end. What the answer changes in a
list, dictionary or set that it was given is changed there too.
"""

from __future__ import annotations

import builtins
import json
import math
import operator
import os
import struct
from collections.abc import Callable
from typing import Any

LARGEST = 1 << 26
"""Bytes of a message."""
EXACT = 1 << 53
"""Whole numbers from here on go in hexadecimal."""

_UNARY = "len iter next bool str repr hash int float complex bytes round reversed abs"
_BINARY = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift"
_COMPARED = "eq ne lt le gt ge contains getitem setitem delitem neg pos invert index"
OPERATIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(builtins, name) for name in _UNARY.split()},
    **{
        name: getattr(operator, f"__{name}__")
        for name in (*_BINARY.split(), *_COMPARED.split(), "call")
    },
    "divmod": divmod, "format": format, "trunc": math.trunc, "floor": math.floor,
    "ceil": math.ceil, "getattr": getattr, "setattr": setattr, "isinstance": isinstance,
    "enter": lambda manager: manager.__enter__(),
    "exit": lambda manager, *error: manager.__exit__(None, None, None),
}  # fmt: skip
"""What may be asked of an answer's objects, by name."""

Message = dict[str, Any]


class Gone(Exception):
    """The other process closed its end."""


class Link:
    """Messages between two processes: length-prefixed JSON on two pipes."""

    def __init__(self, receive: int, send: int) -> None:
        self.receive, self._send = receive, send

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.receive)
        os.close(self._send)

    def write(self, message: Any) -> None:
        """Raises Gone."""
        body = json.dumps(message).encode()
        data = memoryview(struct.pack("!I", len(body)) + body)
        try:
            while data:
                data = data[os.write(self._send, data) :]
        except BrokenPipeError:
            raise Gone from None

    def read(self) -> Any:
        """Raises Gone; MemoryError for a message that is too long."""
        (length,) = struct.unpack("!I", self._exactly(4))
        if length > LARGEST:
            raise MemoryError
        return json.loads(self._exactly(length))

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            piece = os.read(self.receive, length - len(data))
            if not piece:
                raise Gone
            data += piece
        return data


class Given:
    """The containers that a call gives the answer, in the order in which they are packed."""

    def __init__(self) -> None:
        self.containers: list[Any] = []
        self.places: dict[int, int] = {}

    def add(self, container: Any) -> None:
        """The next one."""
        self.places[id(container)] = len(self.containers)
        self.containers.append(container)


class Side:
    """Values to JSON and back, as both sides do it; what stays where it is is each side's own."""

    gives = False
    """Whether containers that are packed here are given, or those that are unpacked."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def pack(self, value: Any, given: Given) -> Any:
        """`value` as JSON: what is already in `given` by its place there."""
        kind = type(value)
        if value is None or kind in (bool, str, float):
            return value
        if kind is int:
            return value if -EXACT < value < EXACT else {"int": hex(value)}
        if id(value) in given.places:
            return {"given": given.places[id(value)]}
        if kind in (list, dict, set, bytearray) and self.gives:
            given.add(value)
        if kind in (list, dict, set, bytearray, tuple, frozenset, bytes):
            return {kind.__name__: self.pack_contents(value, given)}
        if kind is complex:
            return {"complex": [value.real, value.imag]}
        return self.pack_object(value)

    def pack_call(self, arguments: Any, named: dict[str, Any], given: Given) -> Message:
        """What a function is called with, those by position and those by name."""
        return {
            "arguments": [self.pack(each, given) for each in arguments],
            "named": {name: self.pack(each, given) for name, each in named.items()},
        }

    def unpack_call(self, message: Message, given: Given) -> tuple[list[Any], dict[str, Any]]:
        """The inverse of the other side's."""
        arguments = [self.unpack(each, given) for each in message["arguments"]]
        named = message.get("named", {})
        return arguments, {name: self.unpack(each, given) for name, each in named.items()}

    def pack_contents(self, container: Any, given: Given) -> Any:
        """What stands in a container."""
        if isinstance(container, bytes | bytearray):
            return container.hex()
        if isinstance(container, dict):
            return [
                (self.pack(key, given), self.pack(value, given)) for key, value in container.items()
            ]
        return [self.pack(each, given) for each in container]

    def unpack(self, value: Any, given: Given) -> Any:
        """The inverse of the other side's `pack`."""
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        match kind:
            case "given":
                return given.containers[content]
            case "int":
                return int(content, 16)
            case "complex":
                return complex(*content)
            case "bytes":
                return bytes.fromhex(content)
            case "tuple" | "frozenset":
                return getattr(builtins, kind)([self.unpack(each, given) for each in content])
            case "list" | "dict" | "set" | "bytearray":
                container = getattr(builtins, kind)()
                if not self.gives:
                    given.add(container)
                self.fill(container, content, given)
                return container
            case _:
                return self.unpack_object(kind, content)

    def fill(self, container: Any, content: Any, given: Given) -> None:
        """Let the packed contents stand in a container, and nothing else."""
        if isinstance(container, bytearray):
            container[:] = bytes.fromhex(content)
        elif isinstance(container, dict):
            pairs = [(self.unpack(key, given), self.unpack(value, given)) for key, value in content]
            container.clear()
            container.update(pairs)
        else:
            items = [self.unpack(each, given) for each in content]
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(items)

    def pack_object(self, value: Any) -> Any:
        """What is no plain data."""
        raise NotImplementedError

    def unpack_object(self, kind: str, content: Any) -> Any:
        """The other side's `pack_object`."""
        raise NotImplementedError
