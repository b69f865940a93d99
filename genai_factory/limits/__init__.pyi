from shared_libs.limits import *
