"""Two processes with half a batch each against one process with the whole batch."""

import torch
import torch.multiprocessing
from torch import distributed, nn

from simvp_climate.networks.batch_norm import SynchronizedBatchNorm2d, synchronize_batch_norms


def norm_and_batch() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm, 5 + 3 * torch.randn(5, 3, 4, 6), torch.randn(5, 3, 4, 6)


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    norm, x, weight = norm_and_batch()
    samples = slice(0, 2) if rank == 0 else slice(2, 5)  # batches of different size
    synchronize_batch_norms(norm)
    x = x[samples].requires_grad_()
    y = norm(x)
    (y.square() * weight[samples]).sum().backward()
    grads = [norm.weight.grad, norm.bias.grad]
    for grad in grads:
        distributed.all_reduce(grad)
    torch.save([y.detach(), x.grad, *grads, *norm.buffers()], f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    torch.multiprocessing.spawn(run_rank, args=(str(tmp_path),), nprocs=2)
    norm, x, weight = norm_and_batch()
    x.requires_grad_()
    y = norm(x)
    (y.square() * weight).sum().backward()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    torch.testing.assert_close(torch.cat([first[0], second[0]]), y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat([first[1], second[1]]), x.grad, rtol=1e-4, atol=1e-4)
    for outputs in (first, second):
        for value, expected in zip(outputs[2:], [norm.weight.grad, norm.bias.grad, *norm.buffers()], strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


def test_one_process_and_evaluation_equal_plain_batch_norm():
    norm, x, _ = norm_and_batch()
    expected = norm.train()(x), norm.eval()(x)
    synchronized, _, _ = norm_and_batch()
    synchronize_batch_norms(nn.Sequential(synchronized))
    assert type(synchronized) is SynchronizedBatchNorm2d
    torch.testing.assert_close(synchronized.train()(x), expected[0])
    torch.testing.assert_close(synchronized.eval()(x), expected[1])
