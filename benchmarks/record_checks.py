"""What benchmarks/record.py shows beside speed: agreement with eager, memory, first-use cost."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.record_cases import fitkit_loop
from fitkit import Callback, FitLoop, Record
from fitkit.loop.state import State
from fitkit.record.passes.writes import written_state

POINTS = 100
EVERY = 8
ROUNDING = 1e-5  # of the largest gradient: float32 has seven digits, sums of thousands five


class Agreement(Callback):
    """Runs every eighth recorded step once more, eagerly, from the same state, and compares.

    Attributes:
        worst: The largest difference per kind of variable, max-norm over max-norm of the change
            that the step makes to this kind.
        num_points: How many steps were compared.
        num_rounding: How many weights were left out of the comparison, because their gradients
            are zero but for rounding: a bias before a batch normalization, the bias of the keys
            of an attention. Adam divides by the size of the gradient, so that such a weight goes
            some way in any direction, in two eager programs as well.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.worst: dict[str, float] = {}
        self.num_points = 0
        self.num_rounding = 0

    def attach(self, loop: FitLoop) -> None:
        """Keep the loop, to run its step."""
        self.loop = loop

    def on_batch_begin(self, state: State) -> None:
        """Keep what every eighth step is about to change."""
        self.before: list[Tensor] | None = None
        programs = [each.program for each in self.record.recordings.values() if each.program]
        if state.num_updates % EVERY or not programs:
            return
        self.program = max(programs, key=lambda program: program.num_replays)
        following = self.program.num_replays_of_backend + 1
        if following & (following - 1) == 0:
            return  # Record itself runs this step both ways, and keeps the eager one
        self.state_tensors = written_state(self.program.step)
        self.before = copies(self.state_tensors)
        self.generator = torch.get_rng_state()
        self.num_replays = self.program.num_replays

    def on_batch_end(self, state: State) -> None:
        """Run the step again, eagerly, and compare."""
        if self.before is None:
            return
        if self.program.num_replays != self.num_replays + 1:
            raise RuntimeError("the step to compare was not a replay")
        recorded = copies(self.state_tensors)
        put_back(self.state_tensors, self.before)
        torch.set_rng_state(self.generator)
        with torch.enable_grad():
            self.loop.runner.run_region()
        places = {id(tensor): place for place, tensor in enumerate(self.state_tensors)}
        kinds = {name: [places[id(t)] for t in kind] for name, kind in variables(self.loop).items()}
        changes = {at: change(self.state_tensors[at], self.before[at]) for at in places.values()}
        largest = max(changes[at] for at in kinds["momentum"])
        pairs = zip(kinds["weights"], kinds["momentum"], strict=True)
        kinds["weights"] = [w for w, m in pairs if changes[m] > ROUNDING * largest]
        self.num_rounding = max(self.num_rounding, len(kinds["momentum"]) - len(kinds["weights"]))
        for name, kind in kinds.items():
            error = max(change(recorded[at], self.state_tensors[at]) for at in kind)
            relative = error / max(changes[at] for at in kind)
            self.worst[name] = max(self.worst.get(name, 0.0), relative)
        self.num_points += 1


def agreement(case: str, backend: Any = "inductor") -> dict[str, float]:
    """Largest difference of one recorded and one eager step from the same state, at 100 points."""
    record = Record(backend)
    compared = Agreement(record)
    loop = fitkit_loop(case, 200, record, compared)
    loop.fit(max_steps=(POINTS + 8) * EVERY)
    counts = {"points": compared.num_points, "only rounding": compared.num_rounding}
    return {**compared.worst, **counts}


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


def peak_ratio() -> dict[str, float]:
    """Peak of the tensors that a run holds, recorded over eager: its variables and a step's own.

    Steps that Record runs both ways (1, 2, 4, ...) keep copies of what they change; shown apart.
    """
    peaks = {}
    for name, callbacks in {"eager": [], "inductor": [Record("inductor")]}.items():
        loop = fitkit_loop("MLP", 200, *callbacks)
        loop.fit(max_steps=70)  # the next step that is run both ways is about number 130
        kept = sum(t.numel() * t.element_size() for each in variables(loop).values() for t in each)
        peaks[name] = kept + peak_bytes(lambda loop=loop: loop.fit(max_steps=20))
        peaks[f"{name}, both ways"] = kept + peak_bytes(lambda loop=loop: loop.fit(max_steps=60))
    ratio = peaks["inductor"] / peaks["eager"]
    return {**peaks, "ratio": ratio, "both ways": peaks["inductor, both ways"] / peaks["eager"]}


def peak_bytes(run: Callable[[], object]) -> float:
    """The highest sum of allocations less frees while `run` runs, in bytes."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    results: Any = profiler.profiler.kineto_results
    changes = [e for e in results.events() if e.name() == "[memory]"]
    level = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        level += change.nbytes()
        peak = max(peak, level)
    return float(peak)


def first_use() -> dict[str, float]:
    """Seconds to trace and to compile the MLP's step in this process."""
    record = Record("inductor")
    loop = fitkit_loop("MLP", 20, record)
    loop.fit(max_steps=5)
    programs = [r.program for r in record.recordings.values() if r.program]
    trained = max(programs, key=lambda program: program.num_replays)
    return {"trace_s": round(trained.trace_s, 2), "compile_s": round(trained.compile_s, 1)}
