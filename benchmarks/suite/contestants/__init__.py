"""Who takes part. One module per library, written the way its own documentation advises.

A module has `train(task, **options)`, which trains `task.model` for `task.epochs` epochs and calls
`task.tick()` after each; libraries are imported in there, so that a missing one is its own error.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from benchmarks.suite.cases import Case
from benchmarks.suite.task import Task

PACKAGE = __name__
NO_KERAS = "the model is made of torch modules"
TWO_NETWORKS = "written for one network with one optimizer"


@dataclass(frozen=True)
class Contestant:
    """One row of every table.

    Attributes:
        label: For people.
        family: "hand", "keras", "peer", "fitkit", "record" or "floor".
        parts: Whose loss and optimizer: "Keras" or "torch".
        module: The adapter, in this folder.
        package: The distribution whose version is noted.
        options: What distinguishes it from others of its module.
        kinds: Kinds of cases it can train.
        device: Only there, if given.
        quick: Kinds of cases in which it takes part in the quick suite.
        missing: Why it cannot take part at all.
    """

    label: str
    family: str
    parts: str
    module: str
    package: str = "torch"
    options: dict[str, Any] = field(default_factory=dict)
    kinds: tuple[str, ...] = ("keras", "torch")
    device: str | None = None
    quick: tuple[str, ...] = ("keras", "torch", "gan")
    missing: str | None = None

    @property
    def compiles(self) -> bool:
        """Whether it is long until its first step."""
        backend = self.options.get("backend", "interpret")
        jit = "compiled" in self.options or "jit_compile" in self.options
        return jit or backend != "interpret"

    def why_not(self, case: Case, device: str) -> str | None:
        """Why it has no figures for the case, or None."""
        if self.missing is not None:
            return self.missing
        if self.device not in (None, device):
            return f"only on {self.device}"
        if case.kind not in self.kinds:
            return TWO_NETWORKS if case.kind == "gan" else NO_KERAS
        return None

    def train(self, task: Task) -> None:
        """Train the task."""
        train: Callable[..., None] = import_module(f"{PACKAGE}.{self.module}").train
        train(task, **self.options)


KERAS, ALL = ("keras", "gan"), ("keras", "torch", "gan")
CONTESTANTS: dict[str, Contestant] = {
    "hand-keras": Contestant(
        "hand loop, Keras parts", "hand", "Keras", "hand_keras", "keras", kinds=KERAS
    ),
    "hand-keras-compile": Contestant(
        "hand loop, Keras parts, torch.compile", "hand", "Keras", "hand_keras", "keras",
        {"compiled": {}}, kinds=("keras",), quick=(),
    ),
    "hand-keras-reduce-overhead": Contestant(
        "hand loop, Keras parts, reduce-overhead", "hand", "Keras", "hand_keras", "keras",
        {"compiled": {"mode": "reduce-overhead"}}, kinds=("keras",), device="cuda",
    ),
    "hand-torch": Contestant("hand loop, torch parts", "hand", "torch", "hand_torch"),
    "hand-torch-compile": Contestant(
        "hand loop, torch.compile, fused Adam", "hand", "torch", "hand_torch",
        options={"compiled": {}, "fused": True}, quick=(),
    ),
    "hand-torch-reduce-overhead": Contestant(
        "hand loop, torch.compile reduce-overhead", "hand", "torch", "hand_torch",
        options={"compiled": {"mode": "reduce-overhead"}, "fused": True}, device="cuda",
    ),
    "tuned": Contestant(
        "hand-tuned, resident slices, fused Adam", "hand", "torch", "tuned",
        quick=(),
    ),
    "tuned-compile": Contestant(
        "hand-tuned, resident slices, torch.compile", "hand", "torch", "tuned",
        options={"compiled": {}},
    ),
    "tuned-reduce-overhead": Contestant(
        "hand-tuned, resident slices, reduce-overhead", "hand", "torch", "tuned",
        options={"compiled": {"mode": "reduce-overhead"}}, device="cuda",
    ),
    "keras-fit": Contestant("Keras fit", "keras", "Keras", "keras_fit", "keras", kinds=KERAS),
    "keras-fit-jit": Contestant(
        "Keras fit, jit_compile", "keras", "Keras", "keras_fit", "keras", {"jit_compile": True},
        kinds=KERAS, quick=(),
    ),
    "lightning": Contestant(
        "Lightning", "peer", "torch", "by_lightning", "lightning", kinds=ALL
    ),
    "lightning-barebones": Contestant(
        "Lightning, barebones", "peer", "torch", "by_lightning", "lightning", {"barebones": True},
        kinds=ALL, quick=(),
    ),
    "ignite": Contestant("Ignite", "peer", "torch", "by_ignite", "pytorch-ignite", kinds=ALL),
    "accelerate": Contestant(
        "Accelerate", "peer", "torch", "by_accelerate", "accelerate", kinds=ALL
    ),
    "skorch": Contestant("skorch", "peer", "torch", "by_skorch", "skorch"),
    "poutyne": Contestant("Poutyne", "peer", "torch", "by_poutyne", "poutyne"),
    "torchtnt": Contestant("TorchTNT", "peer", "torch", "by_torchtnt", "torchtnt", quick=()),
    "composer": Contestant(
        "Composer", "peer", "torch", "", "mosaicml",
        missing="mosaicml 0.32.1 requires torch < 2.7.1: it cannot be installed beside torch 2.13",
    ),
    "fitkit": Contestant(
        "fitkit eager, Keras parts", "fitkit", "Keras", "by_fitkit", "keras", kinds=KERAS
    ),
    "fitkit-torch": Contestant(
        "fitkit eager, torch parts", "fitkit", "torch", "by_fitkit", options={"parts": "torch"},
        kinds=ALL,
    ),
    "fitkit-torch-loader": Contestant(
        "fitkit eager, torch parts, DataLoader", "fitkit", "torch", "by_fitkit",
        options={"parts": "torch", "resident": False}, quick=("keras",),
    ),
    "fitkit-loader": Contestant(
        "fitkit eager, DataLoader", "fitkit", "Keras", "by_fitkit", "keras",
        {"resident": False}, kinds=("keras",), quick=(),
    ),
    "record-interpret": Contestant(
        "fitkit Record interpret", "record", "Keras", "by_fitkit", "keras",
        {"backend": "interpret"}, kinds=KERAS,
    ),
    "record-inductor": Contestant(
        "fitkit Record inductor", "record", "Keras", "by_fitkit", "keras",
        {"backend": "inductor"}, kinds=KERAS,
    ),
    "record-loader": Contestant(
        "fitkit Record inductor, DataLoader", "record", "Keras", "by_fitkit", "keras",
        {"backend": "inductor", "resident": False}, kinds=("keras",), quick=(),
    ),
    "record-torch": Contestant(
        "fitkit Record inductor, torch parts", "record", "torch", "by_fitkit",
        options={"parts": "torch", "backend": "inductor"}, kinds=ALL, quick=("torch",),
    ),
    "record-cudagraph": Contestant(
        "fitkit Record cudagraph", "record", "Keras", "by_fitkit", "keras",
        {"backend": "cudagraph"}, kinds=KERAS, device="cuda",
    ),
    "record-loader-cudagraph": Contestant(
        "fitkit Record cudagraph, DataLoader", "record", "Keras", "by_fitkit", "keras",
        {"backend": "cudagraph", "resident": False}, kinds=("keras",), device="cuda",
    ),
    "record-torch-cudagraph": Contestant(
        "fitkit Record cudagraph, torch parts", "record", "torch", "by_fitkit",
        options={"parts": "torch", "backend": "cudagraph"}, device="cuda",
    ),
    "floor": Contestant("bare kernels", "floor", "torch", "floor"),
}  # fmt: skip
