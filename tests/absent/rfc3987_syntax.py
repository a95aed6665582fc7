"""An empty module: programs that the tests start find it instead of a package that only the tests have.

azure-ai-ml loads jsonschema, which loads rfc3987-syntax if it is installed. That package builds a grammar of
all internationalised addresses when it is imported, which is more than half of azure-ai-ml's load time. The
program never has it (requirements.txt). builders/bill_of_materials.py needs it and does not look here.
"""

raise ImportError("absent, as where the program is installed")
