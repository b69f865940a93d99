from shared_libs.memory import *
