from shared_libs.durable import *
