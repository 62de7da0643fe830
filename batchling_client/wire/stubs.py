"""Typed stubs of the Lua scripts. A script's header declares what it takes and answers; a stub adds the types.

`script` compares the names of a stub with the header when the module of the stub is imported, and sends the arguments
in the header's order. docs/changing-a-script.md describes the header.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from operator import attrgetter
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias, TypeVar, get_args

import msgspec
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from .keys import Keys

P = ParamSpec("P")
R = TypeVar("R")

Arg: TypeAlias = str | bytes | int
Given: TypeAlias = Mapping[str, Any]
Part: TypeAlias = Callable[[Keys, Given], Sequence[Any]]
"""What one entry of a header adds to KEYS or ARGV."""

_LUA: Final = files(__package__) / "lua"
_INCLUDE: Final = re.compile(r"^--@include (\w+)$", re.MULTILINE)
_HEADER: Final = re.compile(r"(?:--(?!@).*\n)+")
_SECTION: Final = re.compile(r"^-- (KEYS|ARGV|Verdict)s?(  .*(?:\n--  +.*)*)", re.MULTILINE)
_REMARK: Final = re.compile(r"\s\([^()]*\)")
_ENTRY: Final = re.compile(
    r"  (?P<number>\d+) (?P<name>[\w.]+)(?:\((?P<of>\w+)\))?"
    r"|for +each +of +(?P<many>\w+)(?:: +(?P<names>\w+(?:, +\w+)*))?"
)
_WORD: Final = re.compile(r"'([A-Z_]+)'")
_NAMES: Final = Keys("")
"""Tells which keys of a deployment there are; its own names are used for nothing."""


@functools.cache
def _text(name: str) -> str:
    return (_LUA / f"{name}.lua").read_bytes().decode()


@functools.cache
def source(name: str) -> str:
    """Return the text of a script with its includes; each included file defines local functions only."""
    return _INCLUDE.sub(lambda match: _text(match[1]), _text(name))


@functools.cache
def _sha(name: str) -> str:
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fsync:
    """On whose disks a write must be before it counts, besides Redis' own, and how long that is waited for."""

    replicas: int
    within_ms: int


class HeaderMismatch(TypeError):
    """A stub and the header of its script differ."""


