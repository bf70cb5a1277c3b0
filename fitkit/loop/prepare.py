"""What happens before a `fit` begins: its arguments are checked, its limits set, a run resumed."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from fitkit.data import check_rereadable
from fitkit.errors import ConfigError
from fitkit.loop.budget import set_budget, stop_if_spent
from fitkit.loop.lifetime import begin_fit
from fitkit.loop.resume import prepare_resume
from fitkit.loop.setup import check_flags, check_trainable

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["prepare_fit"]


def prepare_fit(
    loop: "FitLoop",
    epochs: int | None,
    max_steps: int | None,
    max_time: float | None,
    resume: object,
    allow_changed: Collection[str],
) -> None:
    """Check the arguments of `fit`, set the limits, and restore what is to be resumed."""
    _check_not_running(loop)
    if loop.train_loader is None:
        raise ConfigError(
            "fit() was called on a loop without a train_loader\n"
            "Pass one: FitLoop(model, train_loader)."
        )
    check_flags()
    check_trainable(loop.model)
    begin_fit(loop.state)
    set_budget(loop.state, epochs, max_steps, max_time, total=resume is not None)
    if epochs is not None and epochs > 1 and max_steps is None and max_time is None:
        why = f"epochs={epochs} without max_steps= reads on"
        check_rereadable(loop.train_loader, "train_loader", why)
    going_on = loop.runner.resume = prepare_resume(loop, resume, allow_changed)
    loop.resumed_from = going_on.path if going_on else None
    if resume is not None:
        stop_if_spent(loop.state)


def _check_not_running(loop: "FitLoop") -> None:
    if loop.running is not None:
        where = f"{loop.state.phase} pass" if hasattr(loop.state, "phase") else "no pass"
        raise RuntimeError(
            f"fit() was called while {loop.running}() of the same loop is running: {where}, "
            f"{loop.state.place()}\n"
            "Let it end first; a callback validates with loop.evaluate() or state.request."
        )
