"""A network for tests whose map is each patch's mean brightness: what it weights can be drawn."""

import torch
from torch import nn

from ames.backbones.base import FeatureMaps, MapBackbone


class Brightness(MapBackbone):
    """Patches of ``multiple`` pixels; features of a cell: mean blue, green, red, and 1; global: their mean.

    ``norm`` and ``attention`` fall with the darkness of a patch, so that the brightest comes first.
    """

    name, local_dim, global_dim = "brightness", 4, 4
    mean, std, channels = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bgr"

    def __init__(self, patch=14, long_side=112, scales=(1.0,)):
        nn.Module.__init__(self)
        self.multiple, self.long_side, self.scales = patch, long_side, scales
        self.gain = nn.Parameter(torch.ones(1))

    def maps(self, images):
        cells = nn.functional.avg_pool2d(images * self.gain, self.multiple)
        local = torch.cat([cells, torch.ones_like(cells[:, :1])], 1)
        return FeatureMaps(local, local.mean((2, 3)), cells.mean(1))

    def centers(self, rows, columns, height, width):
        grid = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
        return torch.stack(grid, -1) * self.multiple

    def provenance(self):
        return {"backbone": self.name, "patch": self.multiple}
