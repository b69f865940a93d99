from shared_libs.testing.scenarios.collecting import *
