from .account import Account as Account
from .account import kept as kept
from .profiling import profiled as profiled
from .progress import Meter as Meter
from .progress import metered as metered
from .watch import follow as follow
