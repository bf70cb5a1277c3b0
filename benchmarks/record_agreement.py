"""Agreement of a recorded step with the eager one, and of both with the step in float64."""

from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.record_cases import fitkit_loop
from benchmarks.record_reference import Outcome, Reference
from fitkit import Callback, FitLoop, Record
from fitkit.loop.state import State
from fitkit.record.passes.writes import written_state
from fitkit.record.region import step_inputs

EVERY = 8
STEPS = 864  # 100 points: Record runs the other eighth steps both ways
ROUNDING = 1e-5  # of the largest gradient: float32 has seven digits, sums of thousands five
KINDS = ("weights", "momentum", "velocity")


PAIRS = (("replay", "eager"), ("eager", "float64"), ("replay", "float64"))
Pair = tuple[str, str]


class Agreement(Callback):
    """Runs every eighth recorded step once more, eagerly, from the same state, and compares.

    Both are compared with the same step in float64 as well: eager's own distance from it is what
    rounding makes of the step. All differences are max-norm, over the max-norm of the change that
    the step makes to a kind of variable.

    Attributes:
        errors: Per pair and kind of variable, the difference at every point.
        turned: Per pair, whether a gradient took another way, at every point.
        num_points: How many steps were compared.
        num_rounding: How many weights were left out of the comparison, because their gradients
            are zero but for rounding: a bias before a batch normalization, the bias of the keys
            of an attention. Adam divides by the size of the gradient, so that such a weight goes
            some way in any direction, in two eager programs as well.
        num_shown: At how many points the runs that show the branches equal, bit by bit, the
            replay and the eager step that are compared.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.reference: Reference | None = None
        self.errors: dict[Pair, list[dict[str, float]]] = {pair: [] for pair in PAIRS}
        self.turned: dict[Pair, list[bool]] = {pair: [] for pair in PAIRS}
        self.num_points = 0
        self.num_rounding = 0
        self.num_shown = 0

    def attach(self, loop: FitLoop) -> None:
        """Keep the loop, to run its step."""
        self.loop = loop

    def on_batch_begin(self, state: State) -> None:
        """Keep what every eighth step is about to change."""
        self.compares = False
        programs = [each.program for each in self.record.recordings.values() if each.program]
        if state.num_updates % EVERY or not programs:
            return
        self.program = max(programs, key=lambda program: program.num_replays)
        following = self.program.num_replays_of_backend + 1
        if following & (following - 1) == 0:
            return  # Record itself runs this step both ways, and keeps the eager one
        self.compares = True
        self.state_tensors = written_state(self.program.step)
        self.before = copies(self.state_tensors)
        self.generator = torch.get_rng_state()
        self.num_replays = self.program.num_replays
        self.inputs = copies(step_inputs(state).tensors)

    def on_batch_end(self, state: State) -> None:
        """Run the step again, eagerly and in float64, and compare."""
        if not self.compares:
            return
        if self.program.num_replays != self.num_replays + 1:
            raise RuntimeError("the step to compare was not a replay")
        replayed = copies(self.state_tensors)
        self.rewind()
        with torch.enable_grad():
            self.loop.runner.run_region()
        eager, generator = copies(self.state_tensors), torch.get_rng_state()
        kinds, changes = self.kinds(eager)
        ways = self.run_all_ways()
        self.num_shown += all(
            torch.equal(ways[name].state[at], result[at])
            for name, result in (("replay", replayed), ("eager", eager))
            for kind in kinds.values()
            for at in kind
        )
        results = {"replay": replayed, "eager": eager, "float64": ways["float64"].state}
        for one, other in PAIRS:
            differences = {
                name: max(change(results[one][at], results[other][at]) for at in kind)
                / max(changes[at] for at in kind)
                for name, kind in kinds.items()
            }
            self.errors[one, other].append(differences)
            self.turned[one, other].append(not ways[one].same_branches(ways[other]))
        put_back(self.state_tensors, eager)
        torch.set_rng_state(generator)
        self.num_points += 1

    def rewind(self) -> None:
        """Go back to where the step began."""
        put_back(self.state_tensors, self.before)
        torch.set_rng_state(self.generator)

    def run_all_ways(self) -> dict[str, Outcome]:
        """Run the step as compiled, by eager's operations and in float64; show the branches."""
        if self.reference is None:
            self.reference = Reference(self.program.step, self.inputs, self.program.backend)
        ways: dict[str, Outcome] = {}
        for name in ("replay", "eager"):
            self.rewind()
            ways[name] = self.reference.run(name, self.inputs)
        self.rewind()
        return {**ways, "float64": self.reference.run_float64(self.inputs)}

    def kinds(self, eager: list[Tensor]) -> tuple[dict[str, list[int]], dict[int, float]]:
        """Return the places of each kind's tensors, and how far the step changes each tensor."""
        places = {id(tensor): place for place, tensor in enumerate(self.state_tensors)}
        kinds = {name: [places[id(t)] for t in kind] for name, kind in variables(self.loop).items()}
        changes = {at: change(eager[at], self.before[at]) for kind in kinds.values() for at in kind}
        largest = max(changes[at] for at in kinds["momentum"])
        pairs = zip(kinds["weights"], kinds["momentum"], strict=True)
        kinds["weights"] = [w for w, m in pairs if changes[m] > ROUNDING * largest]
        self.num_rounding = max(self.num_rounding, len(kinds["momentum"]) - len(kinds["weights"]))
        return kinds, changes


def agreement(case: str, backend: Any = "inductor", *, steps: int = STEPS) -> dict[str, Any]:
    """Difference of one recorded and one eager step from the same state, at 100 points of a run.

    Returns:
        The largest difference per kind of variable. Then per pair of (replay, eager, float64) the
        median and the maximum per kind; the maximum of the points at which all gradients took the
        same way in both; and `turned`, the number of the other points. There a tie turned: the
        function that is differentiated has a corner, and either gradient is right.
    """
    record = Record(backend)
    compared = Agreement(record)
    loop = fitkit_loop(case, 200, record, compared)
    loop.fit(max_steps=steps)
    pairs = {
        " and ".join(pair): summary(compared.errors[pair], compared.turned[pair]) for pair in PAIRS
    }
    raw = pairs["replay and eager"]
    return {
        **{kind: raw[kind]["max"] for kind in KINDS},
        "points": compared.num_points,
        "only rounding": compared.num_rounding,
        "branches shown": compared.num_shown,
        **pairs,
    }


def summary(errors: list[dict[str, float]], turned: list[bool]) -> dict[str, Any]:
    """Median and maximum per kind; the maximum of the points at which no tie turned."""
    result: dict[str, Any] = {"turned": sum(turned)}
    for kind in KINDS:
        values = [error[kind] for error in errors]
        same = [value for value, turn in zip(values, turned, strict=True) if not turn]
        result[kind] = {
            "median": median(values),
            "max": max(values),
            "max, none turned": max(same, default=None),
        }
    return result


def variables(loop: FitLoop) -> dict[str, list[Tensor]]:
    """Weights and the two moments of Adam."""
    optimizer = next(c.optimizer for c in loop.callbacks if type(c).__name__ == "KerasApply")
    moments = {
        name: [v.value for v in optimizer.variables if v.path.endswith(f"_{name}")]
        for name in ("momentum", "velocity")
    }
    return {"weights": [v.value for v in loop.model.trainable_variables], **moments}


def copies(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


@torch.no_grad()
def put_back(tensors: list[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def change(now: Tensor, before: Tensor) -> float:
    """Largest difference of two tensors."""
    with torch.no_grad():
        return float((now - before).abs().max())
