"""`python -m hf_labels.cli`, also under torchrun."""

import sys

from hf_labels.cli.main import main

sys.exit(main())
