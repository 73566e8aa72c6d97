"""Rules of the project: imports between rooms, public names, dependencies, and examples that run."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "simvp_climate"

# The rooms of the package from the lowest floor up, and the other rooms that each may import.
ALLOWED = {
    "networks": set(),
    "data": set(),
    "processing": {"data", "networks"},
    "metrics": {"data"},
    "quality": {"data", "processing"},
    "plot": {"data", "metrics"},
    "forecasting": {"data", "metrics", "networks", "processing", "quality"},
    "training": {"data", "forecasting", "networks", "processing", "quality"},
}
FLOORS = 6
# only these import torch; in processing only the module where Datasets become tensors
TORCH_ROOMS = {"networks", "processing.tensors", "forecasting", "training"}


def imports(path: Path) -> set[str]:
    """Return all modules that a file imports, also inside functions."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            # "from simvp_climate.data import reader" may import a module or an object of one
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= {node.module} - {"simvp_climate"}
    return modules


MODULES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): path
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
}


def package_imports(module: str) -> set[str]:
    names = {name.removeprefix("simvp_climate.") for name in imports(MODULES[module]) if "simvp_climate." in name}
    return names & MODULES.keys()


def in_rooms(module: str, rooms: set[str]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


@pytest.mark.parametrize("module", MODULES)
def test_no_private_module_of_another_package_is_imported(module):
    private = r"(zarr|xarray)\.(core|coding|backends)\b|torch\.distributed\.nn\b|(^|\.)_(?!_)"
    assert not [name for name in imports(MODULES[module]) if re.search(private, name)]


@pytest.mark.parametrize("module", MODULES)
def test_layers(module):
    room = module.split(".")[0]
    for imported in package_imports(module):
        assert imported.split(".")[0] in ALLOWED[room] | {room}, imported
    outside = {name.split(".")[0] for name in imports(MODULES[module])}
    assert "simvp_climate" not in imports(MODULES[module]), "import from modules, not from the whole package"
    if not in_rooms(module, TORCH_ROOMS):
        assert not outside & {"torch", "lightning_fabric", "safetensors"}
    if room == "networks":
        assert not outside & {"xarray", "pandas", "dask"}
    if room != "plot":
        assert not outside & {"matplotlib", "cartopy"}


def test_the_root_of_the_package_has_only_folders():
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files == {"__init__.py", "__main__.py", "py.typed"}
    assert {module.split(".")[0] for module in MODULES} == ALLOWED.keys()


def test_rooms_have_few_floors():
    def floor(room: str) -> int:
        return 1 + max((floor(below) for below in ALLOWED[room]), default=0)

    assert 1 + max(map(floor, ALLOWED)) <= FLOORS, "the public names are the top floor"


def test_imports_have_no_cycles():
    importers: list[str] = []
    visited: set[str] = set()

    def visit(module):
        assert module not in importers, " -> ".join([*importers, module])
        if module in visited:
            return
        importers.append(module)
        for imported in package_imports(module):
            visit(imported)
        visited.add(importers.pop())

    for module in MODULES:
        visit(module)


@pytest.mark.parametrize("file", [PACKAGE / "__main__.py", *sorted((ROOT / "recipes").glob("*.py"))], ids=str)
def test_recipes_and_the_command_line_use_only_public_names(file):
    assert {name for name in imports(file) if name.startswith("simvp_climate")} == {"simvp_climate"}
    assert not {name.split(".")[0] for name in imports(file)} & {"torch", "matplotlib", "cartopy"}


def test_importing_the_package_is_cheap():
    code = (
        "import sys, simvp_climate; simvp_climate.open_dataset; simvp_climate.Task; simvp_climate.metrics.rmse;"
        "heavy = {'torch', 'matplotlib', 'cartopy', 'lightning_fabric'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_exist_and_have_docstrings():
    import simvp_climate as sc

    assert len(sc.__all__) <= 30
    for name in sc.__all__:
        assert getattr(sc, name).__doc__, name
    for namespace in (getattr(sc, name) for name in sc._NAMESPACES):
        assert dir(namespace) == sorted(namespace.__all__), "a tab key shows the public functions and nothing else"
        for name in namespace.__all__:
            assert getattr(namespace, name).__doc__, name
    assert set(sc.__all__) <= set(dir(sc))
    assert sc.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    with pytest.raises(AttributeError, match="no attribute 'forecats'"):
        sc.forecats  # noqa: B018


def test_environment_yml_names_the_dependencies_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # names on conda-forge
    names = {"torch": "pytorch", "netCDF4": "netcdf4", "cf-xarray": "cf_xarray", "matplotlib": "matplotlib-base"}
    expected = {f"python{project['requires-python']}"}
    for requirement in project["dependencies"]:
        name, bound = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()
        expected.add(names.get(name, name) + bound)
    lines = (ROOT / "environment.yml").read_text().split("dependencies:")[1].splitlines()
    listed = {line.strip().removeprefix("- ") for line in lines if line.strip()} - {"pip", "pip:"}
    assert listed == expected


def test_extras_of_users_have_only_what_the_package_uses():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    for extra in extras.keys() - {"docs", "test", "simulate", "benchmarks", "all"}:
        for requirement in extras[extra]:
            name = re.match(r"[\w-]+", requirement)[0]
            assert re.search(rf"\b{name}\b", source), f"the extra {extra} has {name}"
    (everything,) = extras["all"]
    assert not {"docs", "test", "simulate", "benchmarks"} & set(re.findall(r"\w+", everything))


def read_pins(file: str) -> dict[str, str]:
    """Return the versions in a file of constraints by name."""
    lines = [line.split("==") for line in (ROOT / file).read_text().splitlines() if "==" in line]
    return {name.lower().replace("_", "-"): version for name, version in lines}


def test_the_lowest_constraints_are_the_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lowest, tested = read_pins("constraints-lowest.txt"), read_pins("constraints.txt")
    for requirement in project["dependencies"]:
        name, bound = re.match(r"([\w-]+)>=([\d.]+)", requirement).groups()
        pinned = lowest[name.lower()]
        # 2.2 stands for the first release 2.2.x that installs
        assert pinned == bound or pinned.startswith(f"{bound}."), requirement
    # what the tests alone need is the same in both, unless it follows from a lower bound
    assert {name for name in tested if name in lowest and tested[name] != lowest[name]} == {
        *(re.match(r"[\w-]+", requirement)[0].lower() for requirement in project["dependencies"]),
        "click", "distributed", "pyparsing", "scitools-iris", "sympy",
    }  # fmt: skip


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-lowest.txt"])
def test_constraints_pin_every_dependency(file):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = read_pins(file)
    extras = project["optional-dependencies"]
    requirements = list(project["dependencies"])
    for name in extras.keys() - {"simulate", "benchmarks"}:
        requirements += extras[name]
    names = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in requirements} - {project["name"]}
    assert names <= pinned.keys()


def test_the_example_of_the_readme_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example = next(block for block in blocks if "sc.train(" in block)
    # fewer months than in the README
    split = 'sc.split(ds, "2003-08", "2003-12")'
    assert split in example
    example = example.replace(split, 'sc.split(ds.sel(time="2003"), "2003-04", "2003-08")')
    # a climatology of four months holds no others
    assert "train=train" in example
    short = "climatology=sc.baselines.climatology(train, method='hourly'), train=train"
    example = example.replace("train=train", short)
    command = [sys.executable, "-W", "error", "-c", "import torch; torch.set_num_threads(1)\n" + example]
    subprocess.run(command, cwd=tmp_path, check=True, env={"MPLBACKEND": "agg", "HOME": str(tmp_path)})
    assert {path.name for path in tmp_path.iterdir()} >= {"forecast.nc", "maps.png"}


def test_the_readme_is_short_and_begins_like_the_guide():
    readme, guide = ((ROOT / name).read_text() for name in ("README.md", "docs/get-started.md"))
    assert len(readme.splitlines()) <= 120
    example = re.search(r"```python\n(.*?)```", readme, re.DOTALL).group(1)
    assert example in guide


def test_the_examples_on_your_own_data_run(monkeypatch, capsys, tmp_path):
    from factories import waves

    import simvp_climate as sc

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL)
    lines = "".join(block for block in blocks[:2])
    monkeypatch.chdir(tmp_path)
    waves().to_netcdf("mine.nc")
    opened = []
    # the other stores of the examples do not exist
    monkeypatch.setattr(
        sc, "open_dataset", lambda path, names, levels=None: opened.append(path) or waves(), raising=False
    )
    exec(lines, {"sc": sc})
    assert len(opened) == 3 and "check: nothing found" in capsys.readouterr().out


def test_variables_are_renamed_as_the_guide_says(monkeypatch, capsys, tmp_path):
    from factories import waves

    import simvp_climate as sc

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "hgt" in block]
    monkeypatch.chdir(tmp_path)
    ds = waves(times=4)
    heights = ds.z500.expand_dims(level=[500, 850]).assign_attrs(ds.z500.attrs)
    ds.rename(t2m="air").drop_vars("z500").assign(hgt=heights).to_netcdf("mine.nc")
    names = {"sc": sc}
    exec(block, names)
    assert list(names["ds"].data_vars) == ["t2m", "z500"] and (names["ds"].z500 == ds.z500).all()
    assert capsys.readouterr().out.startswith("Opened 2 variables:")


def test_editors_see_the_public_names():
    source = (PACKAGE / "__init__.py").read_text()
    imported = {
        (node.module.removeprefix("simvp_climate").removeprefix("."), alias.asname or alias.name)
        for block in ast.walk(ast.parse(source))
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in block.body
        for alias in node.names
    }
    import simvp_climate as sc

    namespaces = {(home.rpartition(".")[0], name) for name, home in sc._NAMESPACES.items()}
    assert imported == {(home, name) for name, home in sc._HOME.items()} | namespaces
