"""Drawing samples: solvers over (alpha, sigma) that serve every process, guidance, and drawing part by part."""

from diffcurr import lazy

__getattr__ = lazy.modules_of(__name__)
