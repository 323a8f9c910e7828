from . import folded as folded
from .compact import compact as compact
from .coverage import counts as counts
from .coverage import coverage as coverage
from .coverage import tiling as tiling
from .merge import merge as merge
from .verify import verify as verify
