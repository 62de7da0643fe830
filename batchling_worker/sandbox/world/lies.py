"""False answers of a provider that look right: status 200, well-formed, and untrue."""

from __future__ import annotations

from typing import Literal, TypeAlias

from .fault import FailingFault, Fault, RefusingFault

Call: TypeAlias = Literal["upload", "create", "look", "download"]
"""The calls of a batch's life; `look` retrieves one batch or lists batches."""


class StaleList(Fault):
    """In lists the batch stays as it was created for `seconds` (None = for ever); asked for by its id it moves on."""

    seconds: float | None = None


class ListWithOtherIds(Fault):
    """In lists the batch names result files that nobody has; asked for by its id it names its own."""


class ListWithoutFileIds(Fault):
    """In lists the batch names no result files; asked for by its id it does."""


class EmptyPage(Fault):
    """A page of the list is empty and says that there is more; its cursor leads to the page that was asked for."""

    cursor: bool = True
    """If false, the page names no cursor at providers where another field says that there is more."""


class GarbleDownload(Fault):
    """A file's content is something else, under 200 and with a fitting length."""

    what: Literal["html", "error", "nothing", "half", "half the lines"] = "html"
    """An HTML page, a JSON error object, zero bytes, the first half of the bytes, or the first half of the lines."""


class RefuseErrorFile(RefusingFault):
    """The batch names an error file, also where no row failed, and reading it is refused for `seconds`."""

    status: int = 404
    seconds: float | None = None
    """After the end of the batch; None = for ever."""


class FailInErrorFile(FailingFault):
    """Every row fails and the batch has failed without an error; the rows' errors are in its error file."""

    status: int = 400
    message: str = "The sandbox was told to fail this batch's rows."


class SayStatus(Fault):
    """The batch shows `word` in place of its status, once it has ended or while it runs."""

    word: str = "complete"
    when: Literal["ended", "running"] = "ended"


class BareErrors(Fault):
    """The batch's `errors` are a bare list, in place of an object that holds one; Groq was seen to do so."""


class DatedShape(Fault):
    """The batch looks as in samples of older versions: ISO times, a capital status, nulls for `endpoint` and counts."""


class StickCancel(Fault):
    """A cancel of the batch is accepted and comes to an end after `seconds` (None = never)."""

    seconds: float | None = None


class JunkRows(Fault):
    """`n` rows (None = all) succeed with a body that is not an answer."""

    n: int | None = 1
    what: Literal["echo", "error", "text", "failed"] = "echo"
    """The request itself, an error object, the answer as a text of JSON, or a response of status `failed`.

    All but `text` cost nothing.
    """


class VllmRows(FailingFault):
    """`n` rows (None = all) fail as vLLM's batch runner words it, in the output file."""

    status: int = 400
    message: str = "This model's maximum context length is 8192 tokens."
    what: Literal["text", "object", "number"] = "text"
    """A response with a null body beside an error that is a text or an object, or no response and a number as code."""


class RedirectCall(Fault):
    """A call is answered with a 307 to another path of the same host, which answers it."""

    call: Call = "download"


class OutOfMoney(Fault):
    """A call is refused as the provider refuses an account without money."""

    call: Call = "create"


class SkewClock(Fault):
    """The provider's clock is `seconds` ahead, or behind where negative: in every time it shows and in `Date`."""

    times: int | None = None
    seconds: float = -60.0
