"""HTML tables with which Jupyter shows a task or a forecaster."""

import html
from collections.abc import Mapping, Sequence


def html_table(title: str, rows: Mapping[str, str | Sequence[str]]) -> str:
    """Return an HTML table with a title and a row for each name: one line per text; names without text are left out."""
    lines = []
    for name, texts in rows.items():
        texts = [texts] if isinstance(texts, str) else list(texts)
        if any(texts):
            cell = "<br>".join(html.escape(text) for text in texts)
            lines.append(
                f"<tr><th style='text-align:left;vertical-align:top'>{html.escape(name)}</th>"
                f"<td style='text-align:left'>{cell}</td></tr>"
            )
    return f"<div><p><b>{html.escape(title)}</b></p><table>{''.join(lines)}</table></div>"
