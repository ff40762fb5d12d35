"""The report's network in plain PyTorch, as a user of fastai or Lightning would write it."""

from torch import nn


def build_network(num_labels: int) -> nn.Sequential:
    """Return the network with He initialisation, as PyTorch's default learns slowly at first."""
    network = nn.Sequential(
        *(nn.Conv2d(3, 20, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(20, 40, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(40, 20, 1), nn.ReLU()),
        *(nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(50, 100, 7), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(900, 2048), nn.ReLU()),
        *(nn.Linear(2048, 512), nn.ReLU()),
        nn.Linear(512, num_labels),
    )
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.constant_(layer.bias, 0)  # type: ignore[arg-type]
    return network
