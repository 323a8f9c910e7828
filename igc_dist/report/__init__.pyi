from .gallery import write_gallery as write_gallery
from .intervals import interval as interval
from .judgement import judged as judged
from .page import write_report as write_report
from .tables import compare as compare
from .tables import info as info
from .tables import summary_table as summary_table
