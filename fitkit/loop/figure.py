"""Where pictures are drawn: matplotlib, imported only when somebody asks for one."""

from typing import Any

__all__ = ["axes_or_new", "new_figure"]


def axes_or_new(axes: Any) -> Any:
    """Return the given matplotlib axes, or those of a new figure.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    return new_figure(6, 3.5).subplots() if axes is None else axes


def new_figure(width: float, height: float, *, shown: bool = True) -> Any:
    """Return an empty matplotlib figure.

    Args:
        width: Inches.
        height: Inches.
        shown: Whether notebooks and `pyplot.show()` know it; a figure for a file needs no display.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        if shown:
            from matplotlib import pyplot as module
        else:
            from matplotlib import figure as module
    except ImportError as error:
        raise ImportError(
            "a plot needs matplotlib, which is not installed\n"
            "Install it: pip install 'fitkit[plots]'."
        ) from error
    make: Any = module
    make = make.figure if shown else make.Figure
    return make(figsize=(width, height), layout="constrained")
