from types import SimpleNamespace

from k_diffusion.sampling import get_sigmas_karras

FUNCTIONS = {"Automatic": None, "Karras": get_sigmas_karras}
schedulers = [SimpleNamespace(label=label, function=function) for label, function in FUNCTIONS.items()]
