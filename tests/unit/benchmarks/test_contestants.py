"""Contestants train the same thing: same weights, same batches, and so the same loss."""

import copy
import functools
import signal
import subprocess
import time
from importlib.util import find_spec

import pytest
import torch

from benchmarks.suite import cases, checks, probes, worker
from benchmarks.suite.contestants import CONTESTANTS, by_fitkit, floor
from benchmarks.suite.process import Settings, Worker
from benchmarks.suite.rounds import run_case
from benchmarks.suite.rows import rows_of
from benchmarks.suite.task import Task
from benchmarks.suite.worker import final_loss, state_norm

EAGER = ("hand-keras", "hand-torch", "tuned", "keras-fit", "fitkit", "fitkit-torch",
         "fitkit-loader", "record-interpret")  # fmt: skip
PEERS = {
    "lightning": "lightning",
    "lightning-barebones": "lightning",
    "ignite": "ignite",
    "accelerate": "accelerate",
    "skorch": "skorch",
    "poutyne": "poutyne",
    "torchtnt": "torchtnt",
}
SETTINGS = Settings(warmup=0, rounds=3, at_once=2)


@pytest.fixture(scope="module")
def rows():
    """A small case with accuracy and validation, by everybody whose library is there."""
    there = [name for name, library in PEERS.items() if find_spec(library)]
    names = [*EAGER, "floor", "nobody", *there]
    case = cases.find("metrics=1")
    measured = run_case(case, names, SETTINGS)
    assert measured.pop("nobody") == {"error": "KeyError: 'nobody'"}
    return {row["contestant"]: row for row in rows_of(case, measured, vars(SETTINGS))}


@pytest.mark.parametrize("name", EAGER[1:])
def test_eager_contestants_come_to_the_loss_of_the_hand_loop(rows, name):
    fair = rows[name]["fair"]
    assert fair["ok"] is True
    if name == "tuned":
        assert fair["difference"] < 1e-5  # fused Adam
    elif name != "hand-torch":
        assert fair["difference"] == 0.0  # bit by bit


@pytest.mark.parametrize("name", PEERS)
def test_peers_come_to_the_loss_of_the_hand_loop(rows, name):
    pytest.importorskip(PEERS[name], exc_type=ImportError)
    assert "error" not in rows[name]
    assert rows[name]["fair"]["difference"] == 0.0


def test_a_row_says_everything_about_itself(rows):
    row = rows["fitkit"]
    assert row["rounds"] == 3
    assert row["steps"] == 32
    assert row["samples_per_s"]["median"] == pytest.approx(32 * row["steps_per_s"]["median"])
    assert row["us_per_step"]["p5"] <= row["us_per_step"]["median"] <= row["us_per_step"]["p95"]
    assert row["over_floor_us"] < row["us_per_step"]["median"]
    assert row["first_step_s"] > 0
    assert all(rows[name]["host_mb"] > 0 for name in EAGER)
    wanted = {"commit", "date", "threads", "device_name", "versions", "warmup_rounds", "python"}
    assert wanted <= set(row)
    assert {each["steps"] for each in rows.values()} == {32}


def test_fitkit_tells_what_its_own_benchmark_says(rows):
    agreed = rows["fitkit"]["agreement"]
    assert agreed["ok"] is True
    assert agreed["outside_us"] == pytest.approx(agreed["benchmark_us"], rel=checks.AGREEMENT)
    assert 0.5 < agreed["outside_us"] / rows["fitkit"]["wall_us_per_step"]["median"] < 1.1
    assert rows["hand-keras"]["agreement"] is None


def test_a_worker_whose_process_dies_is_a_row_with_its_error(tmp_path):
    one = Worker("hand-torch", cases.find("batch=8"), SETTINGS, tmp_path)
    one.receive(60)
    one.process.kill()
    one.process.join()
    one.order("go", 5)
    assert not one.alive
    assert one.row["error"]


def test_what_a_worker_has_started_ends_with_it(tmp_path):
    one = Worker("hand-torch", cases.find("batch=8"), SETTINGS, tmp_path)
    one.receive(60)
    compiler = subprocess.Popen(["sleep", "60"], process_group=one.pid)
    one.end()
    assert compiler.wait(30) == -signal.SIGKILL


