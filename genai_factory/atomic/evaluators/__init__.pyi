from shared_libs.atomic.evaluators import *
