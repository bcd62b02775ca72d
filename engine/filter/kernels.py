"""Arrow's compute functions. They are made when pyarrow is imported, so no type checker sees them."""

from typing import Any

import pyarrow.compute

pc: Any = pyarrow.compute
