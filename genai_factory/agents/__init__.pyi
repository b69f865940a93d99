from shared_libs.agents import *
