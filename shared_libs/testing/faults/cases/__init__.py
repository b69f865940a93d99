"""What real model servers put on the wire: data, played by `wire_cases.py`."""
