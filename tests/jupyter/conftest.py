"""A real JupyterLab for the tests of this folder."""

from support.lab import lab as lab
from support.lab import run_notebook as run_notebook
