from shared_libs.retrieval import *
