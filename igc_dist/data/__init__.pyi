from .source import Sliced as Sliced
from .source import Source as Source
from .source import ensure as ensure
from .source import input_names as input_names
from .source import sliced as sliced
from .source import weighted as weighted
from .states import random_states_kept as random_states_kept
