from shared_libs.testing.faults.formats import *
