"""The fields of the state that end with a pass or a batch, and what to say where one is unset."""

from fitkit.errors import UnsetError
from fitkit.loop.events import Event, hook_name

__all__ = ["BATCH_FIELDS", "LAZY_FIELDS", "PASS_FIELDS", "unset_error"]

PASS_FIELDS = (
    *("phase", "prefix", "num_batches_expected", "batch_index", "data_wait_s", "exits"),
    "log_owners",
)
LAZY_FIELDS = ("batch", "inputs", "targets", "sample_weight")
BATCH_FIELDS = (
    *LAZY_FIELDS,
    *("batch_size", "extra", "step_values", "opens_update", "closes_update", "turn"),
    *("outputs", "loss", "losses", "grad_scale", "step_logs", "_given"),
)
_WRITTEN_AT = {
    **dict.fromkeys(PASS_FIELDS, Event.PASS_BEGIN),
    **dict.fromkeys(BATCH_FIELDS, Event.BATCH_BEGIN),
    "outputs": Event.FORWARD,
    "loss": Event.LOSS,
    "step_logs": Event.UPDATE_METRICS,
}
_OUTSIDE = ("unset or outside of the step", ', after the step by needs = frozenset({"outputs"})')


def unset_error(name: str) -> AttributeError:
    """Return the error of a field without a value; it names the event that writes it."""
    event = _WRITTEN_AT.get(name)
    if event is None:
        return AttributeError(f"State has no field '{name}'")
    when, after = _OUTSIDE if name == "outputs" else ("before it was written", "")
    return UnsetError(
        f"state.{name} was read {when}\n"
        f"It is written at {event.name}; read it in {hook_name(event)} or later{after}."
    )
