"""The public names, their signatures and their docstrings."""

import inspect
import types

import pytest
import torch

import fitkit
from fitkit import Callback
from tests.contract.source import PACKAGE

# Programs outside the project call these: a parameter may be added by keyword, none may change.
SIGNATURES = {
    "FitLoop": "model, train_loader=None, val_loader=None, *, callbacks=(), device='auto', "
    "unpack=None, run_dir=None",
    "FitLoop.attach": "self, *callbacks",
    "FitLoop.detach": "self, callback",
    "FitLoop.on": "self, event, *, every=1, once=False, when=None",
    "FitLoop.fit": "self, epochs=None, *, max_steps=None, max_time=None, resume=None",
    "FitLoop.evaluate": "self, loader=None",
    "FitLoop.predict": "self, loader",
    "Callback.attach": "self, loop",
    "Callback.detach": "self, loop",
    "State.log": "self, name, value, reduce='mean'",
    "State.request": "self, event",
    "State.request_stop": "self, reason",
    "State.request_eager": "self",
    "Turn": "name, callbacks, *, every=1",
    "Validate": "every='1 epoch'",
    "Metrics": "metrics=()",
    "KerasLoss": "loss",
    "TorchLoss": "loss",
    "KerasApply": "optimizer",
    "TorchStep": "optimizer",
    "supervised": "*, loss, optimizer, metrics=()",
    "PrintLog": "every=100",
}
ATTRIBUTES = ("state", "bus", "model", "device", "callbacks", "is_main", "run_dir")
SECTIONS = ("Reads:", "Writes:", "Logs:", "Syncs:", "Raises:", "Example:")


def wanted(text):
    """The parameters of a signature written as text."""
    namespace = {}
    exec(f"def f({text}): ...", namespace)
    return list(inspect.signature(namespace["f"]).parameters.values())


def differences(function, text):
    """What of the contract signature `text` the function does not offer."""
    given = inspect.signature(function).parameters
    names = [parameter.name for parameter in wanted(text)]
    found = []
    for parameter in wanted(text):
        real = given.get(parameter.name)
        if real is None or real.kind != parameter.kind or real.default != parameter.default:
            found.append(f"{parameter} is {real}")
    for name, real in given.items():
        optional = real.kind is real.KEYWORD_ONLY and real.default is not real.empty
        if name not in names and not optional:
            found.append(f"{real} is not in the contract")
    return found


def resolve(name):
    value = fitkit
    for part in name.split("."):
        value = getattr(value, part)
    return value


def test_all_is_complete_and_sorted():
    assert fitkit.__all__ == sorted(set(fitkit.__all__))
    public = {
        name
        for name, value in vars(fitkit).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert set(fitkit.__all__) == public


@pytest.mark.parametrize("name", [n for n in SIGNATURES if hasattr(fitkit, n.split(".")[0])])
def test_signatures_are_those_of_the_contract(name):
    assert differences(resolve(name), SIGNATURES[name]) == []


@pytest.mark.parametrize("text", ["a, *, b=2", "a, b=1", "a, *, b=1, c", "*, b=1"])
def test_another_signature_is_seen(text):
    def offered(a, *, b=1): ...

    assert differences(offered, text)
    assert differences(offered, "a, *, b=1") == []


def test_loop_attributes_are_those_of_the_contract():
    loop = fitkit.FitLoop(torch.nn.Linear(1, 1))
    assert [name for name in ATTRIBUTES if not hasattr(loop, name)] == []


def callbacks():
    """The concrete callbacks fitkit exports."""
    values = [getattr(fitkit, name) for name in fitkit.__all__]
    return [v for v in values if isinstance(v, type) and issubclass(v, Callback) and v != Callback]


def missing_sections(doc):
    """Sections that are absent or empty, and those out of order."""
    lines = [line.strip() for line in inspect.cleandoc(doc or "").splitlines()]
    starts = [next((i for i, line in enumerate(lines) if line.startswith(s)), -1) for s in SECTIONS]
    missing = [section for section, at in zip(SECTIONS, starts, strict=True) if at < 0]
    return missing or ([] if starts == sorted(starts) else ["sections are out of order"])


@pytest.mark.parametrize("cls", callbacks(), ids=lambda cls: cls.__name__)
def test_callback_docstrings_have_all_sections(cls):
    assert missing_sections(cls.__doc__) == []


@pytest.mark.parametrize("cls", callbacks(), ids=lambda cls: cls.__name__)
def test_callbacks_are_final_and_take_one_argument_by_position(cls):
    assert getattr(cls, "__final__", False), f"{cls.__name__} is concrete: mark it @final"
    parameters = list(inspect.signature(cls).parameters.values())
    by_position = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    assert len(by_position) <= 1


def test_a_missing_section_is_seen():
    doc = "Do.\n\nReads: a.\nWrites: b.\nLogs: c.\nSyncs: d.\nRaises: e.\n\nExample:\n    x"
    assert missing_sections(doc) == []
    assert missing_sections(doc.replace("Logs: c.\n", "")) == ["Logs:"]
    assert missing_sections(doc.replace("Reads: a.\nWrites: b.", "Writes: b.\nReads: a."))


@pytest.mark.parametrize("name", fitkit.__all__)
def test_every_public_name_is_documented(name):
    doc = inspect.getdoc(getattr(fitkit, name))
    assert doc
    assert doc.splitlines()[0].endswith(".")


def test_types_are_shipped():
    assert (PACKAGE / "py.typed").exists()
