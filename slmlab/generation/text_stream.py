"""From token ids to text that may be sent: whole characters, and nothing behind a stop text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokenizers.decoders import DecodeStream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class TextStream:
    """Turns ids into text as they come.

    A character may span several byte-level tokens, and a stop text several pieces; what may still
    become either is held back.

    Attributes:
        text: everything released so far.
        stopped: a stop text was met; ``text`` ends before it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, stop: Sequence[str] = ()) -> None:
        self.text = ""
        self.stopped = False
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._decoded = ""  # whole characters so far
        self._held = ""  # decoded, not released: it may begin a stop text

    def push(self, token: int) -> str:
        """The text that is final with this token, often empty."""
        self._ids.append(token)
        piece = self._step(token)
        self._decoded += piece
        return self._release(piece, last=False)

    def _step(self, token: int) -> str:
        """What the tokenizer's stream gives. Where a byte-fallback tokenizer takes back text that
        was handed out (a byte token, then one that makes both invalid) it raises a bare Exception:
        the stream then starts anew behind that text, which cannot be unsent."""
        for start in (None, self._ids[-2:-1], []):
            if start is not None:
                self._stream = DecodeStream(ids=start, skip_special_tokens=True)
            try:
                return self._stream.step(self._tokenizer.backend_tokenizer, token) or ""
            except Exception:
                continue
        self._stream = DecodeStream(skip_special_tokens=True)
        return ""

    def finish(self) -> str:
        """What was held back, once no token follows."""
        if self.stopped:
            return ""
        whole = str(
            self._tokenizer.decode(
                self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )
        rest = whole[len(self._decoded) :] if whole.startswith(self._decoded) else ""
        return self._release(rest, last=True)

    def _release(self, piece: str, last: bool) -> str:
        self._held += piece
        found = [at for at in map(self._held.find, self._stop) if at >= 0]
        if found:
            self.stopped = True
            released, self._held = self._held[: min(found)], ""
        else:
            keep = 0 if last else self._could_begin_a_stop()
            released = self._held[: len(self._held) - keep]
            self._held = self._held[len(released) :]
        self.text += released
        return released

    def _could_begin_a_stop(self) -> int:
        """Characters at the end of what is held that a stop text may start with."""
        longest = 0
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest
