"""Work on many problems, done here or by workers of a Ray cluster: `codi_lens[ray]`.

The one seam between codi_lens and Ray. A *job* is what is done, a *task* what it is done to: a
block of problems, say. Ray holds the job once a node, starts the workers, and replaces one that
dies; each task is done as it would be done here, by as many threads, so that the results are the
same bit for bit.
"""
