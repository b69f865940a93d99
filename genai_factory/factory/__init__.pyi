from shared_libs.factory import *
