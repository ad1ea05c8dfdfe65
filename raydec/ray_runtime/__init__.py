"""Where raydec meets Ray: the only package that imports it."""
