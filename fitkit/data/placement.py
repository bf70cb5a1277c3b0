"""Where arrays lie: devices by one name each, and whether arrays fit on one."""

import torch

from fitkit.data.structure import Structure, leaves, map_leaves

RESIDENT_SHARE = 0.5  # of the free memory; the rest is left to the model and its activations


def canonical(device: torch.device | str) -> torch.device:
    """Give the device with its index, so that "cuda" equals the device of a tensor on it."""
    device = torch.device(device)
    if str(device) == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return device


def free_bytes(device: torch.device) -> int | None:
    """Give the free memory of a CUDA device in bytes, None where it is not asked for."""
    if device.type != "cuda":
        return None
    return torch.cuda.mem_get_info(device)[0]


def fits(arrays: Structure, device: torch.device) -> bool:
    """Whether the arrays take at most `RESIDENT_SHARE` of what is free on the device."""
    free = free_bytes(device)
    needed = sum(leaf.nbytes for _, leaf in leaves(arrays) if leaf.device != device)
    return free is None or needed <= RESIDENT_SHARE * free


def place(structure: Structure, device: torch.device) -> Structure:
    """Give the structure with every tensor on the device; tensors already there are not copied."""
    return map_leaves(lambda leaf: leaf.to(device), structure)
