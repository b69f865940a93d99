from shared_libs.atomic.resilience import *
