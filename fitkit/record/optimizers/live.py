"""What every optimizer of a recorded step can be asked: its key, its stand-ins, its numbers."""

from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext

__all__ = ["Live"]


class Live:
    """One respect in which an optimizer depends on the host, made recordable.

    By default there is nothing to do.
    """

    def key(self) -> Hashable:
        """Return what the program depends on at the next step."""
        return ()

    def traced(self) -> AbstractContextManager[None]:
        """Let the optimizer take what a trace can follow, while the step is traced."""
        return nullcontext()

    def rehearse(self) -> None:
        """Run Python code of the user's that `fill` will run, before a trace."""

    def fill(self, read: frozenset[int]) -> None:
        """Write the host's numbers where a program is about to read them.

        Args:
            read: The ids of the tensors the program runs on.
        """

    def answer(self) -> bool | None:
        """Return the outcome of the truth test that is being traced, if it is known here."""
        return None

    def give_way(self) -> bool:
        """After a refusal: change the way of tracing, if there is another one to try."""
        return False

    def advice(self) -> str:
        """Return what to do about a refusal at APPLY, if that is known."""
        return ""
