"""What is bound into the sandbox: it imports the standard library, torch, numpy and itself only.

There it stands as the package ``inside``, with the four files of slmlab.checking by which a call is
made as in the notebook in its folder ``answering``.
"""
