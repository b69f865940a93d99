from shared_libs.testing.simulation import *
