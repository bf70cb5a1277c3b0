"""What the compiler asks of the machine, and not of a model: asked once, before anybody is timed.

It finds out by compiling and loading small programs, which takes ten seconds the first time on a
machine. The answers stay in the process that contestants are forked from.
"""

from torch._inductor.cpu_vec_isa import valid_vec_isa_list

VECTORS = [str(each) for each in valid_vec_isa_list()]
"""Names of the kinds of vector instructions there are."""