class Stubs:
    """Runs scripts on the keys of one deployment. Every stub raises redis-py's own errors when Redis is away."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.redis = redis
        self.keys = keys

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """Run a script by its name; its text is sent only to a server that does not know it."""
        try:
            return await self.redis.evalsha(_sha(name), len(keys), *keys, *args)
        except NoScriptError:
            return await self.redis.eval(source(name), len(keys), *keys, *args)

    async def run_to_disk(self, name: str, keys: Sequence[str], args: Sequence[Arg], fsync: Fsync) -> Any:
        """Run a script; answer NOT_ON_DISK instead of OK if it is not confirmed that its writes are on disk."""
        for text in (("EVALSHA", _sha(name)), ("EVAL", source(name))):
            # WAITAOF covers the writes of its own connection, so both go into one pipeline.
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.execute_command(*text, len(keys), *keys, *args)
                pipe.execute_command("WAITAOF", 1, fsync.replicas, fsync.within_ms)
                reply, on_disk = await pipe.execute(raise_on_error=False)
            if not isinstance(reply, NoScriptError):
                break
        if isinstance(reply, Exception):
            raise reply
        confirmed = not isinstance(on_disk, Exception) and on_disk[0] >= 1 and on_disk[1] >= fsync.replicas
        return b"NOT_ON_DISK" if reply == b"OK" and not confirmed else reply


S = TypeVar("S", bound=Stubs)
Stub: TypeAlias = Callable[Concatenate[S, P], Coroutine[Any, Any, R]]


def script(
    verdicts: object = None, *, read: Callable[..., Any] | None = None
) -> Callable[[Stub[S, P, R]], Stub[S, P, R]]:
    """Make a stub call the script of its name; raise `HeaderMismatch` if it is not what the script's header declares.

    `verdicts` is the Literal of the script's verdicts. `read` makes the stub's result where it is more than a verdict:
    of the verdict and what follows it in the reply, or of the reply if the script answers no verdict. A stub with the
    parameter `fsync` waits for the disk if it is given.
    """
    words: Mapping[bytes, object] = {verdict.value.encode(): verdict for verdict in get_args(verdicts)}

    def result(reply: Any) -> Any:
        if not words:
            return read(reply) if read else reply
        return read(words[reply[0]], *reply[1:]) if read else words[reply]

    def declare(stub: Stub[S, P, R]) -> Stub[S, P, R]:
        name = stub.__name__
        call = _Call(stub, get_args(verdicts))

        @functools.wraps(stub)
        async def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            given = {**call.defaults, **dict(zip(call.names, args, strict=False)), **kwargs}
            if given.keys() != call.taken:
                raise TypeError(f"{name}() takes {', '.join(call.names)}")
            keys = [key for part in call.keys for key in part(self.keys, given)]
            sent = [arg for part in call.args for arg in part(self.keys, given)]
            fsync = given.get("fsync")
            if fsync is None:
                reply = await self.run(name, keys, sent)
            else:
                reply = await self.run_to_disk(name, keys, sent, fsync)
            answer: R = result(reply)
            return answer

        return run

    return declare


class _Call:
    """How the arguments of a stub become the KEYS and ARGV of its script."""

    def __init__(self, stub: Callable[..., Any], verdicts: Sequence[Any]) -> None:
        code, defaults = stub.__code__, stub.__defaults__ or ()
        positional = code.co_varnames[1 : code.co_argcount]
        self._script = stub.__name__
        self.names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
        self.taken = {*self.names}
        self.defaults: Given = {
            **dict(zip(reversed(positional), reversed(defaults), strict=False)),
            **(stub.__kwdefaults__ or {}),
        }
        self._unused = self.taken - {"fsync"}
        header = _HEADER.match(_text(self._script))
        sections = dict(_SECTION.findall(header[0] if header else ""))
        self.keys = self._parts(sections.get("KEYS", ""), self._key, self._keys_of_each)
        self.args = self._parts(sections.get("ARGV", ""), self._arg, self._args_of_each)
        words = {*_WORD.findall(sections.get("Verdict", ""))}
        if self._unused:
            raise self._mismatch(f"takes no {', '.join(sorted(self._unused))}")
        if words != {verdict.value for verdict in verdicts}:
            raise self._mismatch(f"answers {', '.join(sorted(words))}")

    def _mismatch(self, what: str) -> HeaderMismatch:
        return HeaderMismatch(f"{self._script}.lua {what}: its stub says otherwise")

    def _parts(
        self,
        section: str,
        one: Callable[[str, str | None], Part],
        each: Callable[[str, Sequence[str]], Part],
    ) -> list[Part]:
        text = _REMARK.sub("", section.replace("\n--", " "))
        parts: list[Part] = []
        for n, entry in enumerate(_ENTRY.finditer(text), start=1):
            if entry["many"]:
                self._use(entry["many"])
                parts.append(each(entry["many"], re.findall(r"\w+", entry["names"] or "")))
            elif int(entry["number"]) != n:
                raise self._mismatch(f"has no entry {n}")
            else:
                parts.append(one(entry["name"], entry["of"]))
        return parts

    def _use(self, name: str) -> str:
        if name not in self.names:
            raise self._mismatch(f"takes {name}")
        self._unused.discard(name)
        return name

    def _key(self, word: str, of: str | None) -> Part:
        if isinstance(getattr(_NAMES, word), str):
            return lambda keys, given: (getattr(keys, word),)
        name = self._use(of or _named_by(word))
        return lambda keys, given: (getattr(keys, word)(given[name]),)

    def _keys_of_each(self, many: str, words: Sequence[str]) -> Part:
        ids = [(word, _named_by(word)) for word in words]

        def part(keys: Keys, given: Given) -> Sequence[str]:
            makers = [(getattr(keys, word), name) for word, name in ids]
            return [
                make(item if isinstance(item, str) else getattr(item, name))
                for item in given[many]
                for make, name in makers
            ]

        return part

    def _arg(self, name: str, of: str | None) -> Part:
        owner, _, field = name.partition(".")
        seconds = name.removesuffix("ms") + "s"
        if field:
            value = attrgetter(field)
            self._use(owner)
            return lambda keys, given: (value(given[owner]),)
        if name not in self.names and name.startswith("n_"):
            many = self._use(name.removeprefix("n_"))
            return lambda keys, given: (len(given[many]),)
        if name not in self.names and seconds in self.names:
            self._use(seconds)
            return lambda keys, given: (int(given[seconds] * 1000),)
        if name not in self.names and isinstance(getattr(_NAMES, name, None), str):
            return lambda keys, given: (getattr(keys, name),)
        self._use(name)
        return lambda keys, given: (_sent(given[name]),)

    def _args_of_each(self, many: str, names: Sequence[str]) -> Part:
        if not names:
            return lambda keys, given: given[many]
        fields = attrgetter(*names)
        return lambda keys, given: [value for item in given[many] for value in fields(item)]


def _named_by(word: str) -> str:
    """Return what a key is named by, such as `batch_id`."""
    name: str = getattr(Keys, word).__code__.co_varnames[1]
    return name


def _sent(value: Any) -> Arg:
    """Return an argument as it is sent: 1 or 0 for a bool, JSON for a struct, several words joined by commas."""
    match value:
        case bool():
            return int(value)
        case str() | bytes() | int():
            return value
        case None:
            return b""
        case msgspec.Struct():
            encode: Callable[[], bytes] | None = getattr(value, "encode", None)
            return msgspec.json.encode(value) if encode is None else encode()
        case _:
            return ",".join(value)
