from shared_libs.atomic.errors import *
