"""Weights, gradients and moments split over devices: PyTorch's FSDP2 (Zhao et al., "PyTorch FSDP", 2023)."""

from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


class FullyShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2 with all devices in one group; checkpoints are single files as everywhere else.

    Lightning's FSDPStrategy is of the first FSDP and refuses a CPU.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_processes * self.num_nodes
        super().setup_environment()


def shard(task: Any) -> None:
    """Splits each layer of a task's model, and the rest of it as one; does nothing where that is done.

    Args:
        task: a LightningModule whose `forward` uses all of `task.model`.
    """
    if isinstance(task, FSDPModule):
        return
    mesh = task.device_mesh["data_parallel"]
    embedding = task.model.get_input_embeddings()  # may be the output's too, which is in the rest
    for module in task.model.modules():
        holds_embedding = any(child is embedding for child in module.modules())
        if type(module).__name__ in task.model._no_split_modules and not holds_embedding:
            fully_shard(module, mesh=mesh)
    fully_shard(task, mesh=mesh)


def is_sharded(task: nn.Module) -> bool:
    return isinstance(task, FSDPModule)


@torch.no_grad()
def load_whole(task: Any, state: dict[str, Any]) -> None:
    """`load_state_dict` of whole weights, also where the task's own are split; what is frozen may be left out.

    A weight at a time: the checkpoint function of torch would hold all of them on the device once more.
    """
    if not is_sharded(task):
        task.load_state_dict(state, strict=task.strict_loading)
        return
    own = task.state_dict()
    if task.strict_loading and (odd := own.keys() ^ state.keys()):
        raise RuntimeError(f"the weights are not those of the model: {min(odd)} is missing in one of them")
    for name in [name for name in own if name in state]:
        weight, whole = own[name], state[name]
        if isinstance(weight, DTensor):
            whole = distribute_tensor(
                whole.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None
            )
        weight.copy_(whole)


def local(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """This device's parts of tensors, which may be changed in place."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
