"""What the package does on a CUDA GPU, on a fake one: every tensor is on the right device, and the GPU's own paths."""

import copy
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from factories import TASK, quick, rain, tiny_model, tiny_sphere, waves
from fake_cuda import fake_cuda
from torch import nn

from simvp_climate.forecasting.forecaster import Forecaster
from simvp_climate.networks.simvp_v2 import SimVPv2
from simvp_climate.processing import tensors
from simvp_climate.processing.task import Task
from simvp_climate.training import checkpoint, distributed, loop, memory
from simvp_climate.training.loader import Plan, WindowStream
from simvp_climate.training.train import train


@pytest.fixture
def fused(monkeypatch):
    """Optimizers with plain operations, as the meta device has no fused ones; the list says which would be fused."""
    make, fused = loop._make_optimizer, []

    def make_plain(*arguments):
        optimizer = make(*arguments)
        fused.append(optimizer.defaults["fused"])
        for group in (optimizer.defaults, *optimizer.param_groups):
            group["fused"] = False
        return optimizer

    monkeypatch.setattr(loop, "_make_optimizer", make_plain)
    return fused


@pytest.fixture
def states(monkeypatch):
    """The states that a run would save."""
    states = []
    monkeypatch.setattr(checkpoint, "save", lambda run, plans, state: states.append(state))
    return states


def with_land(ds):
    land = np.zeros(ds["t2m"].shape[1:], bool)
    land[:3, :5] = True
    return ds.assign(t2m=ds["t2m"].where(~land))


def devices(values) -> set[str]:
    return {value.device.type for value in values}


def on_gpu(ds, task=TASK, valid=None, model=None, **changes) -> Forecaster:
    return train(task, ds, valid=valid, model=model or tiny_model(), config=quick(**changes), device="cuda")


def test_tensors_of_two_devices_do_not_mix(monkeypatch):
    with fake_cuda(monkeypatch) as gpu:
        value, other = torch.ones(3, device="cuda"), torch.ones(3)
        with pytest.raises(AssertionError, match=r"aten::mul has tensors of shapes \[\(3,\)\] on the host"):
            value * other
        assert (value * other.to(torch.device("cuda")) * torch.tensor(2.0)).device.type == "meta"
        assert gpu.reads == []
        assert gpu.blocking == [(3,)]
        whole = torch.empty(4, 6, pin_memory=True)
        whole.to("cuda", non_blocking=True), whole.T.to("cuda", non_blocking=True), whole[1:].pin_memory()
        assert gpu.blocking == [(3,)]
        # pageable; waited for; in parts; converted; an index
        other.to("cuda", non_blocking=True), whole.to("cuda"), whole[:, 1:].to("cuda", non_blocking=True)
        whole.to("cuda", torch.float16, non_blocking=True), value[[0, 2]]
        assert gpu.blocking[1:] == [(3,), (4, 6), (4, 5), (4, 6), (2,)]
        assert other.to("cuda").cpu().tolist() == [1, 1, 1] and (value + 1).tolist() == [0, 0, 0]
        assert float(value.sum()) == 0 and bool(value.sum().isfinite())
        assert len(gpu.reads) == 4


