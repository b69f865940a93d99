from shared_libs.atomic.json_schema import *
