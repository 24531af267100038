"""The answer's side of an exchange: it runs the answer, and then whatever the tests ask of it."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from aim_exp.evaluate.code.exchange import OPERATIONS, Given, Link, Message, Side

_LIBRARY = sys.stdlib_module_names
_PLACES = {
    list: lambda container: list(container),
    set: lambda container: list(container),
    bytearray: bytes,
    dict: lambda container: [*container, *container.values()],
}


class Near(Side):
    """The process of the answer. Objects that the tests have been told of are kept by number."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._kept: list[Any] = []
        self._numbers: dict[int, int] = {}

    def serve(self, run: Callable[[], dict[str, Any]]) -> None:
        """Tell the names that `run` gives, and answer the tests until they end. Raises Gone."""
        self.link.write(self._reply(run, Given()))
        while True:
            self.link.write(self._carry_out(self.link.read()))

    def _carry_out(self, request: Message) -> Message:
        given = Given()
        try:
            arguments, named = self.unpack_call(request, given)
        except Exception as error:  # what the tests pass is not known here
            return self._error(error)
        before = [_inside(container) for container in given.containers]
        operation = OPERATIONS[request["do"]]
        reply = self._reply(lambda: operation(*arguments, **named), given)
        changed = [
            (place, self.pack_contents(container, given))
            for place, container in enumerate(given.containers)
            if _differ(before[place], _inside(container))
        ]
        return {**reply, "changed": changed} if changed else reply

    def _reply(self, run: Callable[[], Any], given: Given) -> Message:
        try:
            return {"value": self.pack(run(), given)}
        except BaseException as error:
            return self._error(error)

    def _error(self, error: BaseException) -> Message:
        try:
            arguments = [self.pack(each, Given()) for each in error.args]
        except Exception:
            arguments = []
        return {"error": self.pack_object(type(error)), "arguments": arguments}

    def pack_object(self, value: Any) -> Any:
        """A module by name, an exception's type by its place in the library, a number else."""
        if isinstance(value, ModuleType) and value.__name__.partition(".")[0] in _LIBRARY:
            return {"module": value.__name__}
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._kept)
            self._kept.append(value)
        if isinstance(value, type) and issubclass(value, BaseException):
            return {"exception": [number, value.__name__, *_known(value)]}
        return {"far": [number, *_known(type(value))]}

    def unpack_object(self, kind: str, content: Any) -> Any:
        """An object of here, a function of the tests, or what the tests could pickle."""
        match kind:
            case "near":
                return self._kept[content]
            case "callback":
                return lambda *arguments, **named: self._call_back(content, arguments, named)
            case _:
                import pickle  # only here: a fork copies what is imported

                return pickle.loads(bytes.fromhex(content))  # of the tests, which are no answer

    def _call_back(self, number: int, arguments: Any, named: dict[str, Any]) -> Any:
        self.link.write({"call": number, **self.pack_call(arguments, named, Given())})
        while "do" in (message := self.link.read()):
            self.link.write(self._carry_out(message))
        if "error" in message:
            raise RuntimeError(message["error"])
        return self.unpack(message["value"], Given())


def _known(kind: type) -> tuple[str, str]:
    """The nearest type that the tests' process has too."""
    return next(
        (base.__module__, base.__qualname__)
        for base in kind.__mro__
        if base.__module__.partition(".")[0] in _LIBRARY
    )


def _inside(container: Any) -> Any:
    return _PLACES[type(container)](container)


def _differ(before: Any, after: Any) -> bool:
    """By identity: an answer's `__eq__` has no say here."""
    return len(before) != len(after) or any(a is not b for a, b in zip(before, after, strict=True))
