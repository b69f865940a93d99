"""The parts of the store of runs (`run_store`): rows, statements, the writer, a shelf for each kind of database."""
