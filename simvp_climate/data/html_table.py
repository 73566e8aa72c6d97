"""What Jupyter shows of a task or a forecaster: a small table of facts."""

import html
from collections.abc import Mapping, Sequence


def facts(title: str, rows: Mapping[str, str | Sequence[str]]) -> str:
    """Return HTML with a title and a row for each fact, a line for each text of it; empty facts are left out."""
    lines = []
    for name, texts in rows.items():
        texts = [texts] if isinstance(texts, str) else list(texts)
        if any(texts):
            words = "<br>".join(html.escape(text) for text in texts)
            lines.append(
                f"<tr><th style='text-align:left;vertical-align:top'>{html.escape(name)}</th>"
                f"<td style='text-align:left'>{words}</td></tr>"
            )
    return f"<div><p><b>{html.escape(title)}</b></p><table>{''.join(lines)}</table></div>"
