"""The benchmark of networks at equal processor time: every network of its list, its budget, choices and tables."""

import json
import math
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import simvp_climate as sc
from simvp_climate.processing import tensors

ROOT = Path(__file__).parents[1]
GRID = (32, 64)
NAMES = [
    "ours", "ResNet", "ResNet, half resolution", "ResNet, half resolution, position field", "ConvNeXt U-Net", "SFNO",
    "ViT", "ViT, windows",
    "SimVPv2 as published", "SimVPv2 as published, its own loss and training, tuned",
]  # fmt: skip
# learned positions tell longitudes apart, zeros beyond the edges too
PERIODIC = ["ours", "ResNet", "ResNet, half resolution", "ConvNeXt U-Net"]


@pytest.fixture
def rivals(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import rivals

    return rivals


def make_network(rivals, name, forcings=0, grid=GRID):
    chosen = rivals.NETWORKS[name]
    if chosen.needs and find_spec(chosen.needs) is None:
        pytest.skip(f"{chosen.needs} is not installed")
    torch.manual_seed(0)
    channels = len(chosen.variables)
    shape = sc.NetworkShape(4, channels, forcings, channels, channels, grid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch-harmonics uses torch.jit
        return tensors.build_network(chosen.model, shape)


def test_the_list_is_complete(rivals):
    assert list(rivals.NETWORKS)[: len(NAMES)] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_networks_map_states_to_changes(rivals, name):
    network = make_network(rivals, name, forcings=2)
    size = sum(value.numel() for value in network.parameters())
    assert 0.3e6 <= size <= 1e6
    assert all(value.is_floating_point() for value in network.state_dict().values() if value.dim())
    channels = len(rivals.NETWORKS[name].variables)
    x, f = torch.randn(1, 4, channels, *GRID), torch.randn(1, 4, 2, *GRID)
    network.eval()
    with torch.no_grad():
        assert network(x, f).shape == x.shape
        if "published" not in name:  # these predict the state
            network.change_scale_TC.zero_()
            assert torch.equal(network(x, f), x[:, -1:].expand_as(x))


@pytest.mark.parametrize("name", PERIODIC)
def test_periodic_networks_commute_with_a_shift_in_longitude(rivals, name):
    network = make_network(rivals, name).eval()
    x = torch.randn(1, 4, 5, *GRID)
    with torch.no_grad():
        torch.testing.assert_close(network(x.roll(20, -1)), network(x).roll(20, -1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["ResNet, half resolution", "ConvNeXt U-Net", "SFNO", "ViT", "ViT, windows"])
def test_networks_take_grids_with_rows_on_the_poles(rivals, name):
    network = make_network(rivals, name, grid=(19, 36)).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 4, 5, 19, 36)).shape == (1, 4, 5, 19, 36)


def test_windows_do_not_join_the_poles(rivals):
    network = make_network(rivals, "ViT, windows").eval()
    x = torch.randn(1, 4, 5, *GRID, requires_grad=True)
    network(x)[0, 0, 0, 0].sum().backward()
    reach = x.grad[0].abs().amax(dim=(0, 1, 3))
    assert reach[:16].min() > 0 and reach[28:].max() == 0


def test_the_sfno_analyzes_what_it_synthesizes_on_the_rows_of_weatherbench(rivals):
    network = make_network(rivals, "SFNO").fields.network
    forward, inverse = network.trans_down, network.itrans_up
    coefficients = torch.tril(torch.randn(1, forward.lmax, forward.mmax, dtype=torch.complex64))
    coefficients[..., 0] = coefficients[..., 0].real + 0j
    torch.testing.assert_close(forward(inverse(coefficients)), coefficients, atol=1e-5, rtol=1e-4)
    # the harmonic of total wavenumber 1 and zonal wavenumber 0 is sqrt(3 / 4 pi) sin(latitude), north first
    coefficients = torch.zeros_like(coefficients)
    coefficients[0, 1, 0] = 1
    sine = torch.sin(torch.deg2rad(torch.linspace(87.1875, -87.1875, 32)))
    expected = math.sqrt(3 / (4 * math.pi)) * sine[:, None].expand(GRID)
    torch.testing.assert_close(inverse(coefficients)[0], expected, atol=1e-5, rtol=1e-4)


def result(name="ours", budget=100.0, seed=0, rate=1e-3, z500=100.0, stage="run", **changes):
    errors = {"z500": [z500 * factor for factor in (1, 2, 3, 4, 5)], "t2m": [z500 / 100] * 5}
    scores = {}
    for variable, rmse in errors.items():
        scores[variable] = {"rmse": rmse, "rmse_low": [0.9 * x for x in rmse], "rmse_high": [1.1 * x for x in rmse]}
        for metric in ("mae", "acc", "activity", "small_scale_variance", "effective_resolution"):
            scores[variable][metric] = [0.5] * 5
    return {
        "stage": stage, "name": name, "budget": budget, "optimizer": "muon", "rate": rate, "seed": seed,
        "precision": "32-true",
        "parameters": 700_000, "ms_a_step": 100.0, "steps": 1000, "cpu_seconds": budget, "seconds": 2 * budget,
        "scores": scores, **changes,
    }  # fmt: skip


def test_the_best_rate_has_the_lowest_error_and_did_not_diverge(rivals, monkeypatch):
    runs = [result(rate=rate, z500=error) for rate, error in ((1e-3, 120), (2e-3, 90), (4e-3, 95))]
    runs += [{**result(rate=8e-3, z500=10), "failed": "the loss"}, result("ViT", rate=1e-3, precision="bf16-mixed")]
    monkeypatch.setattr(rivals, "read_results", lambda out, stage: runs)
    runs += [result(rate=1e-3, z500=1, budget=300.0)]  # longer, not a better rate
    assert rivals.best_rates(Path(), "32-true") == {"ours": ("muon", 2e-3)}
    assert rivals.best_rates(Path(), "bf16-mixed") == {"ours": ("muon", 2e-3), "ViT": ("muon", 1e-3)}


def test_results_of_another_rate_and_runs_without_a_cost_are_errors(rivals, tmp_path):
    job = rivals.Job("run", "ours", 300.0, "muon", 8e-3, 0, "32-true")
    with pytest.raises(ValueError, match="run `costs` first"):
        rivals.check_result(job, tmp_path)
    (tmp_path / "32-true.costs").write_text('{"ours": [0.1, 5.0]}')
    rivals.check_result(job, tmp_path)
    job.path(tmp_path).write_text(json.dumps(result(budget=300.0, rate=4e-3)))
    with pytest.raises(ValueError, match=r"run-ours-300s-0-32-true.json was run with \('muon', 0.004\)"):
        rivals.check_result(job, tmp_path)


def test_the_report_compares_with_the_rival_that_is_best_at_each_lead(rivals, tmp_path):
    report = rivals.rival_report
    runs = [result(z500=z, budget=b, seed=s) for b, z in ((100.0, 100), (600.0, 50)) for s in (0, 1)]
    runs += [result("ResNet", z500=z, budget=b) for b, z in ((100.0, 110), (600.0, 75))]
    runs += [result("SFNO", z500=120, budget=100.0), {**result("ViT", z500=1), "failed": "the loss"}]
    groups = report.group(runs)
    assert report.best_rivals(groups, 100.0, "z500", ["ours"]) == ["ResNet"] * 5
    comparisons = {
        ("ours", 100.0): [
            {"ResNet": {name: ([ratio] * 5, [ratio - 0.1] * 5, [ratio + 0.1] * 5) for name in ("z500", "t2m")}}
            for ratio in (0.9, 1.0)
        ]
    }
    long = {name: {"drift": drift, "variance": 0.9} for name, drift in (("z500", 41.6), ("t2m", 0.3))}
    longer = {name: {"drift": 2 * x["drift"], "variance": 0.8} for name, x in long.items()}
    runs[0]["long_forecasts"], runs[1]["long_forecasts"] = long, longer
    page = tmp_path / "rivals.md"
    arguments = ["ours", "ResNet", "SFNO", "ViT"], ["ours"], ("z500", "t2m")
    text = report.describe({"run": groups}, {"run": comparisons}, runs[:2], *arguments)
    for written in ("an older text", text):
        page.write_text(page.read_text() if page.exists() else "# By hand\n")
        report.write_section(page, "32-true", written)
    page.write_text(page.read_text() + "more by hand\n")
    report.write_section(page, "32-true", text)
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("# By hand", "more by hand") and "an older text" not in lines
    assert sum("of the report 32-true" in line for line in lines) == 2
    assert "| ours | 100 | z500 |" + " 0.950 (0.80 to 1.10), ResNet |" * 5 in lines
    assert any(line.startswith("| ours | 100 ± 0.0 (90 to 110) | 200 ± 0.0") for line in lines)
    # halfway between 100 and 50 on a logarithmic axis is 70.7; 75 is reached after share log(4/3) / log(2)
    expected = math.exp(math.log(100) + math.log(6) * math.log(4 / 3) / math.log(2))
    assert f"| ours | z500 | {expected:.0f} | {expected:.0f} | {expected:.0f} |" in lines
    assert "| ours | 100 | 2 | 83 | 0.60 | 0.85 | 0.85 |" in lines
    report.draw(tmp_path / "rivals.png", groups, *arguments)
    report.write_csv(tmp_path / "scores.csv", {"run": groups})
    assert "run,ours,600.0,1,32-true,z500,rmse,24,50,45.0,55.0" in (tmp_path / "scores.csv").read_text()


def test_a_budget_is_turned_into_steps(rivals, monkeypatch):
    calls = []

    def train(task, dataset, *, valid, model, config, device):
        calls.append((valid, config.epochs, config.limit_train_batches))
        return SimpleNamespace(network=torch.nn.Linear(2, 3))

    monkeypatch.setattr(rivals, "measure_step", lambda *arguments: (0.1, 5.0))
    monkeypatch.setattr(rivals.sc, "train", train)
    chosen = rivals.NETWORKS["ours"]
    years = SimpleNamespace(sizes={"time": 4384})  # 986 batches of 4
    _, measured = rivals.train_for(105.0, chosen, chosen.task, years)
    assert calls == [(None, 10, 100)] and measured["steps"] == 1000 and measured["parameters"] == 9
    rivals.train_for(1805.0, chosen, chosen.task, years)
    assert calls[1] == (None, 19, 947)  # 18,000 steps are more than ten epochs


def test_a_network_that_lacks_its_module_is_skipped(rivals, monkeypatch, capsys):
    chosen = {"ours": rivals.NETWORKS["ours"], "SFNO": replace(rivals.NETWORKS["SFNO"], needs="no_such_module")}
    monkeypatch.setattr(rivals, "NETWORKS", chosen)
    assert rivals.choose_networks(None) == ["ours"]
    assert "SFNO is skipped: it needs no_such_module" in capsys.readouterr().out
    with pytest.raises(Exception, match="'VIT'"):
        rivals.choose_networks(["VIT"])
