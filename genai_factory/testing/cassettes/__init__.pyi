from shared_libs.testing.cassettes import *
