from shared_libs.testing.faults import *