# -- the check itself ------------------------------------------------------------------------------


def trained(case, contestant="hand-torch", disturb=lambda task: None):
    """The losses by step of a contestant, trained in this process, after `disturb(task)`."""
    task = Task(cases.find(case), warmup=0)
    same = copy.copy(task)  # the data as they were
    disturb(task)
    losses = {0: final_loss(same)}

    def tick():
        losses[task.steps * len(losses)] = final_loss(same)

    task.tick = tick
    CONTESTANTS[contestant].train(task)
    return {"losses": losses, "wall_us": [1.0]}


def reverse(task):
    task.x, task.y = task.x.flip(0), task.y.flip(0)


def skip_a_batch(task):
    at = len(task.x) // 2
    for name in ("x", "y"):
        each = getattr(task, name)
        setattr(task, name, torch.cat([each[:at], each[at + task.batch :]]))


def learn_nothing(task):
    task.torch_adam = lambda **options: torch.optim.Adam(task.model.parameters(), lr=0.0)


@torch.no_grad()
def other_weights(task):
    for parameter in task.model.parameters():
        parameter.mul_(1.1)


CONTROLS = (reverse, skip_a_batch, learn_nothing, other_weights)


@pytest.mark.parametrize("case", ["batch=8", "bag", "cnn", "gpt-tiny"])
def test_another_training_is_found_in_every_case(case):
    hand = trained(case)
    same = checks.fairness("fitkit-torch", {"hand-torch": hand, "fitkit-torch": trained(case)})
    assert (same["ok"], same["difference"]) == (True, 0.0)
    for disturb in CONTROLS:
        other = trained(case, disturb=disturb)
        fair = checks.fairness("fitkit-torch", {"hand-torch": hand, "fitkit-torch": other})
        assert fair["ok"] is False, disturb.__name__
        assert fair["why"].startswith("loss after")
        assert fair["difference"] > 2 * checks.TOLERANCE or fair["after_steps"] == 0


def test_a_model_that_is_trained_in_the_wrong_mode_is_found():
    task = Task(cases.find("cnn"))
    before = state_norm(task.model)
    task.model(task.x[:4])  # neither train() nor training=True: as a torch loop calls it
    wrong = state_norm(task.model)
    task.module.train()(task.x[:4])
    right = state_norm(task.model)
    assert wrong == before != right
    losses = {"losses": {0: 2.0, 12: 1.0}}
    measured = {
        "hand-torch": {**losses, "states": {12: right}},
        "lightning": {**losses, "states": {12: wrong}},
        "ignite": {**losses, "states": {12: right}},
    }
    assert checks.fairness("ignite", measured)["ok"] is True
    fair = checks.fairness("lightning", measured)
    assert fair["ok"] is False
    assert fair["why"].startswith("averages of batch normalization 0.7%")


def test_deep_networks_are_compared_before_rounding_has_grown():
    deep = {
        name: cases.find(name).comparable_steps for name in ("layers=8", "layers=16", "batch=8")
    }
    assert deep == {"layers=8": None, "layers=16": 64, "batch=8": None}


def test_a_loss_that_is_no_number_is_not_the_same():
    measured = {
        "hand-torch": {"losses": {0: 2.0, 32: 1.0}},
        "ignite": {"losses": {0: 2.0, 32: float("nan")}},
    }
    assert checks.fairness("ignite", measured)["ok"] is False


def test_losses_are_compared_after_every_epoch_that_both_have():
    hand = {"losses": {0: 2.25, 32: 2.0, 64: 1.75, 96: 1.5}}
    fast = {"losses": {0: 2.25, 32: 2.0, 64: 1.765625}}
    fair = checks.fairness("record-inductor", {"hand-keras": hand, "record-inductor": fast})
    # a 32nd of what was learned until then, half a unit
    assert (fair["ok"], fair["after_steps"], fair["difference"]) == (False, 64, 1 / 32)
    early = checks.fairness("record-inductor", {"hand-keras": hand, "record-inductor": fast}, 32)
    assert (early["ok"], early["after_steps"]) == (True, 32)
    fair = checks.fairness("record-inductor", {"record-inductor": fast})
    assert (fair["ok"], fair["why"]) == (None, "there is no hand loop to compare with")


