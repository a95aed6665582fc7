"""Nothing: what the tests start finds this in place of a package that only the tests have.

jsonschema, which azure-ai-ml loads, takes rfc3987-syntax where it is installed, and that makes a grammar of
all internationalised addresses as it is loaded: more than half of what azure-ai-ml takes to load. The program
never has it (requirements.txt). builders/bill_of_materials.py, which needs it, does not look here.
"""

raise ImportError("absent, as where the program is installed")
