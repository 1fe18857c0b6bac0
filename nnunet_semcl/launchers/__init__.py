"""Where trainings run: beside this process, or as jobs of a cluster."""