def test_more_is_allowed_after_many_steps_and_not_before():
    hand = {"losses": {0: 3.0, 256: 2.0, 512: 1.0}}

    def fair(early, late):
        other = {"losses": {0: 3.0, 256: 2.0 + early, 512: 1.0 + late}}
        found = checks.fairness("tuned", {"hand-torch": hand, "tuned": other})
        return found["ok"], found["after_steps"], found["tolerance"]

    assert fair(0.0, 2 * 0.049) == (True, 512, 0.05)
    assert fair(0.0, 2 * 0.051) == (False, 512, 0.05)
    assert fair(2 * 0.006, 2 * 0.049) == (False, 256, 0.005)
    long = {"losses": {0: 3.0, 400: 2.0, 800: 1.0}}
    off = {"losses": {0: 3.0, 400: 2.0 + 2 * 0.006, 800: 1.0}}
    assert not checks.fairness("tuned", {"hand-torch": long, "tuned": off})["ok"]  # first epoch


def test_rounding_alone_is_no_other_training():
    """The same loop from weights that are other in their last bit, which ReLU makes more of."""

    def losses(disturb):
        task, found = Task(cases.find("mlp-32"), warmup=1, rounds=5), {}
        disturb(task)
        task.tick = lambda: found.update({task.steps * len(found): final_loss(task)})
        task.tick()
        CONTESTANTS["tuned"].train(task)
        return {"losses": found}

    measured = {"hand-torch": losses(lambda task: None), "tuned": losses(last_bits)}
    fair = checks.fairness("tuned", measured)
    assert (fair["ok"], len(measured["tuned"]["losses"])) == (True, 7)


@torch.no_grad()
def last_bits(task):
    generator = torch.Generator().manual_seed(0)
    for parameter in task.model.parameters():
        signs = torch.randint(-1, 2, parameter.shape, generator=generator)
        parameter.mul_(1 + 2**-23 * signs)


def test_a_benchmark_that_says_something_else_is_found():
    told = {"told": {"benchmark_us": [1000.0, 2000.0, 3000.0]}}
    assert checks.agreement({**told, "pass_us": [1029.0, 2058.0, 4000.0]})["ok"] is True
    assert checks.agreement({**told, "pass_us": [1031.0, 2062.0, 3000.0]})["ok"] is False
    cut = checks.agreement({"told": {}, "pass_us": [1040.0]})
    assert (cut["ok"], cut["why"]) == (None, "cut short after 1 rounds")
    assert checks.agreement({"told": {}, "pass_us": [0.0]}) is None


def both_clocks(monkeypatch, name, clock=time.perf_counter, case="metrics=1"):
    """A contestant of fitkit, timed by `Benchmark` with `clock` and by the clock of the suite."""
    task = Task(cases.find(case), warmup=1, rounds=7, windows=5)
    begun, ended, losses = [], [], []
    task.pass_begins = lambda: begun.append(time.perf_counter())
    task.pass_ends = lambda: ended.append(time.perf_counter())
    task.tick = lambda: losses.append(final_loss(task))
    timed = functools.partial(by_fitkit.Benchmark, clock=clock)
    monkeypatch.setattr(by_fitkit, "Benchmark", timed)
    CONTESTANTS[name].train(task)
    passes = [end - begin for begin, end in zip(begun, ended, strict=True)]
    pass_us = [1e6 * each / task.steps for each in passes[1:6]]
    return checks.agreement({"told": task.told, "pass_us": pass_us}), losses


@pytest.mark.parametrize("name", ["fitkit", "fitkit-torch", "fitkit-loader"])
def test_benchmark_and_the_clock_of_the_suite_agree_about_the_same_passes(monkeypatch, name):
    agreed, losses = both_clocks(monkeypatch, name)
    assert agreed["ok"] is True, agreed
    assert len(losses) == 8  # the run went on after Benchmark was done
    assert len(set(losses)) == 8


