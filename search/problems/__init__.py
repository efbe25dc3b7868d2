"""Problems: read from any data file, from a public benchmark or from the mini family, one loader for all."""
