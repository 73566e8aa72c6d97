"""The networks that `rivals.py` compares: ResNet, ConvNeXt U-Net, SFNO, vision transformers; 0.3 to 1 M parameters.

Each function returns a network for a `sc.NetworkShape`. All take the input states and forcings stacked along the
channels, treat longitude as periodic and predict the change from the last input state, in units of the typical change.

Shape suffixes: B batch, T time, C channel of the states, F forcing, D stacked or hidden channel, H latitude,
W longitude; M zonal and L total wavenumber.
"""

import math

import torch
import torch.nn.functional as F
import torch.nn.utils.parametrize
from torch import Tensor, nn


class ChangeNetwork(nn.Module):
    """Turn a network of stacked fields, (B, D, H, W) in and out, into one that predicts the change of the states."""

    def __init__(self, fields: nn.Module, shape, multiple: int = 1):
        super().__init__()
        self.fields, self.multiple = fields, multiple
        self.history, self.channels, self.forcings = shape.history, shape.channels, shape.forcings
        self.output_channels, self.shared_channels = shape.output_channels, shape.shared_channels
        # multiplies the predicted change; training sets it to the typical change per lead and channel
        self.register_buffer("change_scale_TC", torch.ones(self.history, self.shared_channels))

    def forward(self, x_BTCHW: Tensor, f_BTFHW: Tensor | None = None) -> Tensor:
        H, W = x_BTCHW.shape[-2:]
        inputs_BTCHW = x_BTCHW if f_BTFHW is None else torch.cat([x_BTCHW, f_BTFHW], dim=2)
        rows, columns = (-size % self.multiple for size in (H, W))
        inputs_BDHW = inputs_BTCHW.flatten(1, 2)
        if rows or columns:
            inputs_BDHW = F.pad(F.pad(inputs_BDHW, (0, columns, 0, 0), "circular"), (0, 0, 0, rows), "replicate")
        y_BDHW = self.fields(inputs_BDHW)[..., :H, :W]
        y_BTCHW = y_BDHW.unflatten(1, (self.history, self.output_channels))
        shared = self.shared_channels
        scale_TC11 = self.change_scale_TC[:, :, None, None]
        changed_BTCHW = x_BTCHW[:, -1:, :shared] + y_BTCHW[:, :, :shared] * scale_TC11
        return torch.cat([changed_BTCHW, y_BTCHW[:, :, shared:]], dim=2)


def channels(shape) -> tuple[int, int]:
    """Return the numbers of stacked input and output channels."""
    return shape.history * (shape.channels + shape.forcings), shape.history * shape.output_channels


def padded_grid(shape, multiple: int) -> tuple[int, int]:
    """Return the numbers of rows and columns, increased to multiples."""
    return tuple(size + -size % multiple for size in shape.grid)


