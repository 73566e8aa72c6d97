"""A CUDA GPU that computes nothing: its tensors are on the meta device, which has shapes, types and a device alone.

Everything else is as on a GPU: whatever mixes tensors of host and GPU is an error, and `torch.cuda` says that there is
one. Numbers that the host reads are those that it sent, or 0 (True, if logical) if the GPU would have computed them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from lightning_fabric import Fabric
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from simvp_climate.networks import depthwise

MOVES = ("aten::_to_copy", "aten::copy_")  # these may have tensors on two devices
# types that autocast on CUDA converts to; None: half precision
AUTOCAST = {torch.conv2d: None, torch.group_norm: torch.float32}


def _is_cuda(value: object) -> bool:
    if isinstance(value, torch.device):
        return value.type == "cuda"
    return isinstance(value, str) and value.split(":")[0] == "cuda"


class _CudaIsMeta(TorchFunctionMode):
    """Take the meta device wherever a function of torch is asked for a CUDA device, and memory without pinning it."""

    def __init__(self, log: SimpleNamespace):
        super().__init__()
        self.log = log

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function is torch.Tensor.backward:
            with self:  # activations may be recomputed
                return torch.autograd.backward(args[0])
        if function is torch.Tensor.to or "device" in kwargs:
            args, kwargs = tree_map(lambda value: "meta" if _is_cuda(value) else value, (args, kwargs))
        pin = kwargs.pop("pin_memory", False)
        if function in (torch.tensor, torch.as_tensor) and kwargs.get("device") == "meta":
            # as on a GPU, the values are sent from the host
            return function(*args, **{**kwargs, "device": "cpu"}).to("meta")
        if function in AUTOCAST and torch.is_autocast_enabled("cuda"):  # the meta device has no autocast
            dtype = AUTOCAST[function] or torch.get_autocast_dtype("cuda")
            args = [value.to(dtype) if isinstance(value, torch.Tensor) else value for value in args]
        if function is torch.Tensor.pin_memory:
            result, pin = args[0].clone(), True
        else:
            result = function(*args, **kwargs)
        if pin:
            self.log.pinned.append(result)
        if function is torch.Tensor.__getitem__ and args[0].device.type == "meta":
            # torch makes a tensor of a list, out of sight of the dispatcher, and copies it
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            self.log.blocking += [torch.Size([len(part)]) for part in index if isinstance(part, list)]
        return result


class _OneDevice(TorchDispatchMode):
    """Raise an error for operations on tensors of two devices, note copies, and answer what the host reads."""

    def __init__(self, log: SimpleNamespace):
        super().__init__()
        self.log = log

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, function._schema.name
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
        on_gpu = [tensor for tensor in tensors if tensor.device.type == "meta"]
        if name == "aten::_local_scalar_dense" and on_gpu:
            return self._read(on_gpu[0]).item()
        if (
            name == "aten::_to_copy"
            and torch.device(kwargs.get("device") or tensors[0].device).type == "cpu"
            and on_gpu
        ):
            return self._read(on_gpu[0]).to(kwargs.get("dtype") or on_gpu[0].dtype)
        # numbers without dimensions may stay on the host
        strangers = [tensor for tensor in tensors if tensor.device.type != "meta" and tensor.dim()]
        if on_gpu and strangers and name not in MOVES:
            shapes = [tuple(tensor.shape) for tensor in strangers]
            raise AssertionError(f"{name} has tensors of shapes {shapes} on the host, and others on the GPU")
        result = function(*args, **kwargs)
        if name == "aten::_to_copy" and not on_gpu and result.device.type == "meta":
            result.sent = args[0].detach().clone()
            self._note_copy(args[0], result, kwargs.get("non_blocking"))
        if name == "aten::copy_" and result.device.type == "meta" and args[1].device.type == "cpu":
            self._note_copy(args[1], result, kwargs.get("non_blocking") or args[2:] == (True,))
        return result

    def _note_copy(self, host, gpu, non_blocking):
        """Note a copy to the GPU for which the host waits: one of other than whole pinned memory, or that converts."""
        by_stride = sorted(range(host.dim()), key=host.stride, reverse=True)
        pinned = {tensor.untyped_storage().data_ptr() for tensor in self.log.pinned}
        if not (
            non_blocking
            and host.untyped_storage().data_ptr() in pinned
            and host.permute(by_stride).is_contiguous()
            and host.dtype == gpu.dtype
        ):
            self.log.blocking.append(host.shape)

    def _read(self, tensor):
        self.log.reads.append(tensor.shape)
        if hasattr(tensor, "sent"):
            return tensor.sent
        return torch.full(tensor.shape, tensor.dtype == torch.bool, dtype=tensor.dtype, device="cpu")


@contextmanager
def fake_cuda(monkeypatch, free: int = 2**30, bfloat16: bool = True) -> Iterator[SimpleNamespace]:
    """Provide a fake GPU with some bytes of free memory; yield what it was asked for."""
    # for each copy to the GPU in `blocking` and from it in `reads`, the host waits
    log = SimpleNamespace(pinned=[], blocking=[], reads=[], restored=[], events=[], awaited=[])

    def record_event():
        log.events.append(len(log.events))
        event = log.events[-1]
        return SimpleNamespace(synchronize=lambda: log.awaited.append(event))

    answers = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda device=None: "Fake GPU",
        "get_device_capability": lambda device=None: (7, 0),
        "is_bf16_supported": lambda including_emulation=True: bfloat16,
        "mem_get_info": lambda device=None: (free, 2 * free),
        "memory_reserved": lambda device=None: 3000,
        "memory_allocated": lambda device=None: 1000,
        "empty_cache": lambda: None,
        "is_current_stream_capturing": lambda: False,
        "get_rng_state": lambda device=None: f"state of {device}",
        "set_rng_state": lambda state, device=None: log.restored.append((state, str(device))),
        "current_stream": lambda device=None: SimpleNamespace(record_event=record_event),
    }
    monkeypatch.setattr(depthwise._DepthwiseConv2d, "apply", depthwise._plain_conv2d)  # the other one is of CPUs
    # Fabric takes the meta device for a network that has no values yet
    monkeypatch.setattr(Fabric, "_validate_setup_optimizers", lambda self, optimizers: None)
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    swap = torch.__future__.get_swap_module_params_on_conversion()
    # else a module that moves gets new parameters, which its optimizer does not have
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with _OneDevice(log), _CudaIsMeta(log):
            yield log
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swap)
