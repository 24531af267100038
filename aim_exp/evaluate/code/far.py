"""The tests' side of an exchange: the answer's objects seem to be here, and nothing of it is."""

import importlib
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

from aim_exp.evaluate.code.exchange import OPERATIONS, Given, Link, Message, Side

_REFLECTED = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift divmod"


class Tests(Side):
    """The process of the tests."""

    gives = True

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._far: dict[int, Any] = {}
        self._callbacks: list[Callable[..., Any]] = []

    def names(self) -> dict[str, Any]:
        """The names that the answer defines. Raises what it raised; Gone."""
        return self._result(self.link.read(), Given())

    def ask(self, operation: str, *arguments: Any, **named: Any) -> Any:
        """Have the operation carried out where the objects are. Raises what it raises; Gone."""
        given = Given()
        self.link.write({"do": operation, **self.pack_call(arguments, named, given)})
        while "call" in (message := self.link.read()):
            self.link.write(self._called(message))
        for place, content in message.get("changed", ()):
            self.fill(given.containers[place], content, given)
        return self._result(message, given)

    def _called(self, message: Message) -> Message:
        try:
            function = self._callbacks[message["call"]]
            arguments, named = self.unpack_call(message, Given())
            return {"value": self.pack(function(*arguments, **named), Given())}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def _result(self, message: Message, given: Given) -> Any:
        if "error" not in message:
            return self.unpack(message["value"], given)
        kind = self.unpack(message["error"], given)
        arguments, _ = self.unpack_call(message, given)
        raise kind.__new__(kind, *arguments)

    def pack_object(self, value: Any) -> Any:
        """An object of the answer by its number; a function of the tests as one to call back."""
        number = _number(value)
        if number is not None:
            return {"near": number}
        if isinstance(value, FunctionType) and value.__module__ in ("__main__", None):
            self._callbacks.append(value)
            return {"callback": len(self._callbacks) - 1}
        import pickle  # only here: a fork copies what is imported

        return {"pickled": pickle.dumps(value).hex()}

    def unpack_object(self, kind: str, content: Any) -> Any:
        """A module, an exception's type, or an object that stays with the answer."""
        if kind == "module":
            return importlib.import_module(content) if _in_library(content) else None
        number, *place = content
        if number not in self._far:
            if kind == "exception":
                name, *place = place
                base = _known(*place)
                own = base.__name__ != name
                self._far[number] = type(name, (base,), {"_number": number}) if own else base
            else:
                self._far[number] = Far(self, number, _known(*place))
        return self._far[number]


class Far:
    """An object that is with the answer: whatever is done to it is done there."""

    __slots__ = ("_claim", "_number", "_tests")

    def __init__(self, tests: Tests, number: int, claim: type) -> None:
        object.__setattr__(self, "_tests", tests)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_claim", claim)

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What `isinstance` goes by."""
        return self._claim

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__array_"):  # memory that is not here
            raise AttributeError(name)
        return self._tests.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._tests.ask("setattr", self, name, value)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        """For numpy's functions."""
        import numpy

        return numpy.array(self.tolist(), dtype)

    def __instancecheck__(self, instance: Any) -> bool:
        return self._tests.ask("isinstance", instance, self)

    def __exit__(self, *error: Any) -> Any:
        return self._tests.ask("exit", self)


def _number(value: Any) -> int | None:
    """Of an object, or a type, that the answer has."""
    if type(value) is Far:
        return object.__getattribute__(value, "_number")
    return vars(value).get("_number") if isinstance(value, type) else None


def _forward() -> None:
    """Give `Far` the special methods of Python's operators."""

    def plain(operation: str) -> Callable[..., Any]:
        return lambda self, *rest, **named: self._tests.ask(operation, self, *rest, **named)

    def reflected(operation: str) -> Callable[..., Any]:
        return lambda self, other: self._tests.ask(operation, other, self)

    for operation in OPERATIONS.keys() - {"getattr", "setattr", "isinstance", "exit"}:
        setattr(Far, f"__{operation}__", plain(operation))
    for operation in _REFLECTED.split():
        setattr(Far, f"__r{operation}__", reflected(operation))


def _in_library(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def _known(module: str, name: str) -> Any:
    """A type of the standard library, by what the answer's process says of an object."""
    value = getattr(sys.modules.get(module), name, object) if _in_library(module) else object
    return value if isinstance(value, type) else object


_forward()
