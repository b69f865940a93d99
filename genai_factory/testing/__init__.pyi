from shared_libs.testing import *
