"""Two steps of each network under DDP: `two_processes.py <rank> <rendezvous file> <names …>`."""

import sys

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from lightning_opplan import get_model
from tests.helpers.networks import ONE_EACH, clips_for


class Loss(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, clips):
        return torch.stack(self.network.forward_heads(clips)).logsumexp(2).mean()


def main(rank, rendezvous, names):
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    for name in names:
        for checkpointing in (False, True):
            torch.manual_seed(0)
            options = {"depths": ONE_EACH, "activation_checkpointing": checkpointing}
            network = get_model(name, num_classes=3, **options).to_channels_last()
            parallel = DistributedDataParallel(Loss(network))
            for _ in range(2):
                parallel(clips_for(name, seed=rank)).backward()
            sums = torch.stack([parameter.grad.double().sum() for parameter in network.parameters()])
            first = sums.clone()
            distributed.broadcast(first, 0)
            assert torch.equal(sums, first), name
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
