from shared_libs.atomic.results import *
