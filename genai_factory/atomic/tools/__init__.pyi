from shared_libs.atomic.tools import *
