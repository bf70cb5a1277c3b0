"""S4, S5, S13: files of Keras, HDF5 and torch.distributed that would run or read something."""

import json
import pickle
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader

from fitkit import CheckpointError
from fitkit.checkpoint import load_weights_into
from fitkit.store import find
from tests.faults.row import Row
from tests.faults.rows_security import FILES, Payload, heard, refused

SECRET = b"root:x:0:0:root:/root:/bin/bash\n" * 8
SOURCES = sorted((Path(__file__).parents[2] / "fitkit").rglob("*.py"))


def stays_shut(path, marker):
    """No way into a model takes such a file, and nothing of it is run."""

    def try_all():
        with pytest.raises(CheckpointError):
            find(path)
        with pytest.raises(CheckpointError):
            load_weights_into(torch.nn.Linear(2, 1), path)

    assert heard(try_all) == []
    assert not marker.exists()


# -- S4: .keras ----------------------------------------------------------------------------------


def touching(marker):
    """A model whose Lambda layer makes a file when it is called."""
    name = str(marker)
    layer = keras.layers.Lambda(lambda x: (open(name, "w").close(), x)[1])
    return keras.Sequential([keras.Input((2,)), layer])


def config_of(class_name, module, config):
    layer = {"class_name": class_name, "module": module, "config": config, "registered_name": None}
    inner = {"name": "m", "layers": [layer]}
    return {"class_name": "Sequential", "module": "keras", "config": inner, "registered_name": None}


def packed(path, config):
    """A `.keras` file with such a config, and weights of nothing."""
    with h5py.File(path.with_suffix(".h5"), "w") as weights:
        weights.create_group("layers")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": keras.__version__}))
        archive.writestr("config.json", json.dumps(config))
        archive.write(path.with_suffix(".h5"), "model.weights.h5")
    path.with_suffix(".h5").unlink()
    return path


def keras_files(root):
    """One of each kind that has run, or read, something in an earlier Keras."""
    root, marker = Path(root), Path(root) / "executed"
    code = f"open({str(marker)!r}, 'w').close()"
    pickled = pickle.dumps(Payload(exec, code)).hex()
    calls = {"class_name": "function", "config": "system", "module": "os"}
    configs = {
        "tfsm": config_of("TFSMLayer", "keras.layers", {"filepath": str(root)}),
        "torch": config_of("TorchModuleWrapper", "keras.layers", {"module": pickled}),
        "lookup": config_of("StringLookup", "keras.layers", {"vocabulary": "/etc/passwd"}),
        "eval": config_of("eval", "builtins", {"source": code}),
        "function": config_of("Dense", "keras.layers", {"units": 1, "activation": calls}),
        "nameless": {k: v for k, v in config_of("x", "", {}).items() if k != "module"},
        "unsafe": config_of(
            "enable_unsafe_deserialization", "keras.config", {"arguments": [], "keywords": {}}
        ),
    }
    paths = [packed(root / f"{name}.keras", config) for name, config in configs.items()]
    touching(marker).save(root / "lambda.keras")
    marker.unlink(missing_ok=True)
    return [
        *(lambda path=path: stays_shut(path, marker) for path in (*paths, root / "lambda.keras")),
        *(
            lambda path=path, n=name: refused(root, n, path.read_bytes(), marker)
            for path in paths
            for name in FILES[:3]
        ),
        never_unsafe,
    ]


def never_unsafe():
    """Nowhere is the safe mode of Keras, or of torch, switched off."""
    text = "\n".join(path.read_text() for path in SOURCES)
    assert "def load(" in text  # it is fitkit that was read
    for name in ("safe_mode", "enable_unsafe_deserialization", "weights_only", "pickle."):
        assert name not in text, name


def opened_unsafely(root):
    """Keras runs the layer, if its safe mode is off."""
    marker = Path(root) / "executed"
    touching(marker).save(Path(root) / "lambda.keras")
    marker.unlink(missing_ok=True)
    keras.models.load_model(Path(root) / "lambda.keras", safe_mode=False)(
        np.ones((1, 2), "float32")
    )
    return int(marker.exists())


# -- S5: HDF5 ------------------------------------------------------------------------------------


def hdf5_files(root):
    """Files that lead to another file: what is in it never gets into a tensor."""
    root = Path(root)
    secret = root / "secret"
    secret.write_bytes(SECRET)
    with h5py.File(root / "other.h5", "w") as other:
        other["kernel"] = np.frombuffer(SECRET, "uint8")

    def external_link(file):
        file["layers/kernel"] = h5py.ExternalLink(str(root / "other.h5"), "kernel")

    def external_data(file):
        outside = [(str(secret), 0, len(SECRET))]
        file.create_dataset("layers/kernel", (len(SECRET),), "uint8", external=outside)

    def soft_link(file):
        file["layers/kernel"] = h5py.SoftLink("/../../other.h5/kernel")

    def virtual_data(file):
        layout = h5py.VirtualLayout((len(SECRET),), "uint8")
        layout[:] = h5py.VirtualSource(str(root / "other.h5"), "kernel", (len(SECRET),))
        file.create_virtual_dataset("layers/kernel", layout)

    paths = []
    for kind in (external_link, external_data, soft_link, virtual_data):
        for suffix in (".h5", ".weights.h5"):
            paths.append(root / f"{kind.__name__}{suffix}")
            with h5py.File(paths[-1], "w") as file:
                kind(file)
    none = root / "none"
    return [
        *(lambda path=path: stays_shut(path, none) for path in paths),
        *(
            lambda path=path, n=name: refused(root, n, path.read_bytes())
            for path in paths[::2]
            for name in FILES[:3]
        ),
    ]


def followed_by_h5py(root):
    """A reader of HDF5 reads the secret for whoever asks."""
    hdf5_files(root)
    with h5py.File(Path(root) / "external_data.h5") as file:
        return int(file["layers/kernel"][:].tobytes() == SECRET)


# -- S13: torch.distributed.checkpoint -----------------------------------------------------------


def distributed(root):
    """A folder as torch.distributed writes it, whose index is a pickle that runs something."""
    marker = Path(root) / "executed"

    def trial(protocol, nested):
        folder = Path(root) / f"dcp{protocol}{nested}"
        folder.mkdir()
        call = Payload(Path.touch, marker)
        data = pickle.dumps({"state_dict_metadata": call} if nested else call, protocol)
        (folder / ".metadata").write_bytes(data)
        (folder / "__0_0.distcp").write_bytes(data)
        stays_shut(folder, marker)
        refused(root, FILES[protocol % 3], data, marker)

    return [lambda p=p, n=n: trial(p, n) for p in range(6) for n in (False, True)]


def index_unpickled(root):
    """torch's own reader of such a folder runs it."""
    marker = Path(root) / "executed"
    (Path(root) / ".metadata").write_bytes(pickle.dumps(Payload(Path.touch, marker)))
    try:
        FileSystemReader(root).read_metadata()
    except Exception:
        return int(marker.exists())
    return int(marker.exists())


ROWS = [
    Row("S4", ".keras files that run something", keras_files, opened_unsafely, share=6),
    Row("S5", "HDF5 files that lead to others", hdf5_files, followed_by_h5py, share=6),
    Row("S13", "folders of torch.distributed that run something", distributed, index_unpickled,
        share=6),
]  # fmt: skip
