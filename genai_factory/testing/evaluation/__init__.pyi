from shared_libs.testing.evaluation import *
