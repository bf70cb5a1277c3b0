"""Where pictures are drawn: matplotlib, imported only when somebody asks for one."""

from typing import Any

__all__ = ["axes_or_new"]


def axes_or_new(axes: Any) -> Any:
    """Return the given matplotlib axes, or those of a new figure.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    if axes is not None:
        return axes
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "plot() needs matplotlib, which is not installed\n"
            "Install it: pip install 'fitkit[plots]'."
        ) from error
    draw: Any = pyplot
    return draw.subplots(figsize=(6, 3.5), layout="constrained")[1]
