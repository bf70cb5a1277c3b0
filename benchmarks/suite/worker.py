"""A process that trains one contestant, an epoch at a time, whenever it is told to.

The contestant runs its library's own loop over many epochs. Where an epoch ends, the loop comes to
`Gate.tick`, which sends the times of the epoch and waits for the next order; so contestants can
take turns, and what a loop does once per run is not counted as a step.
"""

import contextlib
import gc
import os
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import synchronize
from benchmarks.suite.cases import find
from benchmarks.suite.contestants import CONTESTANTS
from benchmarks.suite.probes import Probe, probe
from benchmarks.suite.task import Task

NUM_LOSS_SAMPLES = 64


def work(pipe: Connection, name: str, case: str, options: dict[str, Any]) -> None:
    """Be the contestant `name` on a case; all that is written goes to the scratch folder."""
    os.setpgid(0, 0)  # so that whoever ends it reaches what it starts, too: compilers
    scratch = Path(options["scratch"])
    scratch.mkdir(parents=True, exist_ok=True)
    os.chdir(scratch)
    # whoever compiles does it from nothing: not even what another of these has compiled is there
    os.environ |= {"TORCHINDUCTOR_CACHE_DIR": str(scratch / "compiled")}
    os.environ.pop("TRITON_CACHE_DIR", None)
    with (scratch / "log.txt").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log
        warnings.simplefilter("ignore")
        try:
            torch.set_num_threads(options["threads"])
            torch.set_float32_matmul_precision("high")  # TF32 on CUDA, nothing on a CPU
            Gate(pipe, name, case, options).train()
            pipe.send({"error": "the training ended before it was stopped"})
        except Exception as error:  # whatever a library raises is the row of this contestant
            traceback.print_exc()
            first = (str(error).strip() or "no message").splitlines()[0]
            pipe.send({"error": f"{type(error).__name__}: {first}"[:300]})
        log.flush()
    os._exit(0)  # no library gets to tidy up for longer than the others run


class Gate:
    """Stops a training at the end of every epoch, sends its times, takes orders.

    Orders: "go" for another epoch, or the name of a probe to run the next epoch under.
    """

    def __init__(self, pipe: Connection, name: str, case: str, options: dict[str, Any]) -> None:
        self.pipe, self.name, self.device = pipe, name, options["device"]
        self.before_mb = peak_rss_mb()
        self.task = Task(
            find(case),
            device=self.device,
            warmup=options["before"],
            rounds=options["rounds"],
            windows=options["windows"],
            after=options["after"],
            tick=self.tick,
            pass_begins=self.pass_begins,
            pass_ends=self.pass_ends,
            scratch=Path(options["scratch"]),
        )
        self.start_loss = None if name == "floor" else final_loss(self.task)
        self.begin = time.perf_counter() - self.task.model_s
        self.device_mb: dict[str, float] = {}
        self.num_epochs, self.pass_at, self.pass_s = 0, 0.0, 0.0
        self.probe: Probe | None = None
        gc.collect()
        gc.freeze()  # the libraries of the others are imported, too: nobody looks through them
        self._start()

    def train(self) -> None:
        """Train until told to stop."""
        CONTESTANTS[self.name].train(self.task)

    def pass_begins(self) -> None:
        """Begin to time the training pass, beside the whole epoch."""
        self.pass_at = time.perf_counter()

    def pass_ends(self) -> None:
        """Note its time."""
        synchronize(self.device)
        self.pass_s = time.perf_counter() - self.pass_at

    def tick(self) -> None:
        """End an epoch; return when the next one is to begin."""
        synchronize(self.device)
        wall_s, cpu_s = time.perf_counter() - self.wall, time.process_time() - self.cpu
        found = {} if self.probe is None else {"probe": self.probe.end()}  # before the audit
        self.probe = None
        self.num_epochs += 1
        if self.device != "cpu":
            self.device_mb = {
                "device_mb": torch.cuda.max_memory_allocated() / 2**20,
                "device_reserved_mb": torch.cuda.max_memory_reserved() / 2**20,
            }
        message: dict[str, Any] = {"wall_s": wall_s, "cpu_s": cpu_s, "steps": self.task.steps}
        message |= {"pass_s": self.pass_s, **found}
        message |= {"memory": self._memory(), "told": self.task.told}
        message["since_begin_s"] = time.perf_counter() - self.begin
        if self.start_loss is not None:
            message |= {"start_loss": self.start_loss}
            message |= {"loss": final_loss(self.task), "state": state_norm(self.task.model)}
        if self.device != "cpu":
            torch.cuda.reset_peak_memory_stats()  # the audit does not count
        self.pipe.send(message)
        order = self.pipe.recv()
        gc.collect()  # nobody pays for what came before
        if order != "go":
            self.probe = probe(order)
        self._start()

    def _start(self) -> None:
        synchronize(self.device)
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def _memory(self) -> dict[str, float]:
        memory = {"host_mb": peak_rss_mb(), "host_before_mb": self.before_mb}
        return memory | self.device_mb


def peak_rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


# -- the loss that all must end at -----------------------------------------------------------------


@torch.no_grad()
def final_loss(task: Task) -> float:
    """The loss on the first samples, by the same code for everybody."""
    size = min(NUM_LOSS_SAMPLES, task.batch)  # no more memory than a step has
    num = min(NUM_LOSS_SAMPLES // size * size, len(task.x))
    with evaluating(task.model):
        losses = [batch_loss(task, at, at + size) for at in range(0, num, size)]
    return sum(losses) / len(losses)


def batch_loss(task: Task, first: int, last: int) -> float:
    x, y = task.x[first:last].to(task.device), task.y[first:last].to(task.device)
    if task.case.kind == "gan":
        return gan_loss(task.model, x)
    return float(task.torch_loss()(task.model(x), y))


def gan_loss(model: Any, real: Tensor) -> float:
    """How well the discriminator tells real images from those made of fixed noise."""
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(len(real), model.latent_dim, generator=generator).to(real.device)
    made = model.discriminator(model.generator(latent))
    labels = torch.cat([torch.ones_like(made), torch.zeros_like(made)])
    outputs = torch.cat([made, model.discriminator(real)])
    return float(nn.functional.binary_cross_entropy_with_logits(outputs, labels))


@torch.no_grad()
def state_norm(model: nn.Module) -> float:
    """The norm of what training changes besides weights: the averages of batch normalization.

    A model that trains in the wrong mode leaves them as they were, and may still get a good loss.
    """
    tensors = [p for p in model.parameters() if not p.requires_grad] + list(model.buffers())
    norms = [t.float().norm() for t in tensors if t.is_floating_point()]
    return float(torch.stack(norms).norm()) if norms else 0.0


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put all modules into eval mode, and back into the one that each was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    yield
    for module, mode in modes.items():
        module.training = mode
