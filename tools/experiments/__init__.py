"""Ready experiments from a folder of images: databases, net, solver, README."""
