from shared_libs.atomic.llms import *
