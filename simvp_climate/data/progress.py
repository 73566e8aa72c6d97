"""Progress bars of tqdm, in a terminal and in Jupyter."""

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # in a Jupyter without ipywidgets the bar is text, which is no reason to warn, on import and with a path
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
