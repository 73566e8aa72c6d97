"""Progress bars from tqdm, in a terminal and in Jupyter."""

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # without ipywidgets tqdm falls back to text in Jupyter, and warns when it is imported
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
