"""The baseline once more, by hand in PyTorch: what the training step is measured against. Nothing else needs torch.

ResNet-50 with a stem per modality and stride 1 in layer4, GeM pooling, BN neck, classifier, cross entropy with label
smoothing, SGD with momentum; channels_last, the form in which PyTorch is fastest on a CPU. Layer names are
torchvision's, so that the weights of the JAX network can be copied over and both shown to be the same function.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_MEAN, _STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def _conv(before: int, after: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, stride, size // 2, bias=False)


class Stem(nn.Module):
    """7x7/2, BatchNorm, ReLU, max-pool."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(3, 64, 7, 2), nn.BatchNorm2d(64)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 64, H/4, W/4]."""
        return nn.functional.max_pool2d(torch.relu_(self.bn1(self.conv1(x))), 3, 2, 1)


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(before, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.downsample = None
        if before != 4 * width:
            self.downsample = nn.Sequential(_conv(before, 4 * width, 1, stride), nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 4 width, H/stride, W/stride]."""
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = torch.relu_(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu_(y + (x if self.downsample is None else self.downsample(x)))


class Baseline(nn.Module):
    """Backbone and head."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.visible_stem, self.infrared_stem = Stem(), Stem()
        before = 64
        for index, (blocks, stride) in enumerate(zip((3, 4, 6, 3), (1, 2, 2, 1), strict=True)):
            width, stage = 64 * 2**index, []
            for block in range(blocks):
                stage.append(Bottleneck(before, width, stride if block == 0 else 1))
                before = 4 * width
            setattr(self, f"layer{index + 1}", nn.Sequential(*stage))
        self.neck = nn.BatchNorm1d(2048)
        self.neck.bias.requires_grad_(False)
        self.classifier = nn.Linear(2048, num_classes, bias=False)

    def forward(self, images: Tensor, *, paired: bool) -> tuple[Tensor, Tensor]:
        """[B, H, W, 3] uint8 -> logits and embeddings; paired rows alternate between the stems, others are visible."""
        x = (images.permute(0, 3, 1, 2).float() / 255 - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_STD)[
            :, None, None
        ]
        if paired:
            both = torch.stack([self.visible_stem(x[0::2]), self.infrared_stem(x[1::2])], dim=1)
            x = both.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        else:
            x = self.visible_stem(x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        features = x.float().clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3)
        embeddings = self.neck(features)
        return self.classifier(embeddings), embeddings


class Reference:
    """Network, loss and update, with the weights of a JAX state."""

    def __init__(self, params: Any, *, num_classes: int, label_smoothing: float, dtype: str) -> None:
        self.network = Baseline(num_classes)
        _copy(params["backbone"], self.network)
        _copy(params["head"], self.network)
        self.network.to(memory_format=torch.channels_last)
        self.loss = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.SGD(trained, lr=1e-3, momentum=0.9, weight_decay=5e-4)
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")

    def train_step(self, images: np.ndarray, labels: np.ndarray) -> float:
        """One update; the loss before it."""
        self.network.train()
        self.optimizer.zero_grad()
        with self.autocast:
            logits, _ = self.network(torch.from_numpy(images), paired=True)
        loss = self.loss(logits.float(), torch.from_numpy(labels).long())
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def embed(self, images: np.ndarray) -> np.ndarray:
        """[B, 2048] of visible images."""
        self.network.eval()
        with torch.no_grad(), self.autocast:
            return self.network(torch.from_numpy(images), paired=False)[1].float().numpy()


def _copy(tree: Any, module: nn.Module) -> None:
    """Write a Flax tree into the module of the same names; every parameter of the tree must have its place."""
    names = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    for name, value in tree.items():
        if isinstance(value, dict):
            _copy(value, module.get_submodule(name))
            continue
        array = np.asarray(value)
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        with torch.no_grad():
            module.get_parameter(names[name]).copy_(torch.tensor(array.copy()))
