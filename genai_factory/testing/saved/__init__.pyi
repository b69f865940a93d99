from shared_libs.testing.saved import *
