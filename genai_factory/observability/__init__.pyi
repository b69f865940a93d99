from shared_libs.observability import *