def test_a_benchmark_whose_clock_is_wrong_does_not_agree(monkeypatch):
    def slow():
        return 0.95 * time.perf_counter()

    assert both_clocks(monkeypatch, "fitkit", slow)[0]["ok"] is False


# -- figures ---------------------------------------------------------------------------------------


def test_countable_flops_of_the_mlp():
    task = Task(cases.find("batch=8"))
    products = 784 * 64 + 64 * 64 + 64 * 10
    inputs_need_no_gradient = 784 * 64
    expected = 2 * 8 * (3 * products - inputs_need_no_gradient)
    assert probes.flops_per_step(task) == expected


def test_the_floor_keeps_the_products_of_a_step():
    task = Task(cases.find("batch=8"))
    with floor.Kept() as kept:
        task.torch_loss()(task.model(task.x[:8]), task.y[:8]).backward()
    assert len(kept.calls) == 8  # three layers: forward, weights' and, but for the first, inputs'
    before = [p.detach().clone() for p in task.model.parameters()]
    run = floor.bare_step(task)
    run()
    assert all(torch.equal(a, b) for a, b in zip(before, task.model.parameters(), strict=True))


def test_the_loader_of_most_is_timed_alone(rows):
    assert 0 < rows["floor"]["loader_us"] < rows["hand-torch"]["us_per_step"]["median"]


def test_time_that_kernels_share_counts_once():
    assert probes.covered([(0, 10), (5, 12), (6, 8), (20, 21)]) == 13
    assert probes.covered([]) == 0


def test_probes_begin_and_end():
    for name, key in {"kernels": "kernel_share", "syncs": "syncs"}.items():
        begun = probes.probe(name)
        torch.ones(4) @ torch.ones(4)
        assert begun.end()[key] >= 0


class EndedError(Exception):
    """There are no more orders."""


class Orders:
    """A pipe with orders in it."""

    def __init__(self, *orders):
        self.orders, self.messages = list(orders), []

    def send(self, message):
        self.messages.append(message)

    def recv(self):
        if not self.orders:
            raise EndedError
        return self.orders.pop(0)


def test_a_probe_watches_one_epoch_and_not_the_audit_after_it(monkeypatch, tmp_path):
    happened = []

    class Watch:
        def __init__(self, name):
            happened.append(f"{name} begins")

        def end(self):
            happened.append("ends")
            return {"syncs": 3}

    def audit(task):
        happened.append("audit")
        return 1.0

    monkeypatch.setattr(worker, "probe", Watch)
    monkeypatch.setattr(worker, "final_loss", audit)
    pipe = Orders("go", "syncs", "go")
    options = {"device": "cpu", "before": 1, "rounds": 1, "windows": 1, "after": 2}
    gate = worker.Gate(pipe, "hand-torch", "batch=8", {**options, "scratch": tmp_path})
    with pytest.raises(EndedError):
        gate.train()
    epochs = [["audit"], ["audit"], ["audit"], ["syncs begins", "ends", "audit"], ["audit"]]
    assert happened == [each for epoch in epochs for each in epoch]
    assert [message.get("probe") for message in pipe.messages] == [None, None, {"syncs": 3}, None]


def test_the_makers_figure_is_that_of_the_device_and_of_no_other():
    assert probes.peak_flops("NVIDIA A100-SXM4-40GB") == 156e12
    assert probes.peak_flops("NVIDIA H100 PCIe") == 378e12
    assert probes.peak_flops("NVIDIA H100 80GB HBM3") == 494.5e12
    assert probes.peak_flops("NVIDIA L40S") is None


def test_every_contestant_says_why_it_has_no_figures():
    gan, torch_case = cases.find("gan"), cases.find("mlp-torch")
    reasons = {name: c.why_not(gan, "cpu") for name, c in CONTESTANTS.items()}
    assert reasons["skorch"] == "written for one network with one optimizer"
    assert reasons["record-cudagraph"] == "only on cuda"
    assert "torch < 2.7.1" in reasons["composer"]
    assert (
        CONTESTANTS["keras-fit"].why_not(torch_case, "cpu") == "the model is made of torch modules"
    )
    assert CONTESTANTS["lightning"].why_not(torch_case, "cpu") is None
