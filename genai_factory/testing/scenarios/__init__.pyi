from shared_libs.testing.scenarios import *
