"""Mirror a finished robot-learning run into a model registry, exactly once.

Data goes one way: settings -> source -> run -> plan -> workspace -> receipt. Reading knows nothing of
the registry, writing knows nothing of frameworks, and only :mod:`aml_mirror.pipeline.mirror` knows the order.
"""

__version__ = "0.1.0"
