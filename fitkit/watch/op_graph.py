"""The graph of a model: its operations by layer, found by calling it once with fake tensors."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fitkit.data.structure import leaves, map_leaves
from fitkit.interop import is_keras, modules_of

__all__ = ["Node", "graph_of", "graph_proto"]

_SILENT = {"detach", "alias", "t", "lift_fresh"}  # a name for the same numbers
_Call = Callable[..., Any]


class Node(NamedTuple):
    """One operation.

    Attributes:
        name: Path of its layer and name, unique.
        op: What TensorBoard calls it.
        inputs: Names of the nodes it reads.
        shape: Of its first output.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]


def graph_of(model: nn.Module, inputs: Any) -> list[Node]:
    """Return the operations of a model in the order of a forward pass.

    Nothing is computed: weights, statistics and random streams stay as they are.

    Args:
        model: In eval mode while it is called.
        inputs: Of a batch, as the model gets them.

    Raises:
        Exception: Whatever a model does that cannot be called like that.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.no_grad():
        given = map_leaves(fake.from_tensor, inputs)
        recorder = _Recorder(model)
        for path, leaf in leaves(given, "inputs"):
            recorder.put(leaf, recorder.node(path, "Placeholder", (), leaf))
        with _in_eval_mode(model), recorder.told_of_layers(), recorder:
            outputs = _called(model, given)
        for path, leaf in leaves(outputs, "outputs"):
            recorder.node(path, "Output", recorder.sources([leaf]), leaf)
    return recorder.nodes


def graph_proto(nodes: Iterable[Node]) -> bytes:
    """Return a serialized `GraphDef`."""
    protos: Any = [
        import_module(f"tensorboard.compat.proto.{name}_pb2")
        for name in ("graph", "node_def", "attr_value", "tensor_shape", "versions")
    ]
    graph, node_def, attr_value, shapes, versions = protos

    def shape_of(node: Node) -> Any:
        dims = [shapes.TensorShapeProto.Dim(size=size) for size in node.shape]
        values = attr_value.AttrValue.ListValue(shape=[shapes.TensorShapeProto(dim=dims)])
        return attr_value.AttrValue(list=values)

    listed = [
        node_def.NodeDef(
            name=node.name, op=node.op, input=node.inputs, attr={"_output_shapes": shape_of(node)}
        )
        for node in nodes
    ]
    return graph.GraphDef(
        node=listed, versions=versions.VersionDef(producer=22)
    ).SerializeToString()


class _Recorder(TorchDispatchMode):
    """Notes every operation, the layer it is in, and where its inputs come from."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]  # torch leaves it open
        self.nodes: list[Node] = []
        self._model = model
        self._scope: list[str] = []
        self._numbers: Counter[str] = Counter()
        self._makers: dict[int, str] = {}
        self._alive: list[Tensor] = []  # an id belongs to one tensor only while it lives
        self._weights = {id(p): name for name, p in model.named_parameters()}
        self._weights |= {id(b): name for name, b in model.named_buffers()}
        if is_keras(model, "Layer"):
            variables: list[Any] = cast(Any, model).variables
            self._weights |= {id(v.value): v.path.replace("/", ".") for v in variables}

    def node(self, name: str, op: str, inputs: tuple[str, ...], like: Tensor) -> str:
        """Add a node in the current layer; return its unique name."""
        path = "/".join([*self._scope, name])
        self._numbers[path] += 1
        number = self._numbers[path]
        unique = path if number == 1 else f"{path}_{number}"
        self.nodes.append(Node(unique, op, inputs, tuple(map(int, like.shape))))
        return unique

    def put(self, tensor: Tensor, node: str) -> None:
        """Note which node a tensor comes from."""
        self._makers[id(tensor)] = node
        self._alive.append(tensor)

    def sources(self, tensors: Iterable[Tensor]) -> tuple[str, ...]:
        """Return the nodes that tensors come from; weights and constants become nodes here."""
        for tensor in tensors:
            if id(tensor) not in self._makers:
                name = self._weights.get(id(tensor), "constant").rsplit(".", 1)[-1]
                op = "Parameter" if id(tensor) in self._weights else "Const"
                self.put(tensor, self.node(name, op, (), tensor))
        return tuple(self._makers[id(tensor)] for tensor in tensors)

    def __torch_dispatch__(
        self, op: Any, types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        outputs = op(*args, **(kwargs or {}))
        name = op.overloadpacket.__name__.strip("_")
        read = [leaf for _, leaf in leaves([args, kwargs or {}]) if isinstance(leaf, Tensor)]
        made = [leaf for _, leaf in leaves(outputs) if isinstance(leaf, Tensor)]
        if not made or (not read and name not in ("arange", "full", "zeros", "ones")):
            return outputs
        sources = self.sources(read)
        node = sources[0] if name in _SILENT else self.node(name, name, sources, made[0])
        for tensor in made:
            self.put(tensor, node)
        return outputs

    @contextmanager
    def told_of_layers(self) -> Generator[None]:
        """Let every layer say when it is called."""
        with ExitStack() as exits:
            pairs = cast("Iterable[tuple[str, nn.Module]]", self._model.named_modules())
            names: dict[int, str] = {id(m): n.rsplit(".", 1)[-1] for n, m in pairs}
            for module in modules_of(self._model):
                layer: Any = module
                keras = is_keras(layer, "Layer")
                name: str = layer.name if keras else names.get(id(layer), "")
                if not keras and (not name or name.isdigit()):
                    name = f"{type(layer).__name__}{name and '_'}{name}"
                method = "call" if keras else "forward"
                if layer is self._model or method in vars(layer):
                    continue  # the layers of the model are to be seen at once
                own = cast("dict[str, Any]", vars(layer))
                own[method] = self._within(name, getattr(layer, method))
                exits.callback(own.pop, method, None)
            yield

    def _within(self, name: str, call: _Call) -> _Call:
        def called(*args: Any, **kwargs: Any) -> Any:
            self._scope.append(name)
            try:
                return call(*args, **kwargs)
            finally:
                self._scope.pop()

        return called


@contextmanager
def _in_eval_mode(model: nn.Module) -> Generator[None]:
    modes = [(module, module.training) for module in modules_of(model)]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _called(model: Any, inputs: Any) -> Any:
    if is_keras(model, "Layer"):
        return model(inputs, training=False) if model._call_has_training_arg else model(inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, list | tuple) else model(inputs)
