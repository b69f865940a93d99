from shared_libs.service import *
