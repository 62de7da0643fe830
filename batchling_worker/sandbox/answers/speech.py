"""Speech: an answer as audio, or as events that carry the audio in pieces."""

from __future__ import annotations

import base64
import hashlib
import io
import wave
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from . import streams
from .answers import UNKNOWN_MODEL_PREFIX, Answer, Problem, tokens

ENDPOINT: Final = "/v1/audio/speech"
_TYPES: Final[Mapping[str, str]] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "ogg": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "mulaw": "audio/basic",
    "pcm": "audio/pcm",
    "raw": "audio/pcm",
}
_HEADS: Final = {"opus": b"OggS", "ogg": b"OggS", "aac": b"\xff\xf1", "flac": b"fLaC"}
_SILENT_FRAME: Final = b"\xff\xfb\x90\x64" + bytes(413)
"""One frame of MPEG-1 layer 3 at 128 kbit/s and 44.1 kHz."""
_RATE: Final = 24_000
_PIECES: Final = 3


class _Asked(msgspec.Struct, frozen=True):
    model: str = ""
    input: str = ""
    voice: str | dict[str, str] | None = None
    response_format: str | None = None
    stream: bool | None = None
    stream_format: str | None = None


class Spoken(msgspec.Struct, frozen=True):
    """The format in which a speech answer is sent."""

    audio: bytes
    content_type: str
    asked: str
    events: bool
    raw_events: bool

    def pieces(self, n_in: int, n_out: int) -> Iterator[bytes]:
        """Yield the server-sent events that carry the audio, in OpenAI's or in Together's shape."""
        size = len(self.audio) // _PIECES + 1
        parts = [self.audio[start : start + size] for start in range(0, len(self.audio), size)]
        encoded = [base64.b64encode(part).decode() for part in parts]
        if self.raw_events:
            for part in encoded:
                yield streams.sse({"object": "audio.tts.chunk", "model": self.asked, "b64": part})
            yield b"data: [DONE]\n\n"
            return
        for part in encoded:
            yield streams.sse({"type": "speech.audio.delta", "audio": part})
        usage = {"input_tokens": n_in, "output_tokens": n_out, "total_tokens": n_in + n_out}
        yield streams.sse({"type": "speech.audio.done", "usage": usage})


def perform(body: bytes | msgspec.Raw, usual: str) -> tuple[Spoken, Answer] | Problem:
    """Return a call's audio, in the format it asks for or the provider's default, and the billed tokens."""
    try:
        asked = msgspec.json.decode(body, type=_Asked)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Problem(400, None, f"The request body is invalid: {error}.")
    for name in ("model", "input", "voice"):
        if not getattr(asked, name):
            return Problem(400, "missing_required_parameter", f"Missing required parameter: '{name}'.")
    if asked.model.startswith(UNKNOWN_MODEL_PREFIX):
        return Problem(404, "model_not_found", f"The model `{asked.model}` does not exist.")
    wanted = asked.response_format or usual
    if wanted not in _TYPES:
        return Problem(400, "invalid_value", f"Invalid value: '{wanted}' for 'response_format'.")
    audio = sound(asked.input, wanted)
    spoken = Spoken(
        audio=audio,
        content_type=_TYPES[wanted],
        asked=asked.model,
        events=asked.stream is True or asked.stream_format == "sse",
        raw_events=asked.stream is True,
    )
    return spoken, Answer({}, tokens(asked.input), len(audio) // 100)


def sound(text: str, wanted: str) -> bytes:
    """Return quiet audio whose length and noise depend on the text."""
    noise = bytes(
        value % 4 for value in hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(2400)
    )
    if wanted == "mp3":
        return _SILENT_FRAME * (len(text) // 10 + 1)
    if wanted == "wav":
        written = io.BytesIO()
        with wave.open(written, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(_RATE)
            file.writeframes(noise)
        return written.getvalue()
    return _HEADS.get(wanted, b"") + noise
