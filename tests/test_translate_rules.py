"""Every rule of the automatic twin against torch itself: values, and derivatives where torch has them."""
from __future__ import annotations
