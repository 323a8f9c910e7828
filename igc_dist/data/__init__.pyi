from .columns import Sliced as Sliced
from .columns import sliced as sliced
from .columns import weighted as weighted
from .source import Source as Source
from .source import ensure as ensure
from .source import input_names as input_names
from .states import random_states_kept as random_states_kept
