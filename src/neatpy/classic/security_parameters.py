"""Security Parameters, which are those of today, in a module of 1.0's name."""

from neatpy import Certificate as Certificate
from neatpy import SecurityParameters as SecurityParameters
