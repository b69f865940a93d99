from shared_libs.atomic.memory import *
