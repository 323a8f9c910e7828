from . import answers as answers
from . import asking as asking
from . import commands as commands
from . import help as help
from . import main as main
from . import plans as plans
from . import runs as runs
from . import screen as screen