@pytest.mark.parametrize(
    ("precision", "bfloat16", "expected"),
    [("auto", True, "bf16-mixed"), ("auto", False, "32-true"), ("16-mixed", True, "16-mixed")],
)
def test_training_and_forecasts_keep_to_the_gpu(precision, bfloat16, expected, monkeypatch, fused, states):
    ds = with_land(waves(times=30))
    task = Task(["z500", "t2m"], history=2, horizon=3, forcings=["insolation", "coordinates"])
    dtypes, forward = set(), SimVPv2.forward

    def note_dtype(self, *inputs):
        outputs = forward(self, *inputs)
        dtypes.add(torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else torch.float32)
        return outputs

    monkeypatch.setattr(SimVPv2, "forward", note_dtype)
    monkeypatch.setattr(memory, "check_step", lambda *_: None)  # calls the network in float32
    with fake_cuda(monkeypatch, bfloat16=bfloat16) as gpu:
        trained = on_gpu(
            ds.isel(time=slice(0, 16)), task, ds.isel(time=slice(16, 28)), tiny_model(padding="sphere", drop_path=0.3),
            rollout=2, rollout_share=1.0, precision=precision, batch_size=6, activation_checkpointing=not bfloat16,
        )  # fmt: skip
        provenance, parameters = trained.provenance, dict(trained.network.named_parameters())
        assert devices(trained.network.state_dict().values()) == {"meta"}
        half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32-true": torch.float32}[expected]
        assert dtypes == {half}
        # forecasts are in float32
        dtypes.clear()
        forecast = trained(ds, every="12h", horizon=7)
    assert dtypes == {torch.float32}
    assert (provenance["config"]["precision"], provenance["device"]) == (expected, "Fake GPU")
    assert fused == [expected != "16-mixed"], "fused optimizers cannot clip the scaled gradients of fp16"
    # the GPU of the caller has its random numbers back
    assert gpu.restored == [("state of cuda:0", "cuda:0")]
    weight = parameters["encoder.1.conv.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    assert forecast["t2m"].shape == (14, 7, 8, 16)
    saved = states[-1]
    assert saved["scaler"].keys() >= ({"scale", "growth_factor"} if expected == "16-mixed" else set())
    moments = [slot[name] for slot in saved["optimizer"]["state"].values() for name in ("exp_avg", "exp_avg_sq")]
    assert devices([*saved["ema"].values(), *saved["selected"].values(), *moments]) == {"meta"}
    assert len(moments) == 2 * len(parameters)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_muon_and_the_network_for_the_sphere_keep_to_the_gpu(precision, monkeypatch, fused, states):
    ds = with_land(waves(times=16))
    task = Task(["z500", "t2m"], history=2, horizon=3, forcings=["insolation"])
    with fake_cuda(monkeypatch):
        model = tiny_sphere(padding="sphere", blocks=1)
        trained = on_gpu(ds, task, model=model, optimizer="muon", precision=precision)
        assert trained(ds, every="1D")["t2m"].shape == (3, 3, 8, 16)
    assert fused == [precision == "bf16-mixed"]
    assert devices(trained.network.state_dict().values()) == {"meta"}
    momenta = [slot["momentum"] for slot in states[-1]["optimizer"]["state"].values() if "momentum" in slot]
    # the encoder, the convolutions of the gated block, the four matrices of the spectral block and the decoder; the
    # others have less than 16 rows
    assert [momentum.shape[:2] for momentum in momenta] == [(32, 8), (64, 32), (32, 32), *[(64, 32)] * 4, (16, 32)]
    assert devices(momenta) == {"meta"}


def test_transforms_bounds_and_diagnostics_keep_to_the_gpu(monkeypatch, fused):
    ds = rain(days=30).assign(t2m=lambda ds: (280 + ds.tp24h * 100).assign_attrs(units="K"))
    task = Task(["tp24h"], inputs=["t2m"], history=2, horizon=2, step="1D", transforms={"tp24h": "log"})
    with fake_cuda(monkeypatch):
        forecast = on_gpu(ds, task, optimizer="adam", weight_decay=0.0, loss_normalization="state")(ds, every="1D")
    assert forecast["tp24h"].shape[1:] == (2, 4, 8)
    assert fused == [True]


@pytest.mark.parametrize(
    ("variables", "inputs", "rollout", "room", "model", "optimizer"),
    [(["z500", "t2m"], [], 2, False, tiny_sphere(), "muon"), (["z500"], ["t2m"], 1, True, tiny_model(), "adamw")],
)
def test_the_host_waits_for_the_gpu_only_when_it_checks_losses(
    variables, inputs, rollout, room, model, optimizer, monkeypatch, fused
):
    waits = []
    train_epoch = loop.TrainingLoop._train_epoch

    def count_waits(self):
        reads, blocking = len(gpu.reads), len(gpu.blocking)
        speed = train_epoch(self)
        waits.append((len(gpu.reads) - reads, gpu.blocking[blocking:]))
        assert len(self.stream) == 9 and self.stream._states.device.type == ("meta" if room else "cpu")
        return speed

    monkeypatch.setattr(loop.TrainingLoop, "_train_epoch", count_waits)
    monkeypatch.setattr(loop, "LOSS_CHECK_EVERY", 4)
    monkeypatch.setattr(memory, "free_bytes", lambda fabric: 2**30)  # the network fits
    task = Task(variables, inputs=inputs, history=2, horizon=2, forcings=["insolation", "coordinates"])
    with fake_cuda(monkeypatch, free=2**30 if room else 2**10) as gpu:
        ds, changes = waves(times=19 + 2 * rollout), {"rollout": rollout, "optimizer": optimizer}
        on_gpu(ds, task, model=model, batch_size=2, precision="bf16-mixed", **changes)
    assert waits == [(3, [])], "9 batches: after 4, after 8 and at the end"


@pytest.mark.parametrize("room", [True, False])
def test_states_are_kept_on_the_gpu_if_they_take_less_than_half_of_it(room, monkeypatch, fused):
    ds = waves(times=30)
    bytes_of_states = 30 * 2 * 8 * 16 * 4  # times, channels, grid, float32
    batches, kept = [], []
    fill = WindowStream._fill_batches

    def note(self, groups, first):
        kept.append(self._states.device.type)
        for batch in fill(self, groups, first):
            batches.append(batch.states.device.type)
            yield batch

    monkeypatch.setattr(WindowStream, "_fill_batches", note)
    monkeypatch.setattr(memory, "free_bytes", lambda fabric: 2**30)  # the network fits
    with fake_cuda(monkeypatch, free=2 * bytes_of_states + room) as gpu:
        on_gpu(ds, batch_size=5)
    assert set(batches) == set(kept) == {"meta" if room else "cpu"} and len(batches) == 6
    # four batches in pinned memory, each filled again once the copies of its batch are done
    ring = [memory.shape for memory in gpu.pinned if memory.dim() == 2]
    assert ring == ([] if room else [(5 * 4, 2 * 8 * 16)] * 4)
    assert gpu.awaited == ([] if room else [0, 1])


def test_on_the_cpu_no_memory_is_pinned_where_there_is_a_gpu(monkeypatch):
    states = np.arange(9 * 2, dtype=np.float32).reshape(9, 1, 1, 2)
    source = SimpleNamespace(shape=(1, 1, 2), state_bytes=8)
    with fake_cuda(monkeypatch) as gpu:
        stream = WindowStream([source], [np.arange(9)[:, None]], batch_size=1, plan=Plan("memory"), states=states)
        assert sorted(batch.states[0, 0, 0, 0, 0].item() for batch in stream.epoch(0)) == list(range(0, 18, 2))
    assert gpu.pinned == gpu.events == []


def test_free_memory_of_the_gpu_decides_what_fits(monkeypatch):
    # the tiny network takes 0.09 MB in training, the activations of 7 windows 0.6 MB
    with fake_cuda(monkeypatch, free=10**5):
        fabric = distributed.start("cuda", "32-true", None)
        assert fabric.device == torch.device("cuda", 0)
        assert memory.free_bytes(fabric) == 10**5 + 3000 - 1000  # what torch has reserved and not used is free
        with pytest.raises(MemoryError, match=r"network has .* weights, .*and 9.5e-05 GiB are free"):
            on_gpu(waves(times=30), model=tiny_model(hidden_time=256))
        with pytest.raises(MemoryError, match=r"a step of batch_size=8 \(7 windows at a time\) keeps at least"):
            on_gpu(waves(times=30))


# to load weights into the meta device has no effect
@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter:UserWarning")
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_saved_state_returns_to_the_gpu(name, monkeypatch):
    network = SimVPv2(tiny_model(padding="zeros", hidden_time=32), history=2, channels=2)
    cpu = SimpleNamespace(device=torch.device("cpu"))
    optimizer = loop._make_optimizer(network, quick(optimizer=name), cpu)
    sum(weight.sum() for weight in network.parameters()).backward()
    optimizer.step()
    fabric = SimpleNamespace(world_size=1, is_global_zero=True)
    scaler, losses = nn.Identity(), loop.LossMonitor(fabric, np.ones(1))
    saved = copy.deepcopy(loop.TrainingState(network, optimizer, scaler, losses, {}).to_dict(fabric))
    with fake_cuda(monkeypatch):
        network.to("cuda")
        state = loop.TrainingState(network, optimizer, scaler, losses, {})
        state.restore(saved, fabric)
        assert devices([*state.ema.values(), *state.selected.values()]) == {"meta"}
        slots = [slot[key] for slot in optimizer.state.values() for key in ("exp_avg", "momentum") if key in slot]
        assert devices(slots) == {"meta"} and len(slots) == len(optimizer.state)
        loop._update_ema(state.ema, network, 0.9, 3)


def test_a_forecaster_is_loaded_onto_the_gpu(monkeypatch, tmp_path, forecaster):
    forecaster.save(tmp_path / "f.safetensors")
    with fake_cuda(monkeypatch):
        assert tensors.choose_device("auto") == "cuda"
        loaded = Forecaster.load(tmp_path / "f.safetensors", compile=False)
        assert devices(loaded.network.state_dict().values()) == {"meta"}
        assert loaded(waves())["z500"].shape == (1, 3, 8, 16)
        assert loaded.forcings(["2001-01-01"]).shape == (1, 3, 0, 8, 16)


def test_several_gpus_share_batch_norms_and_there_must_be_enough(monkeypatch):
    class TwoProcesses:
        world_size, device = 2, torch.device("cuda", 0)

    network = SimVPv2(tiny_model(padding="zeros"), history=2, channels=2)
    names = list(network.state_dict())
    prepared = distributed.prepare(network, TwoProcesses)
    kinds = [type(module) for module in prepared.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert kinds == [nn.SyncBatchNorm] * 4 and list(prepared.state_dict()) == names
    monkeypatch.setattr(distributed, "count", lambda: (2, 1))
    message = "2 processes on a machine need 2 GPUs, and 1 are visible: start one for each (srun --gpus-per-node"
    with fake_cuda(monkeypatch), pytest.raises(ValueError, match=re.escape(message)):
        distributed.start("cuda", "32-true", None)
