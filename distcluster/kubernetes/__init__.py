"""A job on Kubernetes: from the job file to objects, to the cluster, and what it says while it runs."""
