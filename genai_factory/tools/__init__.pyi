from shared_libs.tools import *
