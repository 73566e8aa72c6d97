"""Hook of mkdocs: run the code of docs/pictures.md, and put every figure beneath the code that draws it.

With the environment variable GUIDE_FIGURES=no nothing is run, and gray rectangles stand for the figures.
"""

import ast
import io
import os
import re
import tempfile
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from markdown.extensions.toc import slugify
from matplotlib.animation import Animation
from matplotlib.figure import Figure
from mkdocs.structure.files import File
from PIL import Image

PAGE = "pictures.md"
GALLERY = "<!-- gallery -->"
THUMBNAIL = (320, 200)
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PLACE = re.compile(r"<!-- figure (\w+) -->")


@dataclass(frozen=True)
class Drawn:
    """A figure of the guide."""

    function: str  # of sc.plot
    section: str  # heading of the section
    path: str
    content: bytes


@dataclass(frozen=True)
class Guide:
    """The text of the page with its figures."""

    text: str
    figures: list[Drawn]

    def first(self, function: str) -> Drawn:
        """Return the first figure that a function draws."""
        return next(figure for figure in self.figures if figure.function == function)


def draw_guide(text: str, *, run: bool = True) -> Guide:
    """Return a page whose blocks of code end with each figure, which follows, and the figures."""
    names: dict[str, object] = {}
    figures: list[Drawn] = []

    def with_figures(block: re.Match) -> str:
        section = re.findall(r"^## (.+)$", text[: block.start()], re.MULTILINE)[-1:] or [""]
        parts, lines, start = [], block[1].splitlines(), 0
        for statement in ast.parse(block[1]).body:
            content = _run(statement, names) if run else _placeholder(statement)
            if content is None:
                continue
            function = ast.unparse(statement.value.func).split(".")[-1]
            count = 1 + sum(figure.function == function for figure in figures)
            suffix = "gif" if content[:3] == b"GIF" else "png"
            figures.append(Drawn(function, section[0], f"figures/{function}-{count}.{suffix}", content))
            code = "\n".join(lines[start : statement.end_lineno])
            parts.append(f"```python\n{code}\n```\n\n![Figure of {function}]({figures[-1].path})\n")
            start = statement.end_lineno
        if rest := "\n".join(lines[start:]).strip("\n"):
            parts.append(f"```python\n{rest}\n```")
        return "\n".join(parts)

    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        result = _BLOCK.sub(with_figures, text)
    return Guide(result, figures)


def _run(statement: ast.stmt, names: dict[str, object]) -> bytes | None:
    """Run a statement, and return the picture or film if it is an expression that draws one."""
    if not isinstance(statement, ast.Expr):
        exec(compile(ast.Module([statement], []), PAGE, "exec"), names)
        return None
    value = eval(compile(ast.Expression(statement.value), PAGE, "eval"), names)
    plt.close("all")
    if isinstance(value, Animation):
        path = next(keyword.value for keyword in statement.value.keywords if keyword.arg == "path")
        return Path(ast.literal_eval(path)).read_bytes()
    if not isinstance(value, Figure):
        return None
    picture = io.BytesIO()
    value.savefig(picture, format="png", dpi=100)
    return picture.getvalue()


def _placeholder(statement: ast.stmt) -> bytes | None:
    """Return a gray picture for a statement that calls a function of sc.plot."""
    is_call = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    if not is_call or not ast.unparse(statement.value.func).startswith("sc.plot."):
        return None
    picture = io.BytesIO()
    Image.new("RGB", (32, 20), "lightgray").save(picture, format="png")
    return picture.getvalue()


def thumbnail(figure: Drawn) -> Drawn:
    """Return a small picture of a figure; of a film, its first frame."""
    image = Image.open(io.BytesIO(figure.content)).convert("RGB")
    image.thumbnail(THUMBNAIL)
    picture = io.BytesIO()
    image.save(picture, format="png")
    return Drawn(figure.function, figure.section, f"figures/small-{figure.function}.png", picture.getvalue())


def gallery(guide: Guide) -> tuple[str, list[Drawn]]:
    """Return HTML with a small picture of each function that leads to its section, and the pictures."""
    small = [thumbnail(guide.first(function)) for function in dict.fromkeys(each.function for each in guide.figures)]
    links = [
        f'<a href="#{slugify(each.section, "-")}"><img src="{each.path}" alt="{each.section}" loading="lazy">'
        f"<span>{each.function}</span></a>"
        for each in small
    ]
    return f'<div class="gallery">{"".join(links)}</div>', small


# The hooks, which mkdocs calls by name.
_built: dict[str, Guide] = {}  # by text: `mkdocs serve` calls the hooks again after every change


def on_files(files, config):
    """Draw the figures and add them to the files of the site."""
    matplotlib.use("Agg")
    text = (Path(config.docs_dir) / PAGE).read_text()
    if text not in _built:
        _built.clear()
        _built[text] = draw_guide(text, run=os.environ.get("GUIDE_FIGURES") != "no")
    guide = _built[text]
    for figure in [*guide.figures, *gallery(guide)[1]]:
        files.append(File.generated(config, figure.path, content=figure.content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Replace the page by that with figures, and marks in other pages by a figure that leads to it."""
    (guide,) = _built.values()
    if page.file.src_uri == PAGE:
        return guide.text.replace(GALLERY, gallery(guide)[0])
    link = rf"[![Figure of \1]({{}})]({PAGE})"
    return _PLACE.sub(lambda match: match.expand(link.format(guide.first(match[1]).path)), markdown)
