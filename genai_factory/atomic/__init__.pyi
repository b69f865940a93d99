from shared_libs.atomic import *
