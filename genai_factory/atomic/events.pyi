from shared_libs.atomic.events import *
