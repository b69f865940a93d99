from shared_libs.atomic.types import *