class PeriodicConv(nn.Conv2d):
    """A convolution that keeps the size of the grid; longitude is periodic, rows beyond the poles are zeros."""

    def forward(self, x_BDHW: Tensor) -> Tensor:
        rows, columns = (d * (k - 1) // 2 for d, k in zip(self.dilation, self.kernel_size, strict=True))
        x_BDHW = F.pad(F.pad(x_BDHW, (columns, columns, 0, 0), mode="circular"), (0, 0, rows, rows))
        return super().forward(x_BDHW)


# ---- ResNet: S. Rasp and N. Thuerey, "Data-driven medium-range weather prediction with a Resnet pretrained on climate
# simulations", arXiv:2008.08626; 8 blocks of 64 channels instead of 19 of 128, without dropout


def resnet(shape) -> nn.Module:
    """Return the ResNet at full resolution."""
    inputs, outputs = channels(shape)
    return ChangeNetwork(
        nn.Sequential(PeriodicConv(inputs, 64, 7), *residual_blocks(8, 64), PeriodicConv(64, outputs, 3)), shape
    )


def half_resolution_resnet(shape) -> nn.Module:
    """Return the ResNet on patches of 2 x 2 cells."""
    inputs, outputs = channels(shape)
    read, write = nn.Conv2d(inputs, 64, 2, stride=2), PeriodicConv(64, 4 * outputs, 3)
    return ChangeNetwork(nn.Sequential(read, *residual_blocks(8, 64), write, nn.PixelShuffle(2)), shape, multiple=2)


def positioned_resnet(shape) -> nn.Module:
    """Return the ResNet on patches with a learned field added before the blocks, as this package's network has it."""
    network = half_resolution_resnet(shape)
    grid = [size // 2 for size in padded_grid(shape, 2)]
    network.fields.insert(1, PositionField(64, *grid))
    return network


class PositionField(nn.Module):
    """A learned value for every channel and cell."""

    def __init__(self, width: int, rows: int, columns: int):
        super().__init__()
        self.position_Dhw = nn.Parameter(torch.zeros(width, rows, columns))

    def forward(self, x_BDhw: Tensor) -> Tensor:
        return x_BDhw + self.position_Dhw


def residual_blocks(count: int, width: int) -> list[nn.Module]:
    return [ResidualBlock(width) for _ in range(count)]


class ResidualBlock(nn.Sequential):
    """Two times convolution, LeakyReLU, batch norm; with a shortcut."""

    def __init__(self, width: int):
        layers = ([PeriodicConv(width, width, 3), nn.LeakyReLU(0.3), nn.BatchNorm2d(width)] for _ in range(2))
        super().__init__(*(layer for pair in layers for layer in pair))

    def forward(self, x_BDHW: Tensor) -> Tensor:
        return x_BDHW + super().forward(x_BDHW)


# ---- ConvNeXt U-Net: M. Karlbauer et al., "Advancing parsimonious deep learning weather prediction using the HEALPix
# mesh", arXiv:2311.06253, on this grid and without its recurrent layers, which the stacked history stands for


def convnext_unet(shape) -> nn.Module:
    """Return the U-Net: widest at full resolution, kernels dilated 1, 2 and 4 times, average pooling."""
    return ChangeNetwork(UNet(*channels(shape), widths=(32, 24, 16)), shape, multiple=4)


class UNet(nn.Module):
    def __init__(self, inputs: int, outputs: int, widths: tuple[int, ...]):
        super().__init__()
        dilations = [2**level for level in range(len(widths))]
        down = zip((inputs, *widths), widths, dilations, strict=False)
        self.encoder = nn.ModuleList(ConvNeXtBlock(*arguments) for arguments in down)
        self.bottom = ConvNeXtBlock(widths[-1], widths[-1], dilations[-1])
        up = list(zip(widths[:-1], widths[1:], dilations, strict=False))[::-1]
        self.upsample = nn.ModuleList(nn.ConvTranspose2d(deep, width, 2, stride=2) for width, deep, _ in up)
        self.decoder = nn.ModuleList(ConvNeXtBlock(2 * width, width, dilation) for width, _, dilation in up)
        self.readout = nn.Conv2d(widths[0], outputs, 1)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.encoder):
            x_BDHW = block(F.avg_pool2d(x_BDHW, 2) if level else x_BDHW)
            skips.append(x_BDHW)
        x_BDHW = self.bottom(x_BDHW)
        for upsample, block, skip_BDHW in zip(self.upsample, self.decoder, skips[-2::-1], strict=True):
            x_BDHW = block(torch.cat([skip_BDHW, upsample(x_BDHW)], dim=1))
        return self.readout(x_BDHW)


class ConvNeXtBlock(nn.Module):
    """Two 3 x 3 convolutions of four times the width, each with a capped GELU, and a linear one; with a shortcut."""

    def __init__(self, inputs: int, outputs: int, dilation: int):
        super().__init__()
        self.first = PeriodicConv(inputs, 4 * outputs, 3, dilation=dilation)
        self.second = PeriodicConv(4 * outputs, 4 * outputs, 3, dilation=dilation)
        self.last = nn.Conv2d(4 * outputs, outputs, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x_BDHW: Tensor) -> Tensor:
        y_BDHW = F.gelu(self.first(x_BDHW)).clamp(max=10)
        y_BDHW = F.gelu(self.second(y_BDHW)).clamp(max=10)
        return self.shortcut(x_BDHW) + self.last(y_BDHW)


# ---- SFNO: B. Bonev et al., "Spherical Fourier neural operators", arXiv:2306.03838, as in torch-harmonics


def sfno(shape) -> nn.Module:
    """Return the SFNO of torch-harmonics: 5 blocks of 48 channels, all wavenumbers of the grid, learned positions.

    torch-harmonics has no transform for rows at the centers of equal cells, where the grids of WeatherBench have them.
    Here its first and last transform, the only ones on the grid of the data, get the Legendre functions at these rows,
    and their pseudo-inverse in place of a quadrature: analysis then undoes synthesis for all wavenumbers. (Fejér's
    quadrature of n rows does so for total wavenumbers below n / 2 only.) An odd number of rows is taken to include the
    poles, which torch-harmonics knows. The blocks between use its default, Gauss-Legendre rows.
    """
    from torch_harmonics.examples.models import SphericalFourierNeuralOperator
    from torch_harmonics.legendre import legpoly

    inputs, outputs = channels(shape)
    rows, _ = shape.grid
    network = SphericalFourierNeuralOperator(
        img_size=tuple(shape.grid),
        grid="equiangular",
        scale_factor=1,
        in_chans=inputs,
        out_chans=outputs,
        embed_dim=48,
        num_layers=5,
        mlp_ratio=2.0,
        pos_embed="learnable latlon",
        bias=True,
    )
    if rows % 2 == 0:
        forward, inverse = network.trans_down, network.itrans_up
        colatitude = (torch.arange(rows, dtype=torch.float64) + 0.5) * math.pi / rows
        legendre_MLH = legpoly(inverse.mmax, inverse.lmax, colatitude.cos(), inverse=True)
        inverse.pct = legendre_MLH.transpose(1, 2).contiguous().to(inverse.pct)
        forward.weights = torch.linalg.pinv(legendre_MLH.transpose(1, 2)).contiguous().to(forward.weights)
    with torch.no_grad():
        # its untrained output has a standard deviation of about 10, ten times that of the changes
        network.decoder[-1].weight.mul_(0.1)
    for block in network.blocks:
        # real numbers, because running averages and fused optimizers do not take complex ones
        nn.utils.parametrize.register_parametrization(block.global_conv, "weight", AsComplex(), unsafe=True)
    return ChangeNetwork(InFloat32(network), shape)


class AsComplex(nn.Module):
    """Complex weights from their real and imaginary parts."""

    def forward(self, real: Tensor, imaginary: Tensor) -> Tensor:
        return torch.complex(real, imaginary)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return weight.real.clone(), weight.imag.clone()


class InFloat32(nn.Module):
    """Run a network in float32 under autocast: spherical harmonic transforms have no bfloat16."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x_BDHW: Tensor) -> Tensor:
        with torch.autocast(x_BDHW.device.type, enabled=False):
            return self.network(x_BDHW.float())


# ---- ViT: A. Dosovitskiy et al., arXiv:2010.11929; shifted windows: Z. Liu et al., arXiv:2103.14030


def vit(shape) -> nn.Module:
    """Return a vision transformer with full attention: patches of 2 x 2 cells, 4 blocks of 128 channels."""
    return ChangeNetwork(ViT(*channels(shape), padded_grid(shape, 2), None), shape, multiple=2)


def window_vit(shape) -> nn.Module:
    """Return a vision transformer with attention in windows of 4 x 8 patches, shifted by half in every second block."""
    return ChangeNetwork(ViT(*channels(shape), padded_grid(shape, 16), (4, 8)), shape, multiple=16)


class ViT(nn.Module):
    def __init__(self, inputs: int, outputs: int, grid: tuple[int, int], window: tuple[int, int] | None):
        super().__init__()
        width, rows, columns = 128, grid[0] // 2, grid[1] // 2
        self.read = nn.Conv2d(inputs, width, 2, stride=2)
        self.position = nn.Parameter(torch.empty(rows, columns, width))
        nn.init.trunc_normal_(self.position, std=0.02)
        shifts = [
            (0, 0) if window is None or block % 2 == 0 else (window[0] // 2, window[1] // 2) for block in range(4)
        ]
        window = window or (rows, columns)
        self.blocks = nn.ModuleList(AttentionBlock(width, 4, rows, window, shift) for shift in shifts)
        self.norm = nn.LayerNorm(width)
        self.write = nn.Linear(width, 4 * outputs)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        x_BHWD = self.read(x_BDHW).permute(0, 2, 3, 1) + self.position
        for block in self.blocks:
            x_BHWD = block(x_BHWD)
        return F.pixel_shuffle(self.write(self.norm(x_BHWD)).permute(0, 3, 1, 2), 2)


class AttentionBlock(nn.Module):
    """Attention within windows, then an MLP, each after a layer norm and with a shortcut."""

    def __init__(self, width: int, heads: int, rows: int, window: tuple[int, int], shift: tuple[int, int]):
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        mask = None
        if shift[0]:
            # the last windows of shifted rows hold rows of both poles, which must not see each other
            is_wrapped = torch.arange(rows).reshape(-1, window[0]) >= rows - shift[0]
            is_wrapped = is_wrapped.repeat_interleave(window[1], dim=1)  # (window along latitude, patch in it)
            mask = is_wrapped[:, :, None] == is_wrapped[:, None, :]
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x_BHWD: Tensor) -> Tensor:
        x_BHWD = x_BHWD + self.attend(self.norm_attention(x_BHWD))
        return x_BHWD + self.mlp(self.norm_mlp(x_BHWD))

    def attend(self, x_BHWD: Tensor) -> Tensor:
        B, H, W, D = x_BHWD.shape
        (h, w), (down, right) = self.window, self.shift
        x_BHWD = x_BHWD.roll((-down, -right), dims=(1, 2))
        qkv = self.qkv(x_BHWD).reshape(B, H // h, h, W // w, w, 3, self.heads, D // self.heads)
        # three of (batch, window along longitude, window along latitude, head, patch in the window, feature)
        q, k, v = qkv.permute(5, 0, 3, 1, 6, 2, 4, 7).flatten(5, 6)
        mask = None if self.mask is None else self.mask[:, None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        y = y.unflatten(4, (h, w)).permute(0, 2, 4, 1, 5, 3, 6).reshape(B, H, W, D)
        return self.project(y).roll((down, right), dims=(1, 2))
