from shared_libs.cli import *
